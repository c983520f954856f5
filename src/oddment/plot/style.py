"""What all figures share: the palette, empty figures and axes, and how they become files."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

__all__ = [
    "ANOMALY",
    "CALIBRATION",
    "INK",
    "MUTED",
    "NORMAL",
    "PALETTE",
    "THRESHOLD",
    "as_png",
    "format_number",
    "log_scale",
    "new_axes",
    "new_figure",
    "save",
    "tidy",
    "title",
]

# Okabe and Ito, "Color Universal Design" (2008); the yellow is left out, it is too pale for lines on white.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""Colours of lines and classes, in order."""
NORMAL, ANOMALY = BLUE, VERMILION
CALIBRATION = "#8b9198"
THRESHOLD = "#1b1f24"
INK, MUTED = "#1b1f24", "#5b636d"

_LINE, _GRID = "#8b9198", "#e6e7e5"


def new_figure(width: float = 6.4, height: float = 4.2) -> Figure:
    """Return an empty figure with a canvas of its own; sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.09, h_pad=0.09)  # type: ignore[union-attr, call-arg]  # inches
    FigureCanvasAgg(figure)
    return figure


def new_axes(width: float = 6.4, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, tidied."""
    figure = new_figure(width, height)
    axes = figure.add_subplot()
    tidy(axes)
    return figure, axes


def tidy(axes: Axes, *, x: str = "", y: str = "", grid: bool = True) -> None:
    """Leave two spines, a pale grid behind the data, and the labels."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_LINE)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.set_axisbelow(True)
    if grid:
        axes.grid(color=_GRID, linewidth=0.8)
    axes.set_xlabel(x, fontsize=10, color=INK)
    axes.set_ylabel(y, fontsize=10, color=INK)


def log_scale(axes: Axes, side: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each power of ten, or at powers alone."""
    (axes.set_xscale if side == "x" else axes.set_yscale)("log")
    axis = axes.xaxis if side == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 1e3 * low else (1.0,), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def title(axes: Axes, text: str | None) -> None:
    """Write a title, flush left."""
    if text:
        axes.set_title(text, loc="left", fontsize=11, color=INK, fontweight="bold", pad=10)


def format_number(value: float) -> str:
    """Return a number with four significant digits, as labels show it."""
    return f"{value:.4g}"


def as_png(figure: Figure, *, dpi: int = 144) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    # Without the date and the library's name the same figure is the same file.
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save(figure: Figure, path: Path, *, dpi: int = 144) -> None:
    """Write the figure as a PNG, or as what the name ends in: .svg, .pdf."""
    if path.suffix.lower() in (".png", ""):
        path.write_bytes(as_png(figure, dpi=dpi))
    else:
        figure.savefig(path)
