"""Is a stream of images still the one that the model was calibrated for? What `oddment monitor` runs.

The alarm is a conformal test martingale, which may be looked at after every image; two tests for a single look stand
beside it, and gaps between the two distributions say in which way the scores changed. `drift` has the statistics.
"""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oddment.artifact import write_atomically
from oddment.drift import compare, gaps, log10_capital, online_p_values
from oddment.errors import MissingExtraError, ParameterError, TooFewImagesError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from oddment.calibration import Calibration
    from oddment.drift import Comparison, Gaps
    from oddment.streams import Stream

__all__ = ["Monitoring", "Verdict", "monitor", "write_monitoring"]

Kind = Literal["fine", "watch", "rose", "outliers", "fell", "shape"]
Action = Literal["none", "look", "recalibrate", "retrain"]

# Nearly every new score above nearly every old one: a new threshold would let real anomalies through below it.
_FAR = 0.95
# Only scores above nine tenths of calibration's rose, and at most half of all: odd images, not another stream.
_TOP, _MOST_ODD = 0.9, 0.5
# Where the smaller of the two gaps is more than this share of the larger, scores moved both ways.
_BOTH_WAYS = 0.35
# The martingale idles on its ground, to within this (log10), until something changes.
_NEAR = 0.1
_COLUMNS = ("index", "path", "anomaly_score", "p_value", "log10_martingale")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the stream, and what to do.

    Args:
        kind: "fine"; "watch" (no alarm, but this batch differs); or how the scores changed: "rose", "outliers" (only
            the highest rose), "fell" or "shape".
        action: "none", "look", "recalibrate" or "retrain".
        words: the verdict in a sentence.
        why: what it rests on, in a sentence.
    """

    kind: Kind
    action: Action
    words: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """A stream, watched.

    Args:
        alpha: the chance of an alarm, ever, while the stream is exchangeable with the calibration images.
        n_calibration: calibration images.
        scores: float32 (m,) of the stream.
        p_values: float64 (m,) smoothed conformal p-value of each score among calibration and all before it.
        log10_martingale: float64 (m,); the alarm rises where it reaches log10(1 / alpha).
        alarm_at: index of the image that raised the alarm; None without one.
        onset: index of the image from which on the martingale grew; None without an alarm.
        comparison: the whole stream against the calibration scores, for a single look.
        verdict: what to make of it.
    """

    alpha: float
    n_calibration: int
    scores: NDArray[np.float32] = field(repr=False)
    p_values: NDArray[np.float64] = field(repr=False)
    log10_martingale: NDArray[np.float64] = field(repr=False)
    alarm_at: int | None
    onset: int | None
    comparison: Comparison
    verdict: Verdict

    @property
    def peak(self) -> float:
        """The largest log10 of the martingale so far, at least 0, where it starts."""
        return max(0.0, float(self.log10_martingale.max(initial=0.0)))

    def as_dict(self) -> dict[str, Any]:
        """Everything but the values of each image, JSON-ready."""
        both, verdict = self.comparison, self.verdict
        return {
            "verdict": {"kind": verdict.kind, "action": verdict.action, "words": verdict.words, "why": verdict.why},
            "alarm": self.alarm_at is not None,
            "alarm_at": self.alarm_at,
            "onset": self.onset,
            "alpha": self.alpha,
            "images": int(self.scores.size),
            "calibration_images": self.n_calibration,
            "log10_martingale": {"last": float(self.log10_martingale[-1]), "peak": self.peak},
            "kolmogorov_smirnov": {"statistic": both.ks, "p_value": both.ks_p},
            "cramer_von_mises": {"statistic": both.cvm, "p_value": both.cvm_p},
            "above_calibration": both.gaps.above,
        }


def monitor(
    scores: ArrayLike,
    calibration: Calibration,
    *,
    alpha: float = 0.01,
    seed: int = 0,
    name_of: Callable[[int], str] | None = None,
) -> Monitoring:
    """Return whether a stream of scores has drifted away from the calibration scores.

    While the stream is exchangeable with the calibration images, an alarm ever rises with probability at most `alpha`,
    however long the stream is and however often one looks. A longer stream that begins with this one gives this one's
    values again.

    Args:
        scores: (m,) anomaly scores, in the order in which the images came.
        calibration: the model's calibration.
        alpha: the false-alarm rate of the alarm, in (0, 1).
        seed: of the random numbers that break ties, and of the permutations.
        name_of: gives the name of an image by its index, for the verdict's words.

    Raises:
        ParameterError: if alpha is not in (0, 1), or a score is not finite.
        TooFewImagesError: if there is no score, or the model has no calibration score.

    Example:
        >>> from oddment import Calibration, ThresholdRule
        >>> normal = np.random.default_rng(0).normal(size=400).astype(np.float32)
        >>> calibration = Calibration.of(normal[:200], normal[:0], normal[:200], ThresholdRule())
        >>> monitor(normal[200:], calibration).verdict.kind, monitor(normal[200:] + 2, calibration).verdict.kind
        ('fine', 'rose')
    """
    stream = np.asarray(scores, dtype=np.float32).ravel()
    _check(stream, calibration, alpha)
    p = online_p_values(calibration.scores, stream, seed=seed)
    path = log10_capital(p)
    crossed = np.flatnonzero(path >= -math.log10(alpha))
    alarm_at = int(crossed[0]) if crossed.size else None
    onset = None if alarm_at is None else _onset(path[: alarm_at + 1])
    # Half of alpha for each of the two tests, and p-values fine enough to fall below it.
    comparison = compare(calibration.scores, stream, permutations=max(999, math.ceil(4 / alpha)), seed=seed)
    changed = comparison.gaps if onset is None else gaps(calibration.scores, stream[onset:])
    kind = _kind(changed, calibration.scores.size, stream.size - (onset or 0))
    differs = min(comparison.ks_p, comparison.cvm_p) <= alpha / 2
    if alarm_at is None or onset is None:
        verdict = _watch(comparison, kind, alpha) if differs else _fine(path, alpha, stream.size)
    else:
        names = name_of or (lambda index: f"number {index + 1:,}")
        verdict = _drifted(kind, changed, names(onset), names(alarm_at), alpha)
    return Monitoring(
        alpha=alpha,
        n_calibration=calibration.scores.size,
        scores=stream,
        p_values=p,
        log10_martingale=path,
        alarm_at=alarm_at,
        onset=onset,
        comparison=comparison,
        verdict=verdict,
    )


def _check(stream: NDArray[np.float32], calibration: Calibration, alpha: float) -> None:
    if not 0 < alpha < 1:
        msg = f"alpha must lie strictly between 0 and 1; got {alpha:g}. A usual value is 0.01."
        raise ParameterError(msg)
    if not calibration.scores.size:
        msg = "the model holds no calibration scores to compare with. Give it some with `oddment recalibrate`."
        raise TooFewImagesError(msg)
    if not stream.size:
        msg = "there are no scored images to watch. Give results or images with at least one that can be used."
        raise TooFewImagesError(msg)
    if not np.isfinite(stream).all():
        msg = f"scores must be finite; number {int(np.argmin(np.isfinite(stream))) + 1:,} is not."
        raise ParameterError(msg)


def _onset(path: NDArray[np.float64]) -> int:
    """The image after the martingale was last near its lowest point before the alarm, or near its start."""
    start = np.concatenate([[0.0], path])
    return int(np.flatnonzero(start <= start.min() + _NEAR)[-1])


# --- words


def _kind(changed: Gaps, n: int, m: int) -> Kind:
    """How the scores changed, by the gaps between the distribution functions on either side."""
    chance = 1.36 * math.sqrt(1 / n + 1 / m)  # 5 % of one-sided gaps of equal distributions are larger, or fewer
    smaller, larger = sorted((changed.rose, changed.fell))
    if smaller > max(_BOTH_WAYS * larger, chance):
        return "shape"
    if changed.rose >= changed.fell:
        return "outliers" if changed.rose_at >= _TOP and changed.rose <= _MOST_ODD else "rose"
    return "fell"


def _fine(path: NDArray[np.float64], alpha: float, count: int) -> Verdict:
    peak = 10 ** max(0.0, float(path.max()))
    images = "one image" if count == 1 else f"{count:,} images"
    why = f"The martingale rose to {peak:.3g} at most, and {1 / alpha:.4g} raises the alarm."
    return Verdict("fine", "none", f"Fine: no sign of drift in {images}.", why)


_MANNERS = {
    "rose": "higher",
    "outliers": "higher at the top",
    "fell": "lower",
    "shape": "spread differently",
}


def _watch(both: Comparison, kind: Kind, alpha: float) -> Verdict:
    words = f"No alarm, but these scores differ from the calibration scores: they are {_MANNERS[kind]}. Keep watching."
    why = (
        f"In one look at all of them, Kolmogorov-Smirnov gives p = {both.ks_p:.2g} and Cramér-von Mises "
        f"p = {both.cvm_p:.2g}; {alpha / 2:.2g} is where this note begins. It is meant for one look: who looks often "
        "sees it sooner or later."
    )
    return Verdict("watch", "look", words, why)


_ADVICE: dict[str, tuple[Action, str]] = {
    "rose": (
        "recalibrate",
        "The scores rose: recalibrate if these images are still normal and nothing broke; else look at what broke.",
    ),
    "outliers": (
        "look",
        (
            "More images than usual score high and the rest is as before: look at these. The model needs no change "
            "unless they are normal; then recalibrate with them, or retrain."
        ),
    ),
    "fell": (
        "recalibrate",
        (
            "The scores fell, and the threshold now misses more: look whether images became empty, dark or blurred. If "
            "they are as they should be, recalibrate."
        ),
    ),
    "shape": (
        "retrain",
        (
            "The shape of the scores changed, some up and some down: these are other images than the model has learnt. "
            "Retrain with them if they are normal."
        ),
    ),
    "far": (
        "retrain",
        (
            "The scores rose far above those of calibration: a new threshold alone would hide real anomalies. Look "
            "whether something broke; if these images are normal, retrain with them."
        ),
    ),
}


def _drifted(kind: Kind, changed: Gaps, onset: str, alarm: str, alpha: float) -> Verdict:
    action, words = _ADVICE["far" if kind == "rose" and changed.above >= _FAR else kind]
    everywhere = "over the whole range of scores"
    where = {
        "rose": everywhere,
        "outliers": f"above {changed.rose_at:.0%} of the calibration scores and hardly below",
        "fell": everywhere,
        "shape": f"shares below a value differ by up to {changed.rose:.0%} one way and {changed.fell:.0%} the other",
    }[kind]
    why = (
        f"The alarm rose at image {alarm}; the change seems to begin at image {onset}. From there on a score is above "
        f"a calibration score in {changed.above:.0%} of all pairs (50 % where nothing changed): {where}. Without drift "
        f"an alarm ever rises with probability {alpha:g} at most."
    )
    return Verdict(kind, action, words, why)


# --- files


def write_monitoring(folder: Path, found: Monitoring, stream: Stream, calibration: Calibration) -> list[Path]:
    """Write monitor.json, monitor.csv and, where matplotlib is installed, monitor.png; returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    about = found.as_dict() | {"rejected": stream.rejected, "caveats": list(stream.caveats)}
    contents = {
        "monitor.json": (json.dumps(about, indent=1, allow_nan=False) + "\n").encode(),
        "monitor.csv": _table(found, stream),
        "monitor.png": _picture(found, calibration),
    }
    written = []
    for name, data in contents.items():
        if data is not None:
            write_atomically(folder / name, data)
            written.append(folder / name)
    return written


def _table(found: Monitoring, stream: Stream) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    columns = (found.scores.tolist(), found.p_values.tolist(), found.log10_martingale.tolist())
    writer.writerows((index, *row) for index, row in enumerate(zip(stream.paths, *columns, strict=True)))
    return text.getvalue().encode("utf-8", "backslashreplace")


def _picture(found: Monitoring, calibration: Calibration) -> bytes | None:
    try:
        from oddment.plot import as_png, drift_chart
    except MissingExtraError:
        return None
    return as_png(
        drift_chart(
            found.scores,
            found.log10_martingale,
            calibration=calibration.scores,
            threshold=calibration.threshold,
            alpha=found.alpha,
            alarm_at=found.alarm_at,
            onset=found.onset,
        )
    )
