"""Make the pictures of docs/theory.md, from the embedded sample alone: `python tools/make_theory_pictures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import Detector
from oddment.data.sample import Sample, load_sample
from oddment.plot import reconstructions, save, score_histogram
from oddment.plot.style import ANOMALY, INK, MUTED, NORMAL, new_figure, tidy, title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "docs" / "images"


def kinds() -> Figure:
    """Point, contextual and collective anomalies in one measurement over time."""
    rng = np.random.default_rng(0)
    time = np.arange(120)
    usual = 20 + 6 * np.sin(time * 2 * np.pi / 40) + rng.normal(0, 0.5, 120)
    point, contextual, collective = usual.copy(), usual.copy(), usual.copy()
    point[71] = 36
    contextual[[69, 70, 71]] = 25
    collective[52:84] = 20 + rng.normal(0, 0.5, 32)
    figure = new_figure(11, 3.2)
    cases = [
        ("Point: no value like it", point, slice(71, 72)),
        ("Contextual: the wrong moment", contextual, slice(69, 72)),
        ("Collective: the wrong shape", collective, slice(52, 84)),
    ]
    first: Axes | None = None
    for number, (heading, values, odd) in enumerate(cases, start=1):
        axes = figure.add_subplot(1, 3, number, sharey=first)
        first = first or axes
        tidy(axes, x="time", y="measurement" if number == 1 else "")
        title(axes, heading)
        axes.plot(time, values, color=NORMAL, linewidth=1.3)
        axes.plot(time[odd], values[odd], "^", color=ANOMALY, markersize=6)
    return figure


def densities() -> Figure:
    """Two features under two univariate Gaussians, one multivariate, and where neither is right."""
    rng = np.random.default_rng(1)
    line = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 400)
    angle = rng.uniform(0, 2 * np.pi, 400)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.normal(1.8, 0.12, (400, 1))
    figure = new_figure(11, 3.9)
    cases = [
        ("A density for each feature", line, (1.6, -1.6), True),
        ("One density over both", line, (1.6, -1.6), False),
        ("Not a Gaussian at all", ring, (0.0, 0.0), False),
    ]
    for number, (heading, points, odd, separate) in enumerate(cases, start=1):
        axes = figure.add_subplot(1, 3, number)
        tidy(axes, x="feature 1", y="feature 2" if number == 1 else "")
        title(axes, heading)
        axes.plot(
            points[:, 0], points[:, 1], "o", color=NORMAL, markersize=2.5, alpha=0.6, markeredgewidth=0, label="normal"
        )
        axes.plot(odd[0], odd[1], "^", color=ANOMALY, markersize=10, label="odd")
        covariance = np.cov(points.T) * (np.eye(2) if separate else 1)
        # The ring's third level would run out of the picture.
        _draw_levels(axes, points.mean(axis=0), covariance, [1, 2, 3] if points is line else [1, 2])
        axes.set(xlim=(-3.4, 3.4), ylim=(-3.4, 3.4), aspect="equal")
        if number == 1:
            axes.legend(loc="upper left", frameon=False, fontsize=9, labelcolor=INK)
    return figure


def _draw_levels(axes: Axes, mean: NDArray[np.float64], covariance: NDArray[np.float64], levels: list[int]) -> None:
    """Lines of equal density, so many standard deviations out, each named."""
    span = np.linspace(-3.4, 3.4, 200)
    grid = np.stack(np.meshgrid(span, span), axis=-1) - mean
    distance = np.sqrt(np.einsum("yxi,ij,yxj->yx", grid, np.linalg.inv(covariance), grid))
    lines = axes.contour(span, span, distance, levels=levels, colors=MUTED, linewidths=1.1)
    axes.clabel(lines, fmt="%gσ", fontsize=8)


def redrawn(sevens: NDArray[np.uint8], others: list[NDArray[np.uint8]], names: list[str]) -> Figure:
    """What an autoencoder that has seen only sevens makes of other images."""
    detector = Detector(model="dense", options={"hidden": (16,)}, epochs=150, target_fpr=0.05).fit(sevens)
    images = np.stack(others)
    drawn: Any = detector.reconstruct(images)
    return reconstructions(
        list(images),
        list(drawn),
        scores=detector.anomaly_score(images),
        labels=names,
        heading="Trained on sevens alone",
    )


def too_simple(images: NDArray[np.uint8], labels: NDArray[np.uint8], test: Sample) -> Figure:
    """Ones, never seen in training, score lower than the digits that were."""
    detector = Detector(model="pca", target_fpr=0.05).fit(images[labels != 1])
    scores = detector.anomaly_score(test.images)
    return score_histogram(
        scores[test.labels != 1],
        scores[test.labels == 1],
        threshold=detector.threshold_,
        heading="Fitted to all digits but 1: the ones look more normal than normal",
    )


def main() -> None:
    """Write all four."""
    train, test, fashion = (load_sample(name) for name in ("mnist-train", "mnist-test", "fashion-test"))
    sevens = train.images[train.labels == 7]
    chosen = [
        test.images[test.labels == digit][place] for digit, place in ((7, 3), (7, 5), (9, 0), (5, 0), (0, 0), (1, 0))
    ]
    chosen += [fashion.images[0], fashion.images[3]]
    names = ["7", "7", "9", "5", "0", "1", "clothing", "clothing"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    save(kinds(), FOLDER / "theory-kinds.png")
    save(densities(), FOLDER / "theory-densities.png")
    save(redrawn(sevens, chosen, names), FOLDER / "theory-redrawn.png")
    save(too_simple(train.images, train.labels, test), FOLDER / "theory-too-simple.png")


if __name__ == "__main__":
    main()
