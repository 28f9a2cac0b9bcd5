"""Whether a forward model's uncertainty can be trusted: predictions against measurements it had not seen."""

from __future__ import annotations

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from ..infer import Calibration
from ._canvas import (
    BLUE,
    INK,
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

MAX_POINTS = 800  # more are shown as counts in cells
COUNTS = LinearSegmentedColormap.from_list("counts", ["#d3e3f0", "#6aa3cc", BLUE, "#03294a"])


def calibration(calibration: Calibration) -> Figure:
    """Measured against predicted values, and empirical against nominal coverage of the predictive intervals."""
    return compose(calibration_panels(calibration))


def calibration_panels(calibration: Calibration) -> tuple[Panel, ...]:
    """The two panels of `calibration`."""
    inside = coverage_at(calibration, 0.9)
    kind, unit = calibration.kind, with_unit(calibration.label, calibration.unit)
    return (
        Panel(
            "Measured and predicted",
            f"Measured against predicted {unit}, {kind}, {calibration.num_points} points; "
            f"{100 * inside:.0f} % of the measurements lie in their 90 % interval.",
            lambda axes: _parity(axes, calibration),
        ),
        Panel(
            "Coverage of intervals",
            "Share of measurements inside the predictive interval against its nominal level: "
            + ", ".join(f"{100 * at:.0f} % gives {100 * coverage_at(calibration, at):.0f} %" for at in (0.5, 0.8, 0.9)),
            lambda axes: _reliability(axes, calibration),
        ),
    )


def pit_panel(calibration: Calibration) -> Panel:
    """Where in their predictives the measurements lie; flat where these are calibrated.

    A hump in the middle says that the stated uncertainty is too large, a pile at both ends that it is too small, a
    slope that predictions are off to one side.
    """
    pit = finite(calibration.pit)
    shares = _pit_shares(pit)
    return Panel(
        "Place in the predictive",
        f"Histogram of the probability that the predictive gives to values below the measurement, {pit.size} points in "
        f"{len(shares)} classes; {100 / len(shares):.3g} % are expected in each, the least is {shares.min():.3g} % and "
        f"the most {shares.max():.3g} %.",
        lambda axes: _pit(axes, pit),
    )


def coverage_at(calibration: Calibration, level: float) -> float:
    """Share of measurements inside the central predictive interval of `level`; NaN where nothing says it."""
    for known, value in calibration.coverage.items():
        if abs(float(known) - level) < 1e-6:
            return float(value)
    pit = finite(calibration.pit)
    return float(np.mean(np.abs(2 * pit - 1) <= level)) if pit.size else float("nan")


def _parity(axes: Axes, calibration: Calibration) -> None:
    columns = (calibration.mean, calibration.observed, calibration.lower90, calibration.upper90)
    table = np.stack([np.asarray(column, dtype=float).ravel() for column in columns])
    table = table[:, np.isfinite(table).all(axis=0)]
    axes.set_xlabel("predicted " + with_unit(calibration.label, calibration.unit))
    axes.set_ylabel(with_unit("measured", calibration.unit))
    if table.shape[1] == 0:
        say(axes, "no points")
        return
    logarithmic = spans_decades(table[1]) and bool((table[0] > 0).all())
    low, high = _limits(table[:2], logarithmic)
    if logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_logarithm(axes.xaxis)
        plain_logarithm(axes.yaxis)
    if table.shape[1] <= MAX_POINTS:
        _points(axes, *table)
    else:
        _cells(axes, table[0], table[1], (low, high), logarithmic)
    axes.plot([low, high], [low, high], color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=3)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)


def _limits(values: np.ndarray, logarithmic: bool) -> tuple[float, float]:
    """Shared by both axes: all of a few points, all but the outermost 0.1 % of many."""
    scaled = np.log(values) if logarithmic else values
    cut = 0.001 if values.shape[1] > MAX_POINTS else 0.0
    low, high = float(np.quantile(scaled, cut)), float(np.quantile(scaled, 1 - cut))
    margin = 0.05 * (high - low) or 0.05 * max(abs(low), 1.0)
    ends = np.array([low - margin, high + margin])
    low, high = np.exp(ends) if logarithmic else ends
    return float(low), float(high)


