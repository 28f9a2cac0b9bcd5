"""What stands around the candidates: the answer, warnings with advice, figures, calibration, and how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from .. import plot
from ..design import DesignRun, TargetSummary
from ..infer import Calibration
from ._text import (
    MISSING,
    NO_BREAK,
    count,
    duration,
    escape,
    factor,
    fixed,
    number,
    percent,
    power_of_ten,
    quantity,
    show,
)


def header(run: DesignRun) -> str:
    """What was asked, and the answer in a sentence and in numbers."""
    asked = "".join(f"<li>{escape(text)}</li>" for text in (*map(request, run.targets), *run.conditions))
    description = f"<p>{escape(run.description)}</p>" if run.description else ""
    return f"""<header><p class="eyebrow">Design report</p><h1>{escape(run.title)}</h1>
{description}<p class="eyebrow">{"Asked for" if len(run.targets) < 2 else "Asked for, all at once"}</p>
<ul class="asked">{asked or "<li>nothing in particular</li>"}</ul>
<p class="answer">{answer(run)}</p>
<dl class="tiles">{"".join(_tiles(run))}</dl>
<nav aria-label="Sections"><a href="#candidates">Candidates</a><a href="#distributions">Properties</a>
<a href="#sampler">Sampler</a><a href="#calibration">Calibration</a><a href="#details">Settings</a></nav></header>"""


def answer(run: DesignRun) -> str:
    """One sentence."""
    if not run.candidates.smiles:
        return "The run found no molecule that it could propose."
    times = factor(run.posterior_p_hit, run.prior_p_hit)
    gain = f": a gain by a factor of <b>{show(times)}</b>" if times else ""
    return (
        f"The run found <b>{count(run.sampler.num_distinct, 'distinct molecule')}</b>. A molecule drawn from the "
        f"posterior meets the whole request with probability <b>{show(percent(run.posterior_p_hit))}</b>, one drawn "
        f"from the prior with probability <b>{show(prior_p_hit(run))}</b>{gain}."
    )


def request(target: TargetSummary) -> str:
    """A target in words, the property first."""
    return target.text if target.label in target.text else f"{target.label} {target.text}"


def prior_p_hit(run: DesignRun) -> str:
    """How probable a hit was before; from the evidence where the number itself underflows."""
    if run.prior_p_hit == 0 and run.sampler.converged and math.isfinite(run.sampler.log_evidence):
        return power_of_ten(run.sampler.log_evidence)
    return percent(run.prior_p_hit)


def _tiles(run: DesignRun) -> Iterator[str]:
    times = factor(run.posterior_p_hit, run.prior_p_hit)
    evidence = "log evidence (nats)" if run.sampler.converged else "log evidence so far (nats)"
    tiles = (
        ("distinct molecules", fixed(run.sampler.num_distinct, 0)),
        ("probability of a hit, posterior", percent(run.posterior_p_hit)),
        ("probability of a hit, prior", prior_p_hit(run)),
        ("gain over the prior", f"{times} ×" if times else MISSING),
        (evidence, number(run.sampler.log_evidence, 3)),
    )
    for label, value in tiles:
        yield f"<div><dt>{label}</dt><dd>{show(value)}</dd></div>"


def warnings(run: DesignRun) -> str:
    """What the run said, and what its numbers say, with what to do about it; empty where all is well."""
    messages = [message for message in run.warnings if message != run.sampler.status]
    return warning_box([*messages, *_findings(run)])


def warning_box(messages: Sequence[str]) -> str:
    """A section that says what to read first; empty where there is nothing."""
    if not messages:
        return ""
    items = "".join(f"<li>{escape(message)}</li>" for message in messages)
    return (
        f'<section class="warnings" aria-labelledby="warnings"><h2 id="warnings">'
        f"Read this first: {count(len(messages), 'warning')}</h2><ul>{items}</ul></section>"
    )


def _findings(run: DesignRun) -> Iterator[str]:
    sampler = run.sampler
    beta = float(np.asarray(sampler.temperatures, dtype=float)[-1]) if np.size(sampler.temperatures) else 0.0
    status = "" if sampler.converged else f"{sampler.status} "
    if not math.isfinite(sampler.log_evidence):
        yield (
            f"{status}The evidence is not a finite number: no molecule of the prior had any chance of meeting the "
            "request. Widen the targets or use a prior that reaches the region; do not use the candidates."
        )
    elif not sampler.converged:
        yield (
            f"{status}The sampler stopped at inverse temperature β = {number(beta, 2)}, before the posterior at β = 1, "
            "so what is shown answers a softer request than the one made."
        )
    if not run.candidates.smiles:
        yield "There are no candidates. Widen the targets, use more particles, or relax the filters."
    for item in run.calibrations:
        held = plot.coverage_at(item, 0.9)
        chance = 3 * math.sqrt(0.09 / max(item.num_points, 1))
        if held < 0.9 - max(chance, 0.03):
            yield (
                f"The model of {item.label} is overconfident: its 90{NO_BREAK}% intervals hold {percent(held)} of "
                f"{fixed(item.num_points, 0)} {item.kind} measurements. Read its probabilities with "
                "caution; more measurements near the target would help."
            )


def distributions(run: DesignRun) -> str:
    """Prior against posterior, a figure per property."""
    figures = _figures(plot.property_panels(run))
    if not figures:
        return ""
    return f"""<section id="distributions"><h2>Where the posterior went</h2>
