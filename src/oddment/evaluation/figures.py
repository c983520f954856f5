"""The figures of an evaluation, each with its caption. Needs matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import MissingExtraError
from oddment.report.page import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from matplotlib.figure import Figure

    from oddment.evaluation.records import Evaluation, Example

__all__ = ["draw", "evaluation_figures"]


def draw(figures: Callable[[], dict[str, tuple[Figure, str]]]) -> tuple[list[Picture], list[str]]:
    """Return the figures as pictures, or none and a note where matplotlib is missing."""
    try:
        from oddment.plot import as_png
    except MissingExtraError as error:
        return [], [f"There are no figures here: {error}"]
    return [Picture(f"{name}.png", as_png(figure), caption) for name, (figure, caption) in figures().items()], []


def evaluation_figures(result: Evaluation) -> dict[str, tuple[Figure, str]]:
    """Return file name → (figure, caption). Needs matplotlib.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    return dict(_figures(result))


def _figures(result: Evaluation) -> Iterator[tuple[str, tuple[Figure, str]]]:
    from oddment import plot

    scores, truth, threshold = result.scores, result.truth, result.scorer.threshold_
    labels = [item.label for item in result.scored]
    odd = [item.label for item in result.classes if item.is_anomaly]
    calibration = result.scorer.calibration.scores
    yield (
        "scores",
        (
            plot.score_histogram(scores[~truth], scores[truth], calibration=calibration, threshold=threshold),
            "Scores of normal and anomalous test images, and of the images that the threshold was chosen from.",
        ),
    )
    if truth.any() and not truth.all():
        yield (
            "roc",
            (
                plot.roc(scores, truth, threshold=threshold),
                "Anomalies found against false alarms; the ring is the model's threshold.",
            ),
        )
        yield (
            "precision-recall",
            (
                plot.precision_recall(scores, truth, threshold=threshold),
                "Precision against recall; the ring is the model's threshold.",
            ),
        )
    yield (
        "index",
        (
            plot.error_by_index(
                scores, labels, anomalies=odd, threshold=threshold, heading="Score of every test image"
            ),
            "The score of every test image, class by class; anomalous classes on coloured bands.",
        ),
    )
    chosen = [result.judged[index] for index, _ in result.latents]
    latents = np.stack([latent for _, latent in result.latents])
    yield (
        "latent",
        (
            plot.latent_scatter(latents, [item.label for item in chosen], anomalies=odd),
            f"The latents of {len(chosen):,} test images.",
        ),
    )
    yield from _pictures(result)
    history = result.scorer.model.info.get("training", {}).get("history")
    if history:
        yield "loss", (plot.loss_curves(history), "Loss over the epochs of training.")


_EXTREMES = {
    (True, "high"): ("anomalies-highest", "Anomalies with the highest scores"),
    (True, "low"): ("anomalies-lowest", "Anomalies with the lowest scores: the hardest to find"),
    (False, "high"): ("normal-highest", "Normal images with the highest scores: the nearest to false alarms"),
    (False, "low"): ("normal-lowest", "Normal images with the lowest scores: redrawn best"),
}


def _pictures(result: Evaluation) -> Iterator[tuple[str, tuple[Figure, str]]]:
    from oddment import plot

    for key, (name, heading) in _EXTREMES.items():
        examples = result.examples.get(key, [])
        if examples:
            figure = plot.heat_maps(
                [_original(example, result) for example in examples],
                [example.scored.anomaly_map for example in examples],
                map_range=result.scorer.model.map_range,
                redrawn=[example.scored.reconstruction for example in examples],
                scores=[example.judged.score for example in examples],
                labels=[example.judged.label for example in examples],
                heading=heading,
            )
            yield name, (figure, f"{heading}: original, what the model redrew, and where it is odd.")


def _original(example: Example, result: Evaluation) -> Any:  # noqa: ANN401 - an array
    """The image as the model saw it, in [0, 1] by the model's own range of values."""
    pixels = example.scored.original
    low, high = result.scorer.model.preparation.ranges[pixels.dtype.name]
    return (pixels.astype(np.float32) - low) / max(high - low, 1e-12)