def _points(axes: Axes, mean: np.ndarray, observed: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
    inside = (lower <= observed) & (observed <= upper)
    for chosen, color, marker, name in ((inside, BLUE, "o", "in its 90 % interval"), (~inside, ORANGE, "D", "outside")):
        bars = [((a, y), (b, y)) for a, b, y in zip(lower[chosen], upper[chosen], observed[chosen], strict=True)]
        axes.add_collection(LineCollection(bars, colors=color, linewidths=0.8, alpha=0.28), autolim=False)
        axes.scatter(
            mean[chosen],
            observed[chosen],
            s=11,
            marker=marker,
            color=color,
            alpha=0.8,
            linewidth=0,
            label=name,
            zorder=4,
        )
    legend_above(axes, columns=2)


def _cells(axes: Axes, mean: np.ndarray, observed: np.ndarray, ends: tuple[float, float], logarithmic: bool) -> None:
    extent = tuple(np.log10(ends)) * 2 if logarithmic else ends * 2
    scale: Literal["log", "linear"] = "log" if logarithmic else "linear"
    low, high = ends
    shown = (mean >= low) & (mean <= high) & (observed >= low) & (observed <= high)
    cells = axes.hexbin(
        mean[shown],
        observed[shown],
        gridsize=(44, 26),
        mincnt=1,
        extent=extent,
        xscale=scale,
        yscale=scale,
        norm=LogNorm(),
        cmap=COUNTS,
        linewidths=0.0,
    )
    assert axes.figure is not None
    bar = axes.figure.colorbar(cells, ax=axes, pad=0.02, aspect=28)
    plain_logarithm(bar.ax.yaxis)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.set_label("molecules per cell (number)")
    bar.outline.set_visible(False)


def _reliability(axes: Axes, calibration: Calibration) -> None:
    axes.set_xlabel("nominal coverage (%)")
    axes.set_ylabel("empirical coverage (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    levels = np.linspace(0, 1, 101)
    pit = finite(calibration.pit)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    if pit.size:
        sd = np.sqrt(levels * (1 - levels) / pit.size)
        axes.fill_between(
            100 * levels,
            100 * (levels - 1.96 * sd),
            100 * (levels + 1.96 * sd),
            color=QUIET,
            alpha=0.25,
            linewidth=0,
            label="95 % by chance",
        )
        width = np.sort(np.abs(2 * pit - 1))
        empirical = np.searchsorted(width, levels, side="right") / pit.size
        axes.plot(100 * levels, 100 * empirical, color=BLUE, label="model", zorder=3)
    known = sorted((float(level), float(value)) for level, value in calibration.coverage.items())
    if known:
        nominal, observed = 100 * np.array(known).T
        axes.plot(nominal, observed, "o", color=BLUE, markersize=4.5, zorder=4, clip_on=False)
    axes.text(4, 93, "above: intervals too wide", fontsize=9, color=INK, va="center")
    axes.text(97, 6, "below: too narrow", fontsize=9, color=INK, ha="right", va="center")
    if pit.size:
        legend_above(axes, columns=2)


def _pit_shares(pit: np.ndarray) -> np.ndarray:
    """Per cent of the points in each of 4 to 20 classes of equal width, some ten points in each where they are few."""
    classes = int(np.clip(pit.size // 10, 4, 20))
    return 100 * np.histogram(np.clip(pit, 0, 1), classes, (0.0, 1.0))[0] / max(pit.size, 1)


def _pit(axes: Axes, pit: np.ndarray) -> None:
    axes.set_xlabel("predictive probability below the measurement (%)")
    axes.set_ylabel("share of measurements (%)")
    axes.set_xlim(0, 100)
    if not pit.size:
        say(axes, "no points")
        return
    shares = _pit_shares(pit)
    expected = 100 / len(shares)
    spread = 1.96 * np.sqrt(expected * (100 - expected) / pit.size)
    ends = np.linspace(0, 100, len(shares) + 1)
    axes.axhspan(max(expected - spread, 0), expected + spread, color=QUIET, alpha=0.25, lw=0, label="95 % by chance")
    axes.stairs(shares, ends, fill=True, color=BLUE, alpha=0.25)
    axes.stairs(shares, ends, color=BLUE, linewidth=1.6, label="model")
    axes.axhline(expected, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.set_ylim(0, 1.1 * max(shares.max(), expected + spread))
    legend_above(axes, columns=2)
