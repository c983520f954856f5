"""Scoring a labelled test set in one pass, and what is kept of it."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import DataError, ImageError, ParameterError
from oddment.evaluation.measure import measure
from oddment.evaluation.records import Evaluation, Example, Judged
from oddment.images.decode import DEFAULT_MAX_PIXELS, decode
from oddment.progress import Progress
from oddment.results import Rejection
from oddment.scorer import full_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from oddment.data.labelled import LabelledImage, LabelledSet
    from oddment.metrics import PixelTally
    from oddment.scorer import Found, Scored, Scorer

__all__ = ["evaluate", "judge", "read_mask"]

# Latents and pictures kept for the figures: a sample, so that memory stays flat.
_LATENTS, _PICTURES = 3000, 8


def evaluate(
    scorer: Scorer,
    data: LabelledSet,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    groups: Callable[[str], str | None] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> Evaluation:
    """Return what a model is worth on the test images of a labelled set.

    Args:
        scorer: a model, from `oddment.load` or a detector's `scorer_`.
        data: labelled images; only its test part is used.
        bootstrap: resamples behind the intervals of ranking figures; 0 for no intervals.
        seed: fixes the resamples.
        groups: gives the group of a path, None for an image that stands alone; groups are then resampled as one.
        max_pixels: larger images are rejected before they are decoded.
        progress: told how far it is.

    Raises:
        DataError: if no test image can be scored.
        ParameterError: if bootstrap is negative.
    """
    if bootstrap < 0:
        msg = f"bootstrap must be 0 or more; got {bootstrap}. A usual value is 1000."
        raise ParameterError(msg)
    result = Evaluation(data.name, data.description, scorer, [])
    has_masks = any(item.mask is not None for item in data.test)
    tally = _new_tally() if has_masks else None
    progress = progress or Progress()
    progress.start("Evaluating", len(data.test))
    kept = _Kept(result, every=max(1, len(data.test) // _LATENTS))
    for number, (found, item) in enumerate(judge(scorer, data.test, max_pixels=max_pixels), start=1):
        judged = Judged(found.result, item.is_anomaly, item.label)
        result.judged.append(judged)
        kept.take(judged, found.scored)
        if tally is not None:
            _add_pixels(tally, found, item, result)
        progress.update(number)
    progress.finish()
    kept.close()
    if not result.scored:
        msg = f"none of the {len(data.test):,} test images could be scored; the first: {_first_reason(result)}."
        raise DataError(msg)
    if tally is not None and tally.n_regions:
        result.pixels = tally.result()
    measure(result, bootstrap, seed, groups)
    return result


def judge(
    scorer: Scorer, test: Iterable[LabelledImage], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Iterator[tuple[Found, LabelledImage]]:
    """Yield each test image's verdict beside its truth, in order."""
    items, ahead = itertools.tee(test)
    yield from zip(scorer.find((item.ref for item in ahead), max_pixels=max_pixels), items, strict=True)


class _Kept:
    """What the figures need of the stream: a sample of latents, and the extreme images of either kind."""

    def __init__(self, result: Evaluation, *, every: int) -> None:
        self._result, self._every = result, every
        self._heaps: dict[tuple[bool, str], list[tuple[float, int, Example]]] = {
            (kind, end): [] for kind in (False, True) for end in ("low", "high")
        }

    def take(self, judged: Judged, scored: Scored | None) -> None:
        index = len(self._result.judged) - 1
        if scored is None:
            return
        # Anomalies are rare, and the ones to be seen.
        if judged.is_anomaly or index % self._every == 0:
            self._result.latents.append((index, scored.latent))
        for end, key in (("low", -judged.score), ("high", judged.score)):
            heap = self._heaps[judged.is_anomaly, end]
            if len(heap) < _PICTURES or key > heap[0][0]:
                entry = (key, -index, Example(judged, scored))
                (heapq.heappush if len(heap) < _PICTURES else heapq.heapreplace)(heap, entry)

    def close(self) -> None:
        """Hand over the examples, most extreme first."""
        for kind, heap in self._heaps.items():
            self._result.examples[kind] = [
                entry[2] for entry in sorted(heap, key=lambda entry: entry[:2], reverse=True)
            ]


# --- pixels


def _new_tally() -> PixelTally:
    from oddment.metrics import PixelTally

    return PixelTally()


def _add_pixels(tally: PixelTally, found: Found, item: LabelledImage, result: Evaluation) -> None:
    if found.scored is None:
        return
    if not item.is_anomaly:
        tally.add(full_map(found))
    elif item.mask is None:
        result.unmasked += 1
    else:
        tally.add(full_map(found), read_mask(item.mask))


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Return a mask as bool (H, W), true where the picture is not black.

    Of a picture with more than eight values, compressed or smoothed, what is brighter than half of its brightest.

    Raises:
        DataError: if the file is no picture.
    """
    try:
        pixels = decode(path).pixels
    except ImageError as error:
        msg = f"mask {path}: {error}. Mend it, or remove it to leave its image out of the pixel figures."
        raise DataError(msg) from error
    levels = pixels.max(axis=2) if pixels.ndim == 3 else pixels
    few = len(np.unique(levels)) <= 8
    return np.asarray(levels > (0 if few else levels.max() / 2), dtype=bool)


def _first_reason(result: Evaluation) -> str:
    first = result.judged[0].result if result.judged else None
    return f"{first.path}: {first.reason}" if isinstance(first, Rejection) else "there is none"