<p>Predicted properties of molecules drawn from the prior (grey) and from the posterior (blue); the shaded region was
asked for. These are means of the predictive distributions: a blue bar outside the region belongs to a molecule whose
uncertainty reaches into it.</p>{figures}</section>"""


def sampler(run: DesignRun) -> str:
    """The three paths of the sampler and how to read them."""
    state = run.sampler
    return f"""<section id="sampler"><h2>Can the sampler be trusted?</h2>
<p>{"" if state.converged else "<b>Not to the end.</b> "}{escape(state.status)}
{count(state.num_particles, "particle")}, {count(state.num_ancestors, "surviving ancestor")},
{count(state.num_distinct, "distinct molecule")} at the end.</p>
<ul class="how"><li>Inverse temperature rises from 0, the prior, to 1, the posterior; a path that stays flat
struggles.</li>
<li>Effective sample size says how many particles still count after a step is weighted; it should not fall to a few per
cent.</li>
<li>Acceptance says how often a proposed change of a molecule is taken; under about 1 % the particles no longer
move.</li></ul>{_figures(plot.sampler_panels(run))}</section>"""


def calibrations(run: DesignRun) -> str:
    """Every forward model against measurements it had not seen."""
    if not run.calibrations:
        return (
            '<section id="calibration"><h2>Can the predictions be trusted?</h2><p>This run carries no calibration, so '
            "nothing here says whether the stated uncertainties are right. Compare the models with held-out "
            "measurements before acting on the probabilities.</p></section>"
        )
    return f"""<section id="calibration"><h2>Can the predictions be trusted?</h2>
<p>Each model against measurements that it had not seen. The points of the first figure should follow the
dashed line, and so should the blue curve of the second: above it the stated uncertainty is too large, below it too
small. The grey band is what
chance alone allows.</p>{"".join(_model(item) for item in run.calibrations)}</section>"""


def _model(item: Calibration) -> str:
    rows = (
        ("measurements", fixed(item.num_points, 0)),
        ("kind of test", escape(item.kind)),
        ("root mean squared error", quantity(number(item.rmse), item.unit)),
        ("mean absolute error", quantity(number(item.mae), item.unit)),
        ("mean CRPS (smaller is better)", quantity(number(item.crps), item.crps_unit or item.unit)),
        ("inside the 90 % interval", percent(plot.coverage_at(item, 0.9))),
        ("inside the 50 % interval", percent(plot.coverage_at(item, 0.5))),
    )
    table = "".join(f'<tr><th scope="row">{label}</th><td>{value}</td></tr>' for label, value in rows)
    figures = _figures(plot.calibration_panels(item), "two")
    return f"""<article class="model"><h3>{escape(item.label[:1].upper() + item.label[1:])}</h3>{figures}
<table class="scores">{table}</table></article>"""


def details(run: DesignRun) -> str:
    """Settings, versions and timings, folded away."""
    blocks = (
        ("Settings", {name: _plain(value) for name, value in run.settings.items()}),
        ("Versions", dict(run.versions)),
        ("Timings", {name: duration(seconds) for name, seconds in run.timings.items()}),
    )
    body = "".join(_pairs(title, pairs) for title, pairs in blocks if pairs)
    return (
        f'<details class="card" id="details"><summary>Settings, versions and timings</summary>'
        f"{body or '<p>None were recorded.</p>'}</details>"
    )


def _plain(value: object) -> str:
    return ", ".join(str(part) for part in value) if isinstance(value, list | tuple) else str(value)


def _pairs(title: str, pairs: dict[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in pairs.items()
    )
    return f'<h3>{title}</h3><table class="scores pairs">{rows}</table>'


def _figures(panels: Iterable[plot.Panel], layout: str = "") -> str:
    figures = "".join(
        f'<figure class="paper"><figcaption>{escape(panel.name)}</figcaption>'
        f"{plot.to_svg(plot.compose([panel]), label=panel.description)}</figure>"
        for panel in panels
    )
    return f'<div class="figures {layout}">{figures}</div>' if figures else ""
