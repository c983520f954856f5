"""The last step of a fit: scores of all images by the runtime that will score new ones, and the threshold from them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from oddment.calibration import Calibration
from oddment.errors import ImageError, TrainingError
from oddment.images.stream import ahead
from oddment.regions import map_peaks
from oddment.results import Detection
from oddment.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from oddment.artifact import ModelFile
    from oddment.images.files import ImageRef
    from oddment.progress import Progress
    from oddment.training.collect import Collection
    from oddment.training.settings import Settings
    from oddment.training.split import Split

__all__ = ["calibrate"]


def calibrate(
    model: ModelFile,
    collection: Collection,
    split: Split,
    settings: Settings,
    refs: Callable[[], Iterable[ImageRef]],
    progress: Progress,
) -> tuple[ModelFile, NDArray[np.float32]]:
    """Score every image through the runtime, once, and let the rule choose the threshold.

    Args:
        model: what was fitted, with any calibration.
        collection: all usable images.
        split: which of them calibrate.
        settings: what was asked for.
        refs: returns a fresh pass over all images, read again where the collection holds only tiles of them.
        progress: told how far it is.

    Returns:
        The model with its calibration and the range of its maps; float32 (N,), the score of every image.

    Raises:
        ImageError: if an image cannot be read again.
        TrainingError: if a score is not finite.
    """
    scorer = Scorer(model)
    scores = np.full(len(collection), np.nan, dtype=np.float32)
    peaks, maps = np.full(len(collection), np.nan, dtype=np.float32), []
    held = np.zeros(len(collection), dtype=bool)
    held[split.calibration] = True
    # How high normal maps rise is read off images that were not trained on, where there are any.
    risen = held if held.any() else ~held
    shown = split.calibration if split.calibration.size else split.training
    sample = set(shown[:: max(1, len(shown) // 256)].tolist())
    progress.start("Calibrating", len(collection))
    for start, found, seen in _score_all(scorer, collection, settings, refs):
        here = slice(start, start + len(found))
        scores[here] = found
        if risen[here].any():
            peaks[here] = np.where(risen[here], map_peaks(seen), np.nan)
        # A copy: a view would keep the maps of all that were scored with it.
        maps += [
            item.ravel()[:: max(1, item.size // 4096)].copy() for at, item in enumerate(seen, start) if at in sample
        ]
        progress.update(here.stop)
    progress.finish()
    if not np.isfinite(scores).all():
        msg = "the trained model gives scores that are not finite. Lower the learning rate, or check the images."
        raise TrainingError(msg)
    # Calibration holds out images; images left over from grouped ones neither train nor calibrate.
    trained = split.scored_as_training
    calibration = Calibration.of(scores[held], scores[trained], peaks[held], settings.rule, split.n_groups)
    low = float(np.quantile(np.concatenate(maps), 0.9))
    level = calibration.region_level if held.any() else float(np.quantile(peaks[trained], 0.99))
    high = max(level, low + 1e-6)
    return replace(model, calibration=calibration, map_range=(low, low + 1.5 * (high - low))), scores


def _score_all(
    scorer: Scorer, collection: Collection, settings: Settings, refs: Callable[[], Iterable[ImageRef]]
) -> Iterator[tuple[int, NDArray[np.float32], list[NDArray[np.float32]]]]:
    """Yield (first image, scores, maps) of some images after the other, in order, until all usable ones are done."""
    if settings.fit != "tile":
        store, valid, runtime = collection.store, collection.store.valid, scorer.runtime
        size = runtime.piece

        def work(start: int) -> tuple[int, NDArray[np.float32], list[NDArray[np.float32]]]:
            images = scorer.model.preparation.scale(store.pixels[start : start + size])
            outputs = runtime.run(images, valid[start : start + size], ("anomaly_score", "anomaly_map"))
            bounds = valid[start : start + size].tolist()
            inside = [
                whole[top:bottom, left:right]
                for whole, (top, left, bottom, right) in zip(outputs["anomaly_map"], bounds, strict=True)
            ]
            return start, outputs["anomaly_score"], inside

        yield from ahead(range(0, len(store), size), work, workers=runtime.pieces, waiting=runtime.pieces + 1)
        return
    # The store holds only some tiles of large images; an image's score needs all of them.
    index = 0
    for found in scorer.find(refs(), max_pixels=settings.max_pixels):
        if isinstance(found.result, Detection) and found.scored is not None:
            yield index, np.array([found.result.anomaly_score], np.float32), [found.scored.anomaly_map]
            index += 1
        elif collection.paths[index : index + 1] == [found.result.path]:
            raise ImageError(f"{found.result.path} could be read at first and not again: {found.result}")
