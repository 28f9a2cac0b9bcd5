"""Where the posterior went: predicted properties of its molecules against those of the prior."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..design import DesignRun, TargetSummary
from ._canvas import (
    AMBER,
    BLUE,
    ORANGE,
    QUIET,
    Panel,
    compose,
    finite,
    legend_above,
    plain_logarithm,
    say,
    spans_decades,
    with_unit,
)


def property_distributions(run: DesignRun) -> Figure:
    """Histograms of every predicted property, prior against posterior, with the target region shaded."""
    return compose(property_panels(run))


def property_panels(run: DesignRun) -> tuple[Panel, ...]:
    """One panel per property that a target speaks of."""
    by_property: dict[str, list[TargetSummary]] = {}
    for target in run.targets:
        by_property.setdefault(target.property, []).append(target)
    return tuple(_panel(run, name, targets) for name, targets in by_property.items())


def _panel(run: DesignRun, name: str, targets: list[TargetSummary]) -> Panel:
    prior = finite(run.prior_mean.get(name, ()))
    posterior = finite(run.posterior_mean.get(name, ()))
    label, unit = targets[0].label, targets[0].unit

    def draw(axes: Axes) -> None:
        axes.set_xlabel(with_unit(label, unit))
        axes.set_ylabel("share of molecules (% per bin)")
        _histograms(axes, prior, posterior, targets)

    middle = " and ".join(
        f"{np.median(values):.3g} for the {who}"
        for who, values in (("prior", prior), ("posterior", posterior))
        if values.size
    )
    description = (
        f"Histogram of predicted {with_unit(label, unit)}; the median is {middle or 'unknown'}; "
        f"the target, {' and '.join(target.text for target in targets)}, is shaded."
    )
    return Panel(label[:1].upper() + label[1:], description, draw)


def _histograms(axes: Axes, prior: np.ndarray, posterior: np.ndarray, targets: list[TargetSummary]) -> None:
    values = np.concatenate([prior, posterior])
    if values.size == 0:
        say(axes, "no finite predictions")
        return
    bounds = [bound for target in targets for bound in (target.lower, target.upper) if np.isfinite(bound)]
    logarithmic = spans_decades(values) and all(bound > 0 for bound in bounds)
    edges = _edges(prior, posterior, bounds, logarithmic)
    if logarithmic:
        axes.set_xscale("log")
        plain_logarithm(axes.xaxis)
    axes.set_xlim(edges[0], edges[-1])
    _shade(axes, targets)
    for sample, name, fill, line in ((prior, "prior", "#b4bac3", QUIET), (posterior, "posterior", BLUE, BLUE)):
        if sample.size:
            share = 100 * np.histogram(sample, edges)[0] / sample.size
            axes.stairs(share, edges, fill=True, color=fill, alpha=0.45, linewidth=0)
            axes.stairs(share, edges, color=line, linewidth=1.4, label=name)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    legend_above(axes)


def _edges(prior: np.ndarray, posterior: np.ndarray, bounds: list[float], logarithmic: bool) -> np.ndarray:
    """Bins over all but the outermost half per cent of both samples, and over the bounds of the target."""
    samples = [np.log(sample) if logarithmic else sample for sample in (prior, posterior) if sample.size]
    ends = [*np.concatenate([np.quantile(s, [0.005, 0.995]) for s in samples])]
    ends += [float(np.log(bound)) if logarithmic else bound for bound in bounds]
    low, high = min(ends), max(ends)
    if high - low <= 1e-9 * max(abs(low), abs(high)):  # one value only
        low, high = low - max(abs(low), 1.0) * 0.05, high + max(abs(high), 1.0) * 0.05
    margin = 0.05 * (high - low)
    low, high = low - margin, high + margin
    narrowest = min(
        (width for s in samples if (width := 2 * np.subtract(*np.quantile(s, [0.75, 0.25])) / np.cbrt(s.size)) > 0),
        default=high - low,
    )  # Freedman & Diaconis (1981), doi:10.1007/BF01025868
    num_bins = int(np.clip((high - low) / narrowest, 24, 64))
    edges = np.linspace(low, high, num_bins + 1)
    return np.exp(edges) if logarithmic else edges


def _shade(axes: Axes, targets: list[TargetSummary]) -> None:
    left, right = axes.get_xlim()
    for number, target in enumerate(targets):
        lower, upper = max(target.lower, left), min(target.upper, right)
        label = "target" if number == 0 else None
        axes.axvspan(lower, upper, color=AMBER, alpha=0.22, linewidth=0, label=label, zorder=0.5)
        for bound in (target.lower, target.upper):
            if left <= bound <= right:
                axes.axvline(bound, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
