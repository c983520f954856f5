"""Scores and latents of images: as a histogram, one after the other, in the plane."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.transforms import blended_transform_factory

from oddment.errors import ParameterError
from oddment.natural import naturally_sorted
from oddment.plot.style import (
    ANOMALY,
    CALIBRATION,
    INK,
    MUTED,
    NORMAL,
    PALETTE,
    THRESHOLD,
    format_number,
    log_scale,
    new_axes,
    tidy,
    title,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

__all__ = ["error_by_index", "intervals", "latent_scatter", "score_histogram"]

_MARKERS = ("^", "s", "D", "v", "P", "X")
_ANOMALOUS = tuple(colour for colour in PALETTE if colour != NORMAL)
_SHORTEST_BAND = 0.045  # of the width: narrower ones carry no name


def score_histogram(
    normal: ArrayLike,
    anomalous: ArrayLike = (),
    *,
    calibration: ArrayLike = (),
    threshold: float | None = None,
    log: bool | None = None,
    heading: str | None = "Anomaly scores",
) -> Figure:
    """Return how scores are distributed; each kind's area is one, so that few anomalies are seen beside many normals.

    Args:
        normal: (N,) scores of normal test images.
        anomalous: (M,) scores of anomalies.
        calibration: (n,) held-out normal scores that the threshold was chosen from.
        threshold: dashed line.
        log: logarithmic scores; when None, where all are positive and span more than a factor of thirty.
        heading: title.

    Raises:
        ParameterError: if there is no score at all.
    """
    kinds = {
        "calibration": (np.asarray(calibration, np.float64).ravel(), CALIBRATION),
        "normal": (np.asarray(normal, np.float64).ravel(), NORMAL),
        "anomalous": (np.asarray(anomalous, np.float64).ravel(), ANOMALY),
    }
    every = np.concatenate([values for values, _ in kinds.values()])
    if not every.size:
        msg = "there are no scores to draw."
        raise ParameterError(msg)
    log = _spans(every) if log is None else log
    edges = _edges(every, log=log)
    figure, axes = new_axes()
    tidy(axes, x="anomaly score", y="share of the images of its kind")
    for name, (values, colour) in kinds.items():
        if values.size:
            # Shares, not densities: bins of a logarithmic axis differ in width.
            weights = np.full(values.size, 1 / values.size)
            look = {"histtype": "step", "linewidth": 1.6} if name == "calibration" else {"alpha": 0.6}
            axes.hist(values, edges, weights=weights, color=colour, label=f"{name} ({values.size:,})", **look)  # type: ignore[arg-type]
    if threshold is not None:
        axes.axvline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5,
                     label=f"threshold {format_number(threshold)}")  # fmt: skip
    if log:
        log_scale(axes, "x")
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    title(axes, heading)
    return figure


def error_by_index(
    scores: Any,  # noqa: ANN401 - an array, or a mapping of arrays
    labels: Sequence[str] | None = None,
    *,
    anomalies: Sequence[str] = (),
    threshold: float | None = None,
    log: bool | None = None,
    y: str = "anomaly score",
    heading: str | None = None,
) -> Figure:
    """Return each image's score at its index: points, or a line a model.

    Args:
        scores: (N,) anomaly scores, drawn as points; or a mapping of model names to such arrays, drawn as lines.
        labels: (N,) class of each image; images of one class are drawn side by side on a band of their own, normal
            classes first, in natural order.
        anomalies: the classes that are anomalous: their bands are coloured.
        threshold: dashed line with its value.
        log: logarithmic scores; when None, where all are positive and span more than a factor of thirty.
        y: what the scores are, for the axis.
        heading: title.

    Raises:
        ParameterError: if lengths differ.
    """
    curves = {str(k): np.asarray(v, np.float64).ravel() for k, v in (
        scores.items() if isinstance(scores, Mapping) else [("", scores)]
    )}  # fmt: skip
    count = len(next(iter(curves.values())))
    names = np.asarray(labels if labels is not None else [""] * count, dtype=object)
    if any(len(values) != len(names) for values in curves.values()):
        msg = f"labels has {len(names):,} entries for {count:,} scores; give one each."
        raise ParameterError(msg)
    order, bands = _banded(names, set(anomalies))
    figure, axes = new_axes(8.4, 4.2)
    tidy(axes, x="image", y=y)
    axes.grid(visible=False, axis="x")
    colours = _draw_bands(axes, bands, anomalies) if labels is not None else {}
    if isinstance(scores, Mapping):
        for number, (name, values) in enumerate(curves.items()):
            axes.plot(values[order], color=PALETTE[number % len(PALETTE)], linewidth=1.4, label=name,
                      marker=("", *_MARKERS)[number % 7], markersize=3)  # fmt: skip
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, labelcolor=INK)
    else:
        _draw_points(axes, curves[""][order], bands, colours, anomalies)
    if threshold is not None:
        _threshold_line(axes, threshold)
    every = np.concatenate(list(curves.values()))
    if _spans(every) if log is None else log:
        log_scale(axes, "y")
    axes.set_xlim(-0.5, count - 0.5)
    if heading:
        # Room for the names of the bands between the title and the axes.
        axes.set_title(heading, loc="left", fontsize=11, color=INK, fontweight="bold", pad=22 if bands else 10)
    return figure


def latent_scatter(
    latent: ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    anomalies: Sequence[str] = (),
    heading: str | None = "Latent space",
) -> Figure:
    """Return the latents in the plane: as they are where two-dimensional, else their first two principal components.

    Args:
        latent: (N, latent_dim).
        labels: (N,) class of each image.
        anomalies: the classes that are anomalous: drawn last, as filled shapes; normal ones as dots.
        heading: title.

    Raises:
        ParameterError: if latent is not two-dimensional or the lengths differ.
    """
    points = np.asarray(latent, dtype=np.float64)
    names = np.asarray(labels if labels is not None else ["images"] * len(points), dtype=object)
    if points.ndim != 2 or len(names) != len(points) or not len(points):
        msg = f"latent must have the shape (N, latent_dim) and labels (N,); got {points.shape} and ({len(names)},)."
        raise ParameterError(msg)
    plane, axis_names = _plane(points)
    figure, axes = new_axes(6.2, 5.0)
    tidy(axes, x=axis_names[0], y=axis_names[1])
    classes = naturally_sorted(dict.fromkeys(map(str, names.tolist())))
    normal = [name for name in classes if name not in anomalies]
    for number, name in enumerate(normal):
        chosen = plane[names == name]
        axes.plot(chosen[:, 0], chosen[:, 1], "o", markersize=3.5, alpha=0.55, markeredgewidth=0, label=str(name),
                  color=_shade(number, len(normal)))  # fmt: skip
    for number, name in enumerate(name for name in classes if name in anomalies):
        chosen = plane[names == name]
        axes.plot(chosen[:, 0], chosen[:, 1], _MARKERS[number % 6], markersize=6, markeredgecolor="white",
                  markeredgewidth=0.5, color=_ANOMALOUS[number % len(_ANOMALOUS)],
                  label=f"{name} (anomaly)")  # fmt: skip
    if labels is not None:
        columns = 1 + (len(classes) > 12)
        figure.legend(loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK, ncols=columns,
                      markerscale=1.4)  # fmt: skip
    title(axes, heading)
    return figure


def _spans(values: NDArray[np.float64]) -> bool:
    return bool(values.size and values.min() > 0 and values.max() > 30 * values.min())


def _edges(values: NDArray[np.float64], *, log: bool) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    count = int(np.clip(np.sqrt(values.size) * 1.5, 12, 45)) + 1
    return np.geomspace(low, high, count) if log else np.linspace(low, high, count)


def _banded(names: NDArray[Any], anomalies: set[str]) -> tuple[NDArray[np.intp], list[tuple[str, int, int]]]:
    """The order that puts classes side by side, normal ones first, and (class, first, past the last) of each."""
    classes = naturally_sorted(dict.fromkeys(map(str, names.tolist())))
    ordered = [name for name in classes if name not in anomalies] + [name for name in classes if name in anomalies]
    parts = [np.flatnonzero(names == name) for name in ordered]
    ends = np.cumsum([len(part) for part in parts])
    bands = [(str(name), int(end) - len(part), int(end)) for name, part, end in zip(ordered, parts, ends, strict=True)]
    return np.concatenate(parts), bands if len(ordered) > 1 or ordered[0] else []


def _draw_bands(axes: Axes, bands: list[tuple[str, int, int]], anomalies: Sequence[str]) -> dict[str, str]:
    """Colour and name the bands; returns the colour of each class's points."""
    above = blended_transform_factory(axes.transData, axes.transAxes)
    total = bands[-1][2] if bands else 1
    colours: dict[str, str] = {}
    odd = [name for name, *_ in bands if name in anomalies]
    for number, (name, start, stop) in enumerate(bands):
        is_odd = name in anomalies
        colours[name] = _ANOMALOUS[odd.index(name) % len(_ANOMALOUS)] if is_odd else NORMAL
        if is_odd:
            axes.axvspan(start - 0.5, stop - 0.5, color=colours[name], alpha=0.16, linewidth=0, zorder=0)
        elif number % 2:
            axes.axvspan(start - 0.5, stop - 0.5, color=MUTED, alpha=0.07, linewidth=0, zorder=0)
        # A long name on a narrow band would run into its neighbour's.
        if (stop - start) / total >= max(_SHORTEST_BAND, 0.011 * len(name)) or (is_odd and len(odd) == 1):
            axes.text((start + stop - 1) / 2, 1.02, name, transform=above, ha="center", va="bottom", fontsize=9,
                      color=colours[name] if is_odd else MUTED, fontweight="bold" if is_odd else "normal")  # fmt: skip
    return colours


