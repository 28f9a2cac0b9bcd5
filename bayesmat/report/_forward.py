"""The page about one fitted property: how far its predictions and their uncertainty can be trusted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np

from .. import plot
from .._types import replacing
from ..forward import Fitted
from ..infer import Calibration
from ._candidates import drawing
from ._page import head
from ._sections import _figures, warning_box
from ._text import NO_BREAK, count, escape, fixed, number, percent, quantity, show

NUM_WORST = 12  # of many molecules; a quarter of few, and three at least
MAX_LISTED, MAX_OPEN = 500, 20
"""Rows set aside: listed at all, and without being asked."""
FEW = 30
"""Below this many molecules a share of them is known to some ten per cent only."""
MIN_CONFORMAL = 9
"""Measurements without which no conformal interval holds 90 %."""


def calibration_to_html(fitted: Fitted, set_aside: Sequence[tuple[int, str]] = (), source: str = "") -> str:
    """The report on a fit as the text of a complete HTML document; the same fit gives the same text.

    Args:
        fitted: from `forward.fit`.
        set_aside: (line number, reason) of each row of the user's file that was not used.
        source: where the measurements came from, such as the file's name.
    """
    title = f"Calibration: {fitted.label}"
    return f"""{head(title)}
<body>{_header(fitted, set_aside, source)}
<main>{_warnings(fitted, set_aside)}
{_trust(fitted.calibration)}
{_worst(fitted)}
{_rows(set_aside)}
</main>
<footer>Written by bayesmat {escape(metadata.version("bayesmat"))}. What was seen here holds for molecules like those
of the table; for others look at their applicability.</footer></body></html>
"""


def write_calibration(
    fitted: Fitted, path: str | Path, set_aside: Sequence[tuple[int, str]] = (), source: str = ""
) -> Path:
    """Writes `calibration_to_html` to one self-contained file and returns where it is; missing folders are made."""
    path = Path(path)
    with replacing(path) as partial:
        partial.write_text(calibration_to_html(fitted, set_aside, source), encoding="utf-8", newline="\n")
    return path


def _header(fitted: Fitted, set_aside: Sequence[tuple[int, str]], source: str) -> str:
    judged = fitted.calibration
    about = [f"Learned from {escape(source)}." if source else "", "The model works on the logarithm of the values."]
    if not fitted.predictor.log:
        about.pop()
    if fitted.sources:
        about.append(f"It transfers from {escape(', '.join(item.label for item in fitted.sources))}.")
    about += [f"{escape(text[0].upper() + text[1:])}." for text in fitted.not_believed()]
    return f"""<header><p class="eyebrow">Calibration report</p><h1>{escape(fitted.label)}</h1>
<p>{" ".join(filter(None, about))}</p>
<p class="answer">Asked for measurements that it had not seen ({escape(judged.kind)}), the model errs by
<b>{quantity(number(judged.mae), judged.unit)}</b> on average, and its 90{NO_BREAK}% intervals hold
<b>{show(percent(plot.coverage_at(judged, 0.9)))}</b> of them{_by_chance(judged)}.</p>
<dl class="tiles">{"".join(_tiles(fitted, len(set_aside)))}</dl>
<nav aria-label="Sections"><a href="#calibration">Calibration</a><a href="#worst">Worst predictions</a>
<a href="#aside">Rows set aside</a></nav></header>"""


def _by_chance(judged: Calibration) -> str:
    return f" (chance alone: ±{NO_BREAK}{number(100 * judged.coverage_error(), 2)}{NO_BREAK}%)"


def _in(unit: str) -> str:
    """A unit for a label: some are too long to stand beside a large number."""
    return "" if unit in ("", "1") else f" [{escape(unit)}]"


def _tiles(fitted: Fitted, num_aside: int) -> Iterator[str]:
    judged = fitted.calibration
    tiles = (
        ("molecules learned from", fixed(len(fitted.smiles), 0)),
        ("rows set aside", fixed(num_aside, 0)),
        (f"mean absolute error{_in(judged.unit)}", number(judged.mae)),
        ("inside the 90 % interval", show(percent(plot.coverage_at(judged, 0.9)))),
        ("variance explained", show(percent(max(_explained(judged), 0.0)))),
    )
    for label, value in tiles:
        yield f"<div><dt>{label}</dt><dd>{value}</dd></div>"


def _explained(judged: Calibration) -> float:
    """Share of the variance that predictions of unseen measurements explain; below 0 the mean would do better."""
    return 1 - judged.rmse**2 / float(np.var(judged.observed))


def _warnings(fitted: Fitted, set_aside: Sequence[tuple[int, str]]) -> str:
    return warning_box(list(_findings(fitted, len(set_aside))))


def _findings(fitted: Fitted, num_aside: int) -> Iterator[str]:
    judged, n = fitted.calibration, len(fitted.smiles)
    held, chance = plot.coverage_at(judged, 0.9), max(3 * judged.coverage_error(), 0.03)
    if held < 0.9 - chance:
        yield (
            f"The model is overconfident: its 90{NO_BREAK}% intervals hold {percent(held)} of the measurements. "
            "Look for mistakes among the worst predictions, and predict with --intervals recalibrated."
        )
    if held > 0.9 + chance:
        yield (
            f"The intervals are wider than they need to be: those of 90{NO_BREAK}% hold {percent(held)}. Predict with "
            "--intervals recalibrated for narrower ones."
        )
    if _explained(judged) < 0.2:
        yield (
            f"The model explains {percent(max(_explained(judged), 0.0))} of the variance of unseen measurements: it is "
            "hardly better than their mean. More measurements, or a related property to transfer from, would help."
        )
    if n < FEW:
        yield f"Only {count(n, 'molecule')}: what this page says about intervals is itself uncertain."
    if num_aside > 0.2 * (n + num_aside):
        yield f"{count(num_aside, 'row')} could not be used, more than a fifth of the file; the reasons stand below."


def _trust(judged: Calibration) -> str:
    figures = _figures((*plot.calibration_panels(judged), plot.pit_panel(judged)))
    pairs = [
        ("measurements", fixed(judged.num_points, 0)),
        ("kind of test", escape(judged.kind)),
        ("root mean squared error", quantity(number(judged.rmse), judged.unit)),
        ("mean absolute error", quantity(number(judged.mae), judged.unit)),
        ("mean CRPS (smaller is better)", quantity(number(judged.crps), judged.crps_unit or judged.unit)),
        ("mean negative log density (nats)", show(number(judged.nll))),
    ]
    for level in judged.coverage:
        held = percent(plot.coverage_at(judged, level))
        pairs.append((f"inside the {show(percent(level))} interval", show(held)))
    asked = f"{percent(judged.recalibrated_level(0.9))} (recalibrated)"
    if judged.num_points >= MIN_CONFORMAL:
        asked += f", {percent(judged.conformal_level(0.9))} (conformal)"
    pairs.append(("interval to ask for, for 90 % of new ones inside", show(asked)))
    table = "".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in pairs)
    return f"""<section id="calibration"><h2>Can the predictions be trusted?</h2>
