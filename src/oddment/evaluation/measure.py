"""From judged images to figures with intervals, and to the sentences that belong to them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from oddment.evaluation.records import ClassFigures, Evaluation, Judged
from oddment.natural import naturally_sorted
from oddment.results import Detection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from oddment.metrics import Interval, Resampled

__all__ = ["measure"]


def measure(result: Evaluation, bootstrap: int, seed: int, groups: Callable[[str], str | None] | None) -> None:
    """Fill in figures, classes and notes of an evaluation whose images are judged.

    Args:
        result: the evaluation.
        bootstrap: resamples; 0 for no intervals of ranking figures.
        seed: fixes them.
        groups: gives the group of a path, None for an image that stands alone.
    """
    from oddment.metrics import Interval, Outcome, best_f1

    scores, truth, threshold = result.scores, result.truth, result.scorer.threshold_
    outcome = Outcome.at(scores, truth, threshold)
    result.figures = {
        "tpr": outcome.tpr,
        "fpr": outcome.fpr,
        "precision": outcome.precision,
        "accuracy": outcome.accuracy,
    }
    numbers = _group_numbers([item.result.path for item in result.scored], groups)
    ranked: dict[str, Interval] = {}
    if truth.any() and not truth.all():
        result.resamples = bootstrap
        drawn = _drawn(scores, truth, threshold, bootstrap, seed, numbers)
        ranked = _ranked(scores, truth, drawn)
        ranked["f1"] = _with_interval(outcome.f1, drawn, "f1")
        best, result.best_threshold = best_f1(scores, truth)
        ranked["best_f1"] = Interval(best)
    result.figures = ranked | result.figures
    labels = np.array([item.label for item in result.judged], dtype=object)
    for kind in (False, True):
        of_kind = [item.label for item in result.judged if item.is_anomaly is kind]
        for label in naturally_sorted(dict.fromkeys(of_kind)):
            chosen = [result.judged[index] for index in np.flatnonzero(labels == label)]
            chosen = [item for item in chosen if item.is_anomaly is kind]
            result.classes.append(_class_figures(result, label, chosen, bootstrap, seed, numbers))
    result.notes = list(_notes(result))


def _class_figures(
    result: Evaluation, label: str, chosen: list[Judged], bootstrap: int, seed: int, groups: NDArray[np.int64] | None
) -> ClassFigures:
    """One class; an anomalous one is ranked among all normal images."""
    from oddment.metrics import Interval, rate

    is_anomaly = chosen[0].is_anomaly
    scored = [item for item in chosen if isinstance(item.result, Detection)]
    flagged = sum(item.outcome in ("found", "false alarm") for item in scored)
    ranked = dict.fromkeys(("auroc", "average_precision"), Interval(math.nan))
    if is_anomaly and scored and not result.truth.all():
        of_class = np.array([item.label == label and item.is_anomaly for item in result.scored])
        keep = of_class | ~result.truth
        scores, truth = result.scores[keep], of_class[keep]
        some = None if groups is None else groups[keep]
        ranked = _ranked(scores, truth, _drawn(scores, truth, math.nan, bootstrap, seed, some))
    return ClassFigures(
        label, is_anomaly, len(chosen), flagged, len(chosen) - len(scored), rate(flagged, len(scored)), **ranked
    )


def _drawn(
    scores: NDArray[np.float64],
    truth: NDArray[np.bool_],
    threshold: float,
    bootstrap: int,
    seed: int,
    groups: NDArray[np.int64] | None,
) -> Resampled | None:
    from oddment.metrics import resample

    if not bootstrap:
        return None
    return resample(scores, truth, resamples=bootstrap, seed=seed, groups=groups, thresholds=[threshold])


def _ranked(scores: NDArray[np.float64], truth: NDArray[np.bool_], drawn: Resampled | None) -> dict[str, Interval]:
    from oddment.metrics import auroc, average_precision

    return {
        "auroc": _with_interval(auroc(scores, truth), drawn, "auroc"),
        "average_precision": _with_interval(average_precision(scores, truth), drawn, "average_precision"),
    }


def _with_interval(value: float, drawn: Resampled | None, name: str) -> Interval:
    from oddment.metrics import Interval
    from oddment.metrics.bootstrap import percentiles

    return Interval(value) if drawn is None else percentiles(value, getattr(drawn, name)[:, 0])


def _group_numbers(paths: Sequence[str], groups: Callable[[str], str | None] | None) -> NDArray[np.int64] | None:
    from oddment.images.groups import group_numbers

    return None if groups is None else group_numbers(paths, groups)[0]


def _notes(result: Evaluation) -> Iterator[str]:
    """What a reader should know before believing the figures."""
    if _breaks_promise(result):
        yield (
            f"The false-alarm rate on these normal images, {result.figures['fpr']}, lies further above the promised "
            f"{result.scorer.calibration.target_fpr:g} than chance in drawing calibration and test images explains: "
            "these normal images differ from those that the model was fitted to. Fit it with images like these."
        )
    if "auroc" not in result.figures:
        kind = "anomaly" if not result.truth.any() else "normal image"
        yield f"There is no {kind} among the scored images: AUROC, average precision and F1 are not defined."
    elif result.figures["auroc"].value == 1:
        yield (
            "No normal image scores as high as any anomaly here. The bootstrap then gives an interval of no width; it "
            "says that none was seen, not that none can be."
        )
    if result.rejected:
        yield f"{len(result.rejected):,} of {len(result.judged):,} test images were rejected and are in no figure."
    if result.unmasked:
        yield f"{result.unmasked:,} anomalies have no mask and are left out of the pixel figures."
    caveat = result.scorer.calibration.caveat()
    if caveat:
        yield caveat


def _breaks_promise(result: Evaluation) -> bool:
    """Whether so many false alarms are less likely than 2.5 % if the promise holds.

    Given n calibration images, of which the rule leaves at most a - 1 above the threshold, the false alarms among m new
    normal images are beta-binomial: Bates et al. (2023), section 2.
    """
    from scipy.stats import betabinom

    promised, n = result.scorer.calibration.target_fpr, result.scorer.calibration.scores.size
    normal = int((~result.truth).sum())
    if promised is None or not normal or not n:
        return False
    above = max(1, math.floor(round(promised * (n + 1), 9)))
    return bool(betabinom.sf(result.count("false alarm") - 1, normal, above, n + 1 - above) < 0.025)