def _draw_points(
    axes: Axes,
    values: NDArray[np.float64],
    bands: list[tuple[str, int, int]],
    colours: dict[str, str],
    anomalies: Sequence[str],
) -> None:
    index = np.arange(len(values))
    size = 4 if len(values) <= 2000 else 2.5
    odd = 0
    for name, start, stop in bands or [("", 0, len(values))]:
        marker = "o"
        if name in anomalies:
            marker, odd = _MARKERS[odd % len(_MARKERS)], odd + 1
        axes.plot(index[start:stop], values[start:stop], marker, markersize=size, markeredgewidth=0, alpha=0.8,
                  color=colours.get(name, NORMAL), clip_on=False)  # fmt: skip


def _threshold_line(axes: Axes, threshold: float) -> None:
    axes.axhline(threshold, color=THRESHOLD, linestyle="--", linewidth=1.5, zorder=4)
    beside = blended_transform_factory(axes.transAxes, axes.transData)
    axes.text(1.005, threshold, f"threshold\n{format_number(threshold)}", transform=beside, fontsize=9, color=THRESHOLD,
              va="center", ha="left")  # fmt: skip


def _plane(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Two coordinates of each latent, and what they are."""
    if points.shape[1] == 2:
        return points, ("latent 1", "latent 2")
    if points.shape[1] == 1:
        return np.column_stack([np.arange(len(points)), points[:, 0]]), ("image", "latent")
    centred = points - points.mean(0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = singular[:2] ** 2 / max(float((singular**2).sum()), float(np.finfo(np.float64).tiny))
    plane = centred @ directions[:2].T
    if plane.shape[1] < 2:
        plane = np.column_stack([plane, np.zeros(len(plane))])
        share = np.append(share, 0.0)
    return plane, tuple(f"principal component {n + 1} ({share[n]:.0%} of the variance)" for n in range(2))  # type: ignore[return-value]


def _shade(number: int, count: int) -> tuple[float, float, float]:
    """One of `count` colours for normal classes: a single blue, or shades from deep to light blue and green."""
    if count == 1:
        return (0.0, 0.447, 0.698)
    stops = np.array(
        [(0.05, 0.18, 0.42), (0.0, 0.447, 0.698), (0.34, 0.71, 0.91), (0.0, 0.62, 0.45), (0.55, 0.57, 0.6)]
    )
    at = np.linspace(0, 1, len(stops))
    red, green, blue = (float(np.interp(number / (count - 1), at, stops[:, channel])) for channel in range(3))
    return (red, green, blue)


def intervals(figures: Mapping[str, Any], *, x: str, heading: str | None = None) -> Figure:
    """Return figures with their intervals, a line each, the first on top.

    Args:
        figures: name → `oddment.metrics.Interval`, or (value, low, high).
        x: what they are.
        heading: title.

    Raises:
        ParameterError: if there is none.
    """
    if not figures:
        msg = "there is no figure to draw."
        raise ParameterError(msg)
    rows = [
        (name, *(item if isinstance(item, tuple) else (item.value, item.low, item.high)))
        for name, item in figures.items()
    ]
    figure, axes = new_axes(6.4, 1.1 + 0.34 * len(rows))
    tidy(axes, x=x)
    axes.grid(visible=False, axis="y")
    for place, (_, value, low, high) in enumerate(rows):
        # The colours of these names in curves drawn in the same order.
        colour = PALETTE[place % len(PALETTE)]
        axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
        axes.plot([value], [place], "o", color=colour, markersize=7)
        axes.annotate(f"{value:.3f}", (value, place), (0, 7), textcoords="offset points", ha="center", fontsize=8.5,
                      color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), [str(row[0]) for row in rows], fontsize=9.5, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.7)
    title(axes, heading)
    return figure
