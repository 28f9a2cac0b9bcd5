"""The page about a screened library: which molecules to look at, and what can be expected of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import plot
from .._types import replacing
from ..design import Screened
from ._candidates import _meter, drawing
from ._page import head
from ._sections import _figures, warning_box
from ._text import NO_BREAK, count, escape, factor, fixed, number, percent, plus_minus, quantity, show

MAX_DRAWN = 100
FOREIGN = 0.05
"""Applicability below which a prediction is an extrapolation."""


def screening_to_html(screened: Screened, title: str = "") -> str:
    """The report on a screening as the text of a complete HTML document; the same screening gives the same text.

    Args:
        screened: from `design.rank`.
        title: a line, such as the library's name.
    """
    title = title or f"Screening {count(screened.counts.rows, 'row')}"
    return f"""{head(title)}
<body>{_header(screened, title)}
<main>{warning_box(list(_findings(screened)))}
{_chosen(screened)}
<section id="library"><h2>The library</h2>
<p>How probable a hit is for each molecule; how many hits there would be among the most probable ones, were all of them
tested; and how many molecules are unlike those that the models learned from (left, in amber). Molecules drawn like the
training ones would fill the dashed line evenly.</p>
{_figures(plot.screening_panels(screened))}</section>
{_calibration(screened)}
{_rows(screened)}
</main>
<footer>Written by bayesmat {escape(metadata.version("bayesmat"))}. Probabilities are those of models given their data;
no molecule here was measured. Every row of the library is in the Parquet files beside this page.</footer></body></html>
"""


def write_screening(screened: Screened, path: str | Path, title: str = "") -> Path:
    """Writes `screening_to_html` to one self-contained file and returns where it is."""
    path = Path(path)
    with replacing(path) as partial:
        partial.write_text(screening_to_html(screened, title), encoding="utf-8", newline="\n")
    return path


def _header(screened: Screened, title: str) -> str:
    wanted = [f"{item.label} {item.target}" for item in screened.properties if item.target]
    asked = "".join(f"<li>{escape(text)}</li>" for text in wanted)
    expected = screened.outlook
    times = factor(screened.enrichment, 1.0)
    return f"""<header><p class="eyebrow">Screening report</p><h1>{escape(title)}</h1>
<p class="eyebrow">{"Asked for" if len(wanted) < 2 else "Asked for, all at once"}</p><ul class="asked">{asked}</ul>
<p class="answer">Among the <b>{count(len(screened.picks), "chosen molecule")}</b>,
<b>{show(number(expected.hits))}</b> are expected to be hits (with 90{NO_BREAK}% probability
{fixed(expected.lower, 0)} to {fixed(expected.upper, 0)}), <b>{show(times or "")}</b> times as many as among as many
taken at random.</p>
<dl class="tiles">{"".join(_tiles(screened))}</dl>
<nav aria-label="Sections"><a href="#chosen">Molecules</a><a href="#library">Library</a>
<a href="#calibration">Calibration</a><a href="#rows">Rows</a></nav></header>"""


def _tiles(screened: Screened) -> Iterator[str]:
    counts, best = screened.counts, screened.outlook.best
    tiles = [
        ("molecules scored", fixed(counts.scored, 0)),
        ("hits expected in the library", number(screened.hits)),
        ("hits expected among the chosen", number(screened.outlook.hits)),
        ("at least one hit among them", percent(screened.outlook.any)),
    ]
    if best is not None:
        tiles.append(("the best of all is among them", percent(best)))
    for label, value in tiles:
        yield f"<div><dt>{label}</dt><dd>{show(value)}</dd></div>"


def _findings(screened: Screened) -> Iterator[str]:
    picks = screened.picks
    foreign = sum(value < FOREIGN for value in picks["applicability"].to_pylist())
    if foreign > 0.2 * len(picks):
        yield (
            f"{fixed(foreign, 0)} of the {fixed(len(picks), 0)} chosen molecules are unlike nearly all that the models "
            "learned from (applicability below 0.05). Their intervals are wider for it, but nothing was "
            "measured there: begin with a few of them."
        )
    for item in screened.properties:
        held, chance = plot.coverage_at(item.calibration, 0.9), max(3 * item.calibration.coverage_error(), 0.03)
        if held < 0.9 - chance:
            yield (
                f"The model of {item.label} is overconfident: its 90{NO_BREAK}% intervals hold {percent(held)} of the "
                "measurements that it had not seen. Read its probabilities with caution."
            )
    if screened.outlook.hits < 1:
        yield (
            f"Fewer than one hit is expected among the chosen molecules ({number(screened.outlook.hits)}). Another "
            "library, or `bayesmat design` with these targets, may reach further."
        )
    if screened.counts.set_aside > 0.2 * screened.counts.rows:
        yield (
            f"{percent(screened.counts.set_aside / screened.counts.rows)} of the rows were set aside; the reasons "
            "stand at the end."
        )


def _chosen(screened: Screened) -> str:
    picks = screened.picks.slice(0, MAX_DRAWN)
    names = ("Rank", "Structure", "Molecule", "Predicted, and its chance to hit the target", "Hit", "Applicability")
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in names)
    rows = "\n".join(_row(screened, rank, row) for rank, row in enumerate(picks.to_pylist(), 1))
    which = count(len(screened.picks), "molecule")
    which = f"The first {MAX_DRAWN} of {which}" if len(screened.picks) > MAX_DRAWN else which
    alike = (
        f", none more similar to a better one than {number(screened.max_similarity, 2)} (Tanimoto on Morgan counts)"
        if screened.max_similarity < 1
        else ""
    )
    top = screened.outlook_best
    versus = (
        f" The most probable ones whatever their similarity would give {number(top.hits)} hits "
        f"({fixed(top.lower, 0)} to {fixed(top.upper, 0)})."
        if screened.max_similarity < 1
        else ""
    )
    return f"""<section id="chosen"><h2>Molecules to look at, best first</h2>
