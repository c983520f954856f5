"""Images, what was redrawn of them, and where they are odd."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oddment.errors import ParameterError
from oddment.plot.style import INK, MUTED, format_number, new_figure
from oddment.report.pictures import render_heat_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

__all__ = ["heat_maps", "reconstructions", "sample_strip"]

_MOST = 64


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
    count = len(captions)
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in next(iter(rows.values()))]))
    side = float(np.clip(12 / count, 0.75, 1.7))
    lines = max(caption.count("\n") + 1 if caption else 0 for caption in captions)
    height = len(rows) * (side * aspect + 0.06) + 0.17 * lines + (0.4 if heading else 0.1)
    figure = new_figure(count * (side + 0.06) + (0.7 if any(rows) else 0.1), height)
    grid = figure.subplots(len(rows), count, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.04})
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        for column, (axes, image) in enumerate(zip(line, images, strict=True)):
            _show(axes, image)
            if not column:
                axes.set_ylabel(name, fontsize=9, color=MUTED)
    for axes, caption in zip(grid[-1], captions, strict=True):
        axes.set_xlabel(caption, fontsize=8 if side > 0.9 else 7, color=INK)
    _head(figure, heading)
    return figure


def _stack(
    originals: Sequence[NDArray[Any]], redrawn: Sequence[NDArray[Any]], captions: list[str], heading: str | None
) -> Figure:
    aspect = float(np.median([image.shape[0] / image.shape[1] for image in originals]))
    figure = new_figure(3.2, len(captions) * (1.2 * aspect + 0.08) + 0.5)
    grid = figure.subplots(len(captions), 2, squeeze=False, gridspec_kw={"wspace": 0.04, "hspace": 0.06})
    for line, image, other, caption in zip(grid, originals, redrawn, captions, strict=True):
        _show(line[0], image)
        _show(line[1], other)
        line[0].set_ylabel(caption, fontsize=8, color=INK, rotation=0, ha="right", va="center", labelpad=8)
    for axes, name in zip(grid[0], ("original", "redrawn"), strict=True):
        axes.set_title(name, fontsize=9, color=MUTED)
    _head(figure, heading)
    return figure


def _show(axes: Axes, image: NDArray[Any]) -> None:
    shown = _shown(image)
    # Few pixels are drawn as they are; photographs may be smoothed.
    smooth = "nearest" if max(shown.shape[:2]) <= 96 else "antialiased"
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation=smooth)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#dfe0de")


def _head(figure: Figure, heading: str | None) -> None:
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)


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