<p>Every measurement against what the model says without having seen it. The points of the first figure should follow
the dashed line, and nine bars in ten should touch it. The blue curve of the second should follow it too: above it the
stated uncertainty is too large, below it too small. The third should be flat: a hump in the middle says too large, a
pile at both ends too small, a slope that predictions are off to one side. The grey bands are what chance alone
allows.</p>{figures}
<table class="scores">{table}</table></section>"""


def _worst(fitted: Fitted) -> str:
    judged = fitted.calibration
    error = judged.mean - judged.observed
    size = np.abs(np.log(judged.mean / judged.observed)) if fitted.predictor.log else np.abs(error)
    worst = np.argsort(-size, kind="stable")[: min(NUM_WORST, max(3, judged.num_points // 4))]
    names = ("Rank", "Structure", "Molecule", "Measured, and predicted without it", "Error", "Chance of one so far out")
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in names)
    rows = "\n".join(_molecule(fitted, rank + 1, int(row)) for rank, row in enumerate(worst))
    largest = "largest error of the logarithm" if fitted.predictor.log else "largest error"
    return f"""<section id="worst"><h2>Worst predictions</h2>
<p>The {len(worst)} molecules with the {largest}. Where the chance is small, look at the measurement first: a typing
mistake, another unit, another phase or another molecule shows up here.</p>
<table class="candidates card" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody></table></section>"""


def _molecule(fitted: Fitted, rank: int, row: int) -> str:
    judged, smiles = fitted.calibration, fitted.smiles[row]
    observed, mean, lower, upper, pit = (
        float(array[row]) for array in (judged.observed, judged.mean, judged.lower90, judged.upper90, judged.pit)
    )
    interval = f"{number(lower, 4)} to {number(upper, 4)}"
    estimates = (
        f"<div><dt>measured</dt><dd>{quantity(number(observed, 4), judged.unit)}</dd></div>"
        f"<div><dt>predicted, and its 90{NO_BREAK}% interval</dt><dd>{quantity(number(mean, 4), judged.unit)}</dd>"
        f'<dd class="own">{show(interval)}</dd></div>'
    )
    return f"""<tr role="row"><td role="cell" class="rank">{rank}</td>
<td role="cell" class="structure"><div class="paper">{drawing(smiles)}</div></td>
<td role="cell" class="molecule"><div class="smiles">{escape(smiles)}</div></td>
<td role="cell" class="predictions"><dl class="estimates">{estimates}</dl></td>
<td role="cell" class="hit"><span class="phone">error</span><b>{quantity(number(mean - observed), judged.unit)}</b></td>
<td role="cell" class="weight"><span class="phone">chance</span>{show(percent(2 * min(pit, 1 - pit)))}</td></tr>"""


def _rows(set_aside: Sequence[tuple[int, str]]) -> str:
    if not set_aside:
        return '<section id="aside"><h2>Rows set aside</h2><p>None: every row was used.</p></section>'
    reasons = Counter(reason for _, reason in set_aside).most_common()
    counted = "".join(f'<tr><th scope="row">{escape(why)}</th><td>{fixed(num, 0)}</td></tr>' for why, num in reasons)
    listed = "".join(
        f'<tr><th scope="row">line {line}</th><td>{escape(reason)}</td></tr>'
        for line, reason in sorted(set_aside)[:MAX_LISTED]
    )
    left = len(set_aside) - MAX_LISTED
    more = f"<p>{count(left, 'further row')} not listed.</p>" if left > 0 else ""
    is_open = " open" if len(set_aside) <= MAX_OPEN else ""
    return f"""<section id="aside"><h2>Rows set aside</h2><p>Lines are counted from 1 at the header.</p>
<table class="scores">{counted}</table>
<details class="card"{is_open}><summary>{count(min(len(set_aside), MAX_LISTED), "row")} by line number</summary>
<table class="scores pairs">{listed}</table>{more}</details></section>"""
