"""Which source helps which target: gains and losses of transfer as a matrix."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from .._types import BayesmatError
from ._canvas import BLUE, INK, ORANGE, SETTINGS, Picture


def transfer_matrix(change: Mapping[str, Mapping[str, float]], limit: float = 0.3) -> Figure:
    """Targets in rows, sources in columns, coloured by the relative change of a target's error.

    Blue is positive transfer, orange negative; the number in a cell is the change in per cent. Sources are ordered by
    their mean, most helpful first.

    Args:
        change: for each target by source, error with the source over error without it, minus one; a source that a
            target lacks leaves its cell empty.
        limit: the change at which colours end.

    Raises:
        BayesmatError: there is nothing to show.
    """
    targets = list(change)
    sources = list(dict.fromkeys(source for row in change.values() for source in row))
    if not sources:
        raise BayesmatError("a transfer matrix needs at least one target with one source")
    values = np.array([[change[target].get(source, np.nan) for source in sources] for target in targets], float)
    order = np.argsort(np.nanmean(values, axis=0))
    values, sources = values[:, order], [sources[index] for index in order]
    with matplotlib.rc_context(SETTINGS):
        size = (2.6 + 0.34 * len(sources), 2.2 + 0.36 * len(targets))
        figure = Picture(figsize=size, layout="constrained")
        _draw(figure.add_subplot(), values, targets, sources, limit)
    return figure


def _draw(axes: Axes, values: np.ndarray, targets: list[str], sources: list[str], limit: float) -> None:
    colours = LinearSegmentedColormap.from_list("transfer", [BLUE, "#ffffff", ORANGE])
    axes.imshow(values, cmap=colours, vmin=-limit, vmax=limit, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(len(sources)), [source.replace("_", " ") for source in sources], rotation=90)
    axes.set_yticks(range(len(targets)), [target.replace("_", " ") for target in targets])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for row, column in np.argwhere(np.isfinite(values)):
        value = values[row, column]
        dark = abs(value) > 0.6 * limit
        axes.text(column, row, f"{100 * value:+.0f}", ha="center", va="center", fontsize=7.5,
                  color="#ffffff" if dark else INK)  # fmt: skip
    axes.set_title("Change of the error (%) by one source: blue helps, orange harms")
