"""The ranked molecules: a table at a desk, cards on a phone, the same markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import chem
from ..design import Candidates, DesignRun
from ._text import count, escape, number, percent, plus_minus, quantity, show

MAX_DRAWN = 60
DRAWING = (230, 150)  # pixels

COLUMNS = (
    "Rank",
    "Structure",
    "Molecule",
    "Predicted mean ± sd, and chance to hit the target",
    "Meets all targets",
    "Posterior weight",
    "SA score",
)


def candidates(run: DesignRun) -> str:
    """The section of ranked candidates; the best `MAX_DRAWN` of them."""
    found = run.candidates
    total = len(found.smiles)
    if not total:
        return (
            '<section id="candidates"><h2>Candidates</h2><p>The run returned no molecule. The warnings above say '
            "what to change before the next one.</p></section>"
        )
    shown = min(total, MAX_DRAWN)
    known = sum(bool(flag) for flag in found.known[:shown])
    head = "".join(f'<th scope="col" role="columnheader"{_right(name)}>{name}</th>' for name in COLUMNS)
    rows = "\n".join(_row(run, i) for i in range(shown))
    which = f"The first {shown} of {count(total, 'molecule')}" if total > shown else count(total, "molecule")
    return f"""<section id="candidates"><h2>Candidates, best first</h2>
<p>{which}; {known} of those shown {"is" if known == 1 else "are"} known compounds, {shown - known} new to the tables
that the run was given. Predictions are of the model, not measurements.</p>
<table class="candidates card" role="table"><thead role="rowgroup"><tr role="row">{head}</tr></thead>
<tbody role="rowgroup">
{rows}
</tbody></table>
<p class="quiet small">Meets all targets: probability under the model that the molecule has every property asked for.
Posterior weight: share of the posterior that the molecule holds. SA score: synthetic accessibility, from 1 (easy) to
10 (hard). Similarity: Tanimoto on Morgan counts, 0 to 1.</p></section>"""


def _row(run: DesignRun, i: int) -> str:
    found = run.candidates
    smiles, hit, access = found.smiles[i], float(found.p_hit[i]), number(float(found.sa_score[i]), 2)
    return f"""<tr role="row"><td role="cell" class="rank">{i + 1}</td>
<td role="cell" class="structure"><div class="paper">{drawing(smiles)}</div></td>
<td role="cell" class="molecule">{_molecule(found, i)}</td>
<td role="cell" class="predictions"><dl class="estimates">{"".join(_estimates(run, i))}</dl></td>
<td role="cell" class="hit"><span class="phone">meets all</span><b>{show(percent(hit))}</b>{_meter(hit)}</td>
<td role="cell" class="weight right"><span class="phone">weight</span>{show(percent(float(found.weight[i])))}</td>
<td role="cell" class="access right"><span class="phone">SA score</span>{access}</td></tr>"""


def _molecule(found: Candidates, i: int) -> str:
    if found.known[i]:
        title = f'<span class="badge known">known</span> <span class="name">{escape(found.name[i] or "unnamed")}</span>'
    else:
        title = '<span class="badge new">new</span>'
    smiles = f'<div class="smiles">{escape(found.smiles[i])}</div>'
    if found.known[i] or not found.nearest_known[i]:
        return f"<div>{title}</div>{smiles}"
    name, nearest = found.nearest_name[i], escape(found.nearest_known[i])
    called = (
        f'{escape(name)}, <span class="smiles">{nearest}</span>' if name else f'<span class="smiles">{nearest}</span>'
    )
    similarity = number(float(found.similarity[i]), 2)
    return f'<div>{title}</div>{smiles}<p class="near">nearest known, similarity {similarity}: {called}</p>'


def _estimates(run: DesignRun, i: int) -> Iterator[str]:
    found = run.candidates
    for name, (label, unit) in described(run).items():
        if name not in found.mean:
            continue
        value = plus_minus(float(found.mean[name][i]), float(found.sd[name][i]))
        own = percent(float(found.p_hit_each[name][i])) if name in found.p_hit_each else ""
        hit = f'<dd class="own">{show(own)} hit</dd>' if own else ""
        yield f"<div><dt>{escape(label)}</dt><dd>{quantity(value, unit)}</dd>{hit}</div>"


def described(run: DesignRun) -> dict[str, tuple[str, str]]:
    """Label and unit by property: those of the targets first, then what else was predicted."""
    targets = {target.property: (target.label, target.unit) for target in run.targets}
    return targets | {name: (name.replace("_", " "), "") for name in run.candidates.mean if name not in targets}


def drawing(smiles: str) -> str:
    """The structure as an `<svg>` element without classes, comments and namespaces; words where RDKit refuses."""
    try:
        svg = chem.depict(smiles, *DRAWING)
    except ValueError:
        return '<div class="undrawn">no drawing</div>'
    body = svg[svg.index(">") + 1 :]
    body = re.sub(r"<!--.*?-->| class='[^']*'", "", body, flags=re.DOTALL)
    for default in ("fill-rule:evenodd;", "stroke-linecap:butt;", "stroke-linejoin:miter;", "stroke-miterlimit:10;"):
        body = body.replace(default, "")
    body = re.sub(r";?stroke-opacity:1;?", "", body)
    body = re.sub(r"\s*\n\s*", " ", body).replace(" />", "/>").replace("> <", "><").strip()
    width, height = DRAWING
    label = f"structure of {escape(smiles)}"
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}'


def _meter(share: float) -> str:
    width = 100 * min(max(share, 0.0), 1.0) if share == share else 0.0
    return f'<span class="meter"><i style="width:{width:.1f}%"></i></span>'


def _right(name: str) -> str:
    return ' class="right"' if name in ("Posterior weight", "SA score") else ""
