"""What a practitioner looks at after a run of `smc.SMC`: temperatures, weights, kernels, ancestors."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ..smc import SMC
from ._canvas import AMBER, BLUE, INK, ORANGE, QUIET, Panel, compose, say

_COLOURS = (BLUE, ORANGE, AMBER, INK, QUIET)
_DASHES: tuple[str | tuple[int, tuple[int, int]], ...] = ("-", (0, (4, 2)), (0, (1, 1)))


def diagnostics(sampler: SMC) -> Figure:
    """Inverse temperature, effective sample size, ancestors and the kernels of a finished run, by step.

    Every island is a line in the first three panels; the fourth shows, for the first island, the share of each
    kernel's proposals that changed the particle.
    """
    table, num = sampler.diagnostics(), sampler.settings.num_particles
    islands = [rows for _, rows in table.groupby("island")]
    return compose(
        (
            _islands("Inverse temperature", "inverse temperature β (0 to 1)", islands, "beta", 1.0, 1.0),
            _islands("Effective sample size", "ESS (% of particles)", islands, "ess", 100 / num, 100.0),
            _islands("Ancestors", "ancestors alive (% of particles)", islands, "ancestors", 100 / num, 100.0),
            _kernels(islands[0] if islands else table),
        ),
        columns=2,
    )


def _islands(name: str, label: str, islands: list[pd.DataFrame], column: str, unit: float, top: float) -> Panel:
    def draw(axes: Axes) -> None:
        _steps(axes, label)
        axes.set_ylim(0, 1.04 * top)
        if not islands:
            say(axes, "no steps were made")
        for rows in islands:
            axes.plot(rows["temperature"], unit * rows[column], color=BLUE, linewidth=1.1, marker="o", markersize=3)

    last = [unit * rows[column].iloc[-1] for rows in islands]
    seen = f"at the last step {min(last):.3g} to {max(last):.3g}" if last else "no steps were made"
    return Panel(name, f"{name} by step, {len(islands)} islands: {seen} ({label}).", draw)


def _kernels(table: pd.DataFrame) -> Panel:
    changed = {c.removesuffix(" changed"): 100 * table[c] for c in table.columns if c.endswith(" changed")}
    single = len({label.split(": ")[0] for label in changed}) == 1
    changed = {label.split(": ")[1] if single else label: values for label, values in changed.items()}

    def draw(axes: Axes) -> None:
        _steps(axes, "proposals that changed a particle (%)")
        styles = itertools.product(_DASHES, _COLOURS)
        for (label, values), (dashes, colour) in zip(changed.items(), styles, strict=False):
            used = np.isfinite(values)
            axes.plot(
                table["temperature"][used],
                values[used],
                color=colour,
                linestyle=dashes,
                marker="o",
                markersize=3,
                label=label,
            )
        axes.set_ylim(bottom=0)
        if changed:
            axes.legend(loc="best", fontsize=7.5)

    seen = {label: values.dropna() for label, values in changed.items() if values.notna().any()}
    last = ", ".join(f"{label} {values.iloc[-1]:.3g} %" for label, values in seen.items())
    return Panel("Kernels", f"Share of each kernel's proposals that changed a particle, at last: {last}.", draw)


def _steps(axes: Axes, label: str) -> None:
    axes.set_xlabel("step (number)")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=6))