<p>{which}, by probability of a hit{alike}.{show(versus)}</p>
<table class="candidates card" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody></table>
<p class="quiet small">Hit: probability under the models that the molecule has every property asked for. Applicability:
share of training molecules at least as unusual; small for a molecule unlike them. The best of all, in the numbers at
the top, is the one furthest inside the targets among the 1000 most probable.</p></section>"""


def _row(screened: Screened, rank: int, row: dict[str, Any]) -> str:
    hit, usual = float(row["p_hit"]), float(row["applicability"])
    return f"""<tr role="row"><td role="cell" class="rank">{rank}</td>
<td role="cell" class="structure"><div class="paper">{drawing(row["smiles"])}</div></td>
<td role="cell" class="molecule">{_which(row)}<div class="smiles">{escape(row["smiles"])}</div></td>
<td role="cell" class="predictions"><dl class="estimates">{"".join(_estimates(screened, row))}</dl></td>
<td role="cell" class="hit"><span class="phone">hit</span><b>{show(percent(hit))}</b>{_meter(hit)}</td>
<td role="cell" class="weight"><span class="phone">applicability</span>{number(usual, 2)}</td></tr>"""


def _which(row: dict[str, Any]) -> str:
    """The row's name, and where it stands."""
    name = f'<span class="name">{escape(row["name"])}</span>' if row["name"] else ""
    where = f"row {row['row']}" if not row["file"] else f"{row['file']}, line {row['line']}"
    return f'<div>{name}</div><p class="near">{escape(where)}</p>'


def _estimates(screened: Screened, row: dict[str, Any]) -> Iterator[str]:
    for item in screened.properties:
        value = plus_minus(row[f"{item.name}_mean"], row[f"{item.name}_sd"])
        low, high = (number(row[f"{item.name}_{q}"], 3) for q in ("q05", "q95"))
        own = f"90{NO_BREAK}%: {low} to {high}"
        if item.target and sum(bool(other.target) for other in screened.properties) > 1:
            own += f"; {percent(row[f'{item.name}_p_target'])} hit"
        yield (
            f"<div><dt>{escape(item.label)}</dt><dd>{quantity(value, item.unit)}</dd>"
            f'<dd class="own">{show(own)}</dd></div>'
        )


def _calibration(screened: Screened) -> str:
    parts = []
    for item in screened.properties:
        judged = item.calibration
        held = percent(plot.coverage_at(judged, 0.9))
        parts.append(
            f"<h3>{escape(item.label)}</h3><p>{count(judged.num_points, 'measurement')} that the model had not seen "
            f"({escape(judged.kind)}): mean absolute error {quantity(number(judged.mae), judged.unit)}; the "
            f"90{NO_BREAK}% intervals hold {show(held)}.</p>{_figures(plot.calibration_panels(judged))}"
        )
    return f"""<section id="calibration"><h2>Can the models be trusted?</h2>
<p>On measured molecules like those they learned from; what a library holds may be further away.</p>
{"".join(parts)}</section>"""


def _rows(screened: Screened) -> str:
    counts = screened.counts
    pairs = [("rows of the library", counts.rows), ("scored", counts.scored), ("there twice", counts.duplicates)]
    pairs += sorted(counts.reasons.items(), key=lambda item: -item[1])
    table = "".join(f'<tr><th scope="row">{escape(name)}</th><td>{fixed(num, 0)}</td></tr>' for name, num in pairs)
    return f"""<section id="rows"><h2>What became of the rows</h2>
<p>Each row was scored, is a molecule that an earlier row has, or was set aside for the reason given.</p>
<table class="scores">{table}</table></section>"""
