"""Images, what was redrawn of them, and where they are odd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from oddment.errors import ParameterError
from oddment.plot.style import INK, MUTED, format_number
from oddment.report.pictures import render_heat_map

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike, NDArray

__all__ = ["heat_maps", "reconstructions", "sample_strip"]

_MOST = 64
# Inches: around and between images, and a line of text. Pixels an inch of what is drawn.
_EDGE, _BETWEEN, _LINE, _FINE = 0.1, 0.07, 0.17, 144


def reconstructions(
    originals: Sequence[NDArray[Any]],
    redrawn: Sequence[NDArray[Any]],
    *,
    scores: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    layout: Literal["grid", "stack"] = "grid",
    heading: str | None = None,
) -> Figure:
    """Return originals with their reconstructions.

    Args:
        originals: N images (H, W) or (H, W, C), uint8, or floats in [0, 1].
        redrawn: N reconstructions.
        scores: (N,) written to each.
        labels: (N,) written to each.
        layout: "grid" puts each reconstruction below its original, "stack" beside it, one pair a line.
        heading: title.

    Raises:
        ParameterError: if there is nothing to draw, more than 64 images, or the lengths differ.
    """
    _check(originals, redrawn=redrawn, labels=labels, scores=scores)
    captions = _captions(len(originals), labels, scores)
    if layout == "stack":
        return _stack(originals, redrawn, captions, heading)
    return _rows({"original": originals, "redrawn": redrawn}, captions, heading)


def heat_maps(
    originals: Sequence[NDArray[Any]],
    maps: Sequence[NDArray[np.float32]],
    *,
    map_range: tuple[float, float] | None = None,
    redrawn: Sequence[NDArray[Any]] | None = None,
    masks: Sequence[NDArray[np.bool_]] | None = None,
    scores: ArrayLike | None = None,
    labels: Sequence[str] | None = None,
    heading: str | None = None,
) -> Figure:
    """Return originals, reconstructions where given, heat maps in the report's colours, and masks where given.

    Args:
        originals: N images (H, W) or (H, W, C), uint8, or floats in [0, 1].
        maps: N anomaly maps (h, w).
        map_range: values drawn as transparent and as brightest; the model's `map_range`, or from the maps when None.
        redrawn: N reconstructions.
        masks: N true masks (H, W).
        scores: (N,) written to each.
        labels: (N,) written to each.
        heading: title.

    Raises:
        ParameterError: if there is nothing to draw, more than 64 images, or the lengths differ.
    """
    _check(originals, maps=maps, redrawn=redrawn, masks=masks, labels=labels, scores=scores)
    if map_range is None:
        every = np.concatenate([np.ravel(item) for item in maps])
        map_range = (float(np.quantile(every, 0.5)), float(every.max()))
    drawn = []
    for image, levels in zip(originals, maps, strict=True):
        shown = _shown(image)
        # A tiny image is enlarged, so that the smooth colours have pixels to live on.
        scale = max(1, math.ceil(128 / max(shown.shape[:2])))
        size = (shown.shape[1] * scale, shown.shape[0] * scale)
        drawn.append(render_heat_map(shown, np.asarray(levels, np.float32), map_range=map_range, size=size))
    rows: dict[str, Sequence[NDArray[Any]]] = {"original": originals}
    if redrawn is not None:
        rows["redrawn"] = redrawn
    rows["heat map"] = drawn
    if masks is not None:
        rows["truth"] = [np.asarray(mask, bool).astype(np.uint8) * 255 for mask in masks]
    return _rows(rows, _captions(len(originals), labels, scores), heading)


def sample_strip(
    images: Sequence[NDArray[Any]], labels: Sequence[str] | None = None, *, heading: str | None = None
) -> Figure:
    """Return images side by side, such as the first of each class.

    Args:
        images: N images (H, W) or (H, W, C), uint8, or floats in [0, 1].
        labels: (N,) written below each.
        heading: title.

    Raises:
        ParameterError: if there is nothing to draw, more than 64 images, or the lengths differ.
    """
    _check(images, labels=labels)
    return _rows({"": images}, _captions(len(images), labels, None), heading)


def _rows(rows: dict[str, Sequence[NDArray[Any]]], captions: list[str], heading: str | None) -> Figure:
    """A row of images for each name, a column for each image, captions below the last row."""
    aspect, side = _aspect(next(iter(rows.values()))), float(np.clip(12 / len(captions), 0.75, 1.7))
    left = 0.32 if any(rows) else _EDGE
    below = _EDGE + _LINE * max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    figure, axes, place = _sheet(list(rows.values()), (side, side * aspect), (left, below), heading)
    for line, name in enumerate(rows):
        x, y = place(line, 0)
        axes.text(x - 0.06, y + side * aspect / 2, name, rotation=90, ha="right", va="center", fontsize=9, color=MUTED)
    for column, caption in enumerate(captions):
        x, y = place(len(rows) - 1, column)
        axes.text(x + side / 2, y + side * aspect + 0.05, caption, ha="center", va="top", color=INK,
                  fontsize=8 if side > 0.9 else 7)  # fmt: skip
    return figure


def _stack(
    originals: Sequence[NDArray[Any]], redrawn: Sequence[NDArray[Any]], captions: list[str], heading: str | None
) -> Figure:
    """A pair a line, captions to the left."""
    side, aspect = 1.3, _aspect(originals)
    longest = max((len(part) for caption in captions for part in caption.split("\n")), default=0)
    pairs = list(zip(originals, redrawn, strict=True))
    figure, axes, place = _sheet(pairs, (side, side * aspect), (_EDGE + 0.075 * longest, _LINE + _EDGE), heading)
    for line, caption in enumerate(captions):
        x, y = place(line, 0)
        axes.text(x - 0.08, y + side * aspect / 2, caption, ha="right", va="center", fontsize=8, color=INK)
    for column, name in enumerate(("original", "redrawn")):
        x, y = place(len(pairs) - 1, column)
        axes.text(x + side / 2, y + side * aspect + 0.05, name, ha="center", va="top", fontsize=9, color=MUTED)
    return figure


def _sheet(
    lines: Sequence[Sequence[NDArray[Any]]],
    cell: tuple[float, float],
    margins: tuple[float, float],
    heading: str | None,
) -> tuple[Figure, Axes, Callable[[int, int], tuple[float, float]]]:
    """A figure with all images drawn as one, its axes in inches from the upper left, and where each image lies.

    One picture instead of an axes for each image: forty times as fast.

    Args:
        lines: images, line by line.
        cell: width and height of an image in inches.
        margins: to the left and below, in inches.
        heading: title.
    """
    above = 0.4 if heading else _EDGE
    columns = len(lines[0])
    width = margins[0] + columns * (cell[0] + _BETWEEN) + _EDGE
    height = above + len(lines) * (cell[1] + _BETWEEN) + margins[1]
    figure = Figure(figsize=(max(width, 0.095 * len(heading or "")), height), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    size = (round(cell[0] * _FINE), round(cell[1] * _FINE))
    step = (round((cell[0] + _BETWEEN) * _FINE), round((cell[1] + _BETWEEN) * _FINE))
    canvas = Image.new("RGB", (step[0] * columns, step[1] * len(lines)), "white")
    for line, images in enumerate(lines):
        for column, image in enumerate(images):
            canvas.paste(_fitted(image, size), (step[0] * column, step[1] * line))
    right, bottom = margins[0] + canvas.width / _FINE, above + canvas.height / _FINE
    axes.imshow(canvas, extent=(margins[0], right, bottom, above), interpolation="antialiased", aspect="auto")
    axes.set_xlim(0, figure.get_figwidth())
    axes.set_ylim(height, 0)
    if heading:
        axes.text(_EDGE, 0.21, heading, ha="left", va="center", fontsize=11, fontweight="bold", color=INK)

    def place(line: int, column: int) -> tuple[float, float]:
        return margins[0] + column * step[0] / _FINE, above + line * step[1] / _FINE

    return figure, axes, place


def _fitted(image: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """An image in the middle of a cell of `size` pixels, its aspect ratio kept."""
    picture = Image.fromarray(_shown(image)).convert("RGB")
    scale = min(size[0] / picture.width, size[1] / picture.height)
    # Few pixels are shown as the squares they are; photographs are smoothed.
    how = Image.Resampling.NEAREST if scale > 1.5 else Image.Resampling.LANCZOS
    target = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    cell = Image.new("RGB", size, "white")
    cell.paste(picture.resize(target, how, reducing_gap=2.0), ((size[0] - target[0]) // 2, (size[1] - target[1]) // 2))
    return cell


def _aspect(images: Sequence[NDArray[Any]]) -> float:
    return float(np.median([image.shape[0] / image.shape[1] for image in images]))


def _shown(image: NDArray[Any]) -> NDArray[np.uint8]:
    """uint8 (H, W) or (H, W, 3); floats are taken to lie in [0, 1], 16 bits are cut to 8."""
    pixels = np.asarray(image)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        msg = f"an image must have the shape (H, W), (H, W, 1) or (H, W, 3); got {np.shape(image)}."
        raise ParameterError(msg)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return np.rint(np.clip(np.nan_to_num(pixels.astype(np.float64)), 0.0, 1.0) * 255).astype(np.uint8)


def _captions(count: int, labels: Sequence[str] | None, scores: ArrayLike | None) -> list[str]:
    texts = [[] if labels is None else [str(labels[index])] for index in range(count)]
    if scores is not None:
        for text, score in zip(texts, np.asarray(scores, np.float64).ravel(), strict=True):
            text.append(format_number(score))
    return ["\n".join(text) for text in texts]


def _check(images: Sequence[Any], **others: Any) -> None:  # noqa: ANN401 - sequences of all kinds
    if not 0 < len(images) <= _MOST:
        msg = f"between 1 and {_MOST} images can be drawn in one figure; got {len(images):,}."
        raise ParameterError(msg)
    for name, items in others.items():
        if items is not None and len(items) != len(images):
            msg = f"{name} has {len(items):,} entries for {len(images):,} images; give one each."
            raise ParameterError(msg)
