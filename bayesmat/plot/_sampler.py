"""How the sampler travelled from the prior to the posterior, step by step."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..design import DesignRun
from ._canvas import BLUE, ORANGE, QUIET, Panel, compose, say


def sampler_paths(run: DesignRun) -> Figure:
    """Inverse temperature, effective sample size as a share of all particles, and acceptance, by step."""
    return compose(sampler_panels(run))


def sampler_panels(run: DesignRun) -> tuple[Panel, ...]:
    """The three paths, a panel each."""
    sampler = run.sampler
    temperatures = np.asarray(sampler.temperatures, dtype=float)
    ess = 100 * np.asarray(sampler.ess, dtype=float) / max(sampler.num_particles, 1)
    acceptance = 100 * np.asarray(sampler.acceptance, dtype=float)
    return (
        _panel("Inverse temperature", "inverse temperature β (0 to 1)", temperatures, 0, 1.0),
        _panel("Effective sample size", "ESS (% of particles)", ess, 1, 100.0),
        _panel("Acceptance", "accepted moves (%)", acceptance, 1, 100.0),
    )


def _panel(name: str, label: str, values: np.ndarray, first: int, top: float) -> Panel:
    steps = first + np.arange(values.size)
    known = np.isfinite(values)

    def draw(axes: Axes) -> None:
        axes.set_xlabel("step (number)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.04 * top)
        if not known.any() or values.size < 1:
            say(axes, "no steps were made")
            return
        marker = "o" if values.size <= 40 else None
        axes.plot(steps[known], values[known], color=BLUE, marker=marker, markersize=4, clip_on=False, zorder=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))
        axes.set_xlim(-0.5 if values.size < 2 else 0, max(1, steps[-1]))
        if first == 0:  # the goal
            reached = values[known][-1] >= 1 - 1e-6
            axes.axhline(top, color=QUIET if reached else ORANGE, linewidth=1.1, linestyle=(0, (4, 2)))

    if not known.any():
        return Panel(name, f"{name}: no steps were made.", draw)
    seen = values[known]
    description = (
        f"{name} by step: {values.size - 1 + first} steps, lowest {seen.min():.3g}, "
        f"highest {seen.max():.3g}, last {seen[-1]:.3g} ({label})."
    )
    return Panel(name, description, draw)
