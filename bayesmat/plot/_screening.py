"""A screened library: how probable hits are, what testing its best molecules would give, how far the models reach."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..design import HISTOGRAM_EDGES, Screened
from ._canvas import AMBER, BLUE, ORANGE, QUIET, Panel, compose, legend_above, plain_logarithm, say

NUM_BARS = 24


def screening(screened: Screened) -> Figure:
    """Probabilities of a hit, hits expected among the best, and applicability."""
    return compose(screening_panels(screened))


def screening_panels(screened: Screened) -> tuple[Panel, ...]:
    """The three figures, a panel each."""
    return (_probabilities(screened), _hits(screened), _applicability(screened))


def _probabilities(screened: Screened) -> Panel:
    count = screened.distribution.count
    edges = np.concatenate([[-8.0], np.log10(HISTOGRAM_EDGES[1:])])
    bars = np.linspace(-8, 0, NUM_BARS + 1)
    place = np.clip(np.searchsorted(bars, edges[:-1], "right") - 1, 0, NUM_BARS - 1)
    height = np.bincount(place, count, minlength=NUM_BARS)

    def draw(axes: Axes) -> None:
        axes.bar(bars[:-1], height, np.diff(bars), align="edge", color=BLUE, edgecolor="white", linewidth=0.4)
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, max(10.0, 2 * height.max()))
        axes.set_xlim(-8, 0)
        axes.set_xticks([-8, -6, -4, -2, 0], ["≤ 10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"])
        axes.set_yticks([10.0**power for power in range(int(np.log10(max(height.max(), 1))) + 1)])
        axes.set_yticks([], minor=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("probability of a hit")
        axes.set_ylabel("molecules")

    above = [(limit, int(count[HISTOGRAM_EDGES[:-1] >= limit - 1e-9].sum())) for limit in (0.5, 0.1, 0.01)]
    told = "; ".join(f"{number:,} above {limit:g}" for limit, number in above)
    return Panel("Probability of a hit", f"Molecules by probability of a hit, logarithmic: {told}.", draw)


def _hits(screened: Screened) -> Panel:
    tested, found = screened.distribution.curve()
    total, scored = screened.hits, screened.counts.scored
    picks, hits = len(screened.picks), screened.outlook

    def draw(axes: Axes) -> None:
        axes.set_xlabel("molecules tested")
        axes.set_ylabel("hits")
        if not total > 0:
            say(axes, "no hits are expected")
            return
        first = max(found[1] / tested[1], 1e-6)  # among the molecules of the first bin all are alike
        axes.plot(np.append(1, tested[1:]), np.append(first, found[1:]), color=BLUE, label="best first")
        axes.plot([1, scored], [total / scored, total], color=QUIET, linestyle=(0, (4, 2)), label="at random")
        spread = [[max(hits.hits - max(hits.lower, 0.5), 0)], [max(hits.upper - hits.hits, 0)]]
        axes.errorbar([picks], [hits.hits], spread, color=ORANGE, marker="o", markersize=4, capsize=3, label="chosen")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(1, scored)
        plain_logarithm(axes.xaxis)
        plain_logarithm(axes.yaxis)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        legend_above(axes)

    description = (
        f"Expected hits against molecules tested: {hits.hits:.3g} ({hits.lower:.3g} to {hits.upper:.3g}) among the "
        f"{picks} chosen, {total:.3g} in the whole library of {screened.counts.scored:,} molecules."
    )
    return Panel("Hits to expect", description, draw)


def _applicability(screened: Screened) -> Panel:
    count = screened.applicability
    share = 100 * count / max(count.sum(), 1)
    edges = np.linspace(0, 1, len(count) + 1)

    def draw(axes: Axes) -> None:
        colors = [AMBER if edge < 0.0499 else BLUE for edge in edges[:-1]]
        axes.bar(edges[:-1], share, np.diff(edges), align="edge", color=colors, edgecolor="white", linewidth=0.4)
        axes.axhline(100 / len(count), color=QUIET, linestyle=(0, (4, 2)), linewidth=1.1)
        axes.set_xlim(0, 1)
        axes.set_xlabel("applicability")
        axes.set_ylabel("molecules (%)")

    description = (
        f"Molecules by applicability: {share[0]:.3g} % below 0.05, where 5 % of those like the training ones would be."
    )
    return Panel("Like the training molecules?", description, draw)
