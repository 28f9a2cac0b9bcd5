"""The canvas of every figure: palette, panels, and the two ways out (SVG text, PNG bytes).

A figure is a list of `Panel`s. `compose` lays them out side by side for a notebook; the report composes each
alone, so that a narrow screen can stack them without shrinking their text. matplotlib's settings are changed
inside a context only, and pyplot is never imported.
"""

from __future__ import annotations

import hashlib
import html
import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# After Okabe & Ito (2008): told apart with any colour vision, and in grey by their lightness.
INK, QUIET, GRID = "#2b3038", "#7d8590", "#dfe3e8"
BLUE, ORANGE, AMBER = "#0067a5", "#c2410c", "#f0b429"

PANEL_INCHES = (4.0, 2.9)

SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same metrics everywhere
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.2,
    "legend.fontsize": 9.0,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",  # text stays text: small, selectable, in the font of the page
    "svg.hashsalt": "bayesmat",
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a label is a dollar sign
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        name: a short title.
        description: what it shows, in words, for those who cannot see it.
        draw: puts it on the axes.
    """

    name: str
    description: str
    draw: Callable[[Axes], None]


class Picture(Figure):
    """A figure that a notebook shows as it stands; matplotlib's own needs pyplot for that."""

    def _repr_png_(self) -> bytes:
        return to_png(self, dpi=100)


def compose(panels: Sequence[Panel], columns: int = 3) -> Figure:
    """A figure of `panels` in rows of at most `columns`; titled where there are several."""
    columns = max(1, min(columns, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    with matplotlib.rc_context(SETTINGS):
        figure = Picture(figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained")
        drawn = [figure.add_subplot(rows, columns, position + 1) for position in range(len(panels))]
        for axes, panel in zip(drawn, panels, strict=True):
            panel.draw(axes)
        pad = 22 if any(axes.get_legend() for axes in drawn) else 8
        for axes, panel in zip(drawn, panels, strict=True):
            axes.set_title(panel.name if len(panels) > 1 else "", pad=pad)
    return figure


def to_svg(figure: Figure, label: str = "") -> str:
    """The figure as one `<svg>` element to be put into a page, the same bytes for the same figure.

    Its identifiers carry a hash of its content, so that several can share a page; it has no size of its own but
    a `viewBox`, no style sheet, and takes the font of its surroundings.

    Args:
        figure: what to write.
        label: a description for screen readers.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.patch.set_alpha(0.0)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    view_box = re.search(r'viewBox="([^"]*)"', text)
    assert view_box is not None
    body = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font: (?:[\w.]+ )*?([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;?\s*", "", body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    prefix = "f" + hashlib.sha256(body.encode()).hexdigest()[:8]
    body = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{prefix}-", body)
    aria = f' role="img" aria-label="{html.escape(label)}"' if label else ""
    start = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box[1]}"{aria}'
    return f'{start} style="stroke-linejoin:round;stroke-linecap:butt">{body.strip()}\n'


def to_png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as a PNG file on white, without a date or the name of the software."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        FigureCanvasAgg(figure)
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def with_unit(label: str, unit: str) -> str:
    """`label (unit)`; a unit of one is spelt out."""
    return f"{label} ({unit if unit not in ('', '1') else 'dimensionless'})"


def finite(values: object) -> np.ndarray:
    """The finite numbers among `values`, flat."""
    array = np.asarray(values, dtype=float).ravel()
    return array[np.isfinite(array)]


def spans_decades(values: np.ndarray) -> bool:
    """Whether a logarithmic axis shows `values` better: positive, and 99 % of them over two decades."""
    if values.size == 0 or values.min() <= 0:
        return False
    low, high = np.quantile(values, [0.005, 0.995])
    return bool(high / low > 100)


def plain_logarithm(axis: Axis) -> None:
    """Ticks at powers of ten, written as plain numbers: `parse_math` is off, and readers know 0.01."""
    axis.set_major_locator(LogLocator(numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Axes, columns: int = 3) -> None:
    """The legend in a row over the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns)


def say(axes: Axes, message: str) -> None:
    """A sentence in the middle of axes that have nothing else to show."""
    axes.text(0.5, 0.5, message, transform=axes.transAxes, ha="center", va="center", color=INK)
