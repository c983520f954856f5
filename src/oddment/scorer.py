"""A fitted detector that scores with ONNX Runtime and NumPy alone: what `oddment.load` returns.

The command line, the estimator and the service score through this one class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oddment.allocator import keep_batches
from oddment.artifact import ModelFile, read_model, write_model
from oddment.calibration import ThresholdRule
from oddment.errors import ImageError, ModelFileError
from oddment.examples import SIDE
from oddment.images.decode import DEFAULT_MAX_PIXELS, Decoded, decode
from oddment.images.inputs import as_prepared, as_refs
from oddment.images.prepare import Prepared, assemble
from oddment.images.stream import ahead, in_order, portions
from oddment.notebook import Results
from oddment.regions import find_each_regions
from oddment.results import Detection, Rejection, Result
from oddment.runtime import PARTS, Runtime
from oddment.selection import check_fdr, select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from oddment.calibration import Calibration
    from oddment.images.files import ImageRef
    from oddment.images.inputs import Images
    from oddment.recalibration import Recalibrated
    from oddment.results import Region

    _Batch = list[tuple[ImageRef, Prepared | ImageError]]

__all__ = ["Found", "Scored", "Scorer", "load"]

# Batches, at most, that a thread scales and scores in one go where nothing else is asked of them.
_BATCHES = 16


@dataclass(frozen=True, slots=True)
class Scored:
    """What the graph says of one image.

    Args:
        anomaly_score: higher is more anomalous; the largest of its tiles' where the image was tiled.
        anomaly_map: float32 (h, w) over the whole image, at the resolution that the model saw, padding cut off.
        original: uint8, uint16 or float32 (h, w, C), the image as the model saw it, padding cut off.
        reconstruction: float32 (h, w, C), nominally in [0, 1], padding cut off.
        latent: float32 (L,), of the highest-scoring tile where the image was tiled.
        parts: float32 (P,), what each part of a combined score adds, likewise; None of any other score.
    """

    anomaly_score: float
    anomaly_map: NDArray[np.float32]
    original: NDArray[Any]
    reconstruction: NDArray[np.float32]
    latent: NDArray[np.float32]
    parts: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a search.

    Args:
        result: the row of results.
        scored: what the graph said; None for a rejected image.
        ref: the reference it came from.
        extra: what a caller of `Scorer.find` had made of it besides.
    """

    result: Result
    scored: Scored | None
    ref: ImageRef
    extra: object = None


class Scorer:
    """Scores images with a model file; needs neither torch nor scikit-learn.

    Args:
        model: contents of a model file.
        threads: that score; None takes as many as ODDMENT_THREADS says, or one for each core.

    Raises:
        ModelFileError: if the graph cannot be loaded.
    """

    def __init__(self, model: ModelFile, *, threads: int | None = None) -> None:
        self.model = model
        self.runtime = Runtime(model.graph, shape=model.shape, batch=model.scoring_batch, threads=threads)

    def __getstate__(self) -> dict[str, Any]:
        """The state that copies travel with: the model, not the loaded session."""
        return {"model": self.model}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Load the session anew."""
        self.__init__(state["model"])  # type: ignore[misc]

    @cached_property
    def region_level(self) -> float:
        """The anomaly-map value above which a pixel belongs to a region."""
        return self.calibration.region_level

    @cached_property
    def _part_names(self) -> list[str]:
        """The names of a combined score's parts, as far as the file tells them; numbers follow."""
        about = self.model.info.get("model")
        told = about.get("score") if isinstance(about, dict) else None
        names = told.split(",") if isinstance(told, str) else []
        return [*names, *(f"part {number}" for number in range(len(names) + 1, 65))]

    @property
    def calibration(self) -> Calibration:
        """Calibration scores, rule and threshold."""
        return self.model.calibration

    @property
    def threshold_(self) -> float:
        """An image is an anomaly when its score is strictly above this."""
        return self.model.calibration.threshold

    def with_rule(self, rule: ThresholdRule) -> Scorer:
        """Return the same scorer under another threshold rule; nothing is loaded or scored again.

        Raises:
            TooFewImagesError: if the rule needs more calibration scores than the model holds.
        """
        return self.with_model(replace(self.model, calibration=self.model.calibration.with_rule(rule)))

    def with_model(self, model: ModelFile) -> Scorer:
        """Return a scorer of a model with this one's graph, such as this one newly calibrated; nothing is loaded."""
        other = object.__new__(Scorer)
        other.model, other.runtime = model, self.runtime
        return other

    def recalibrate(
        self,
        images: Images,
        *,
        rule: ThresholdRule | None = None,
        add: bool = False,
        groups: str | None = None,
        note: str = "",
    ) -> Recalibrated:
        """Return this model with a calibration from new normal images, and what there is to know of it.

        Args:
            images: arrays or paths of normal images that the model was not trained on.
            rule: the threshold rule; the model's own when None.
            add: add to the calibration scores instead of replacing them.
            groups: images of one group count as one, as near duplicates do; a CSV file or a pattern over the path, as
                `oddment.images.groups.read_groups` takes it.
            note: why, for the history in the model file.

        Raises:
            DataError: if no image can be used.
            ParameterError: if `groups` is neither.
            TooFewImagesError: if there are too few for the rule.
        """
        from oddment.recalibration import recalibrate

        return recalibrate(self, as_refs(images), rule=rule, add=add, groups=groups, note=note)

    def candidates(self, fdr: float) -> Scorer:
        """Return the same scorer with every image for an anomaly that a selection at `fdr` could select.

        Raises:
            ParameterError: if fdr is not in (0, 1).
            TooFewImagesError: if the model has too few calibration images for any selection.
        """
        check_fdr(fdr, self.calibration)
        return self.with_rule(ThresholdRule("target_fpr", fdr))

    def save(self, path: str | Path) -> None:
        """Write the model file."""
        write_model(Path(path), self.model)

    # --- arrays and paths in, numbers out

    def anomaly_score(self, images: Images) -> NDArray[np.float32]:
        """Return float32 (N,) anomaly scores, higher is more anomalous.

        Args:
            images: array (N, H, W[, C]) uint8, uint16 or float, or paths of files and folders.

        Raises:
            ImageError: if one of the images cannot be used; the message names it.
        """
        ready = as_prepared(images, self.model.preparation)
        scores = None if ready is None else self._score_ready(ready)
        if scores is not None and np.isfinite(scores).all():
            return scores
        return np.array([item.anomaly_score for item in self._each(images)], dtype=np.float32)

    def anomaly_map(self, images: Images) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return the anomaly maps at the images' own resolution: (N, H, W), or a list where sizes differ."""
        maps = [full_map(found) for found in self._found(images)]
        return np.stack(maps) if len({item.shape for item in maps}) == 1 else maps

    def reconstruct(self, images: Images) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return reconstructions at the model's resolution: (N, h, w, C), or a list where sizes differ."""
        drawn = [item.reconstruction for item in self._each(images)]
        return np.stack(drawn) if len({item.shape for item in drawn}) == 1 else drawn

    def latent(self, images: Images) -> NDArray[np.float32]:
        """Return latents, float32 (N, latent_dim)."""
        return np.stack([item.latent for item in self._each(images)])

    def p_value(self, images: Images) -> NDArray[np.float64]:
        """Return conformal p-values, float64 (N,): (1 + number of calibration scores ≥ score) / (n + 1)."""
        return self.calibration.p_values(self.anomaly_score(images))

    def predict(self, images: Images) -> NDArray[np.int64]:
        """Return int64 (N,): -1 where anomaly_score > threshold_, else +1, as scikit-learn's outlier detectors do."""
        return np.where(self.anomaly_score(images).astype(np.float64) > self.threshold_, -1, 1)

    def detect(self, images: Images, *, maps: bool = False, similar: int = 0, fdr: float | None = None) -> list[Result]:
        """Return one `Detection` or `Rejection` an image, in order, ranked.

        Args:
            images: arrays or paths.
            maps: keep the anomaly map, at the original resolution, in each detection.
            similar: name this many of the normal training images that each image is most like, of those that the model
                file keeps small pictures of.
            fdr: select by Benjamini-Hochberg over these images, instead of by the model's threshold, so that at most
                this share of the selected are normal images on average; see `oddment.selection.select`.

        Raises:
            TooFewImagesError: if the model has too few calibration images for any selection at `fdr`.
        """
        scorer = self if fdr is None else self.candidates(fdr)
        results: list[Result] = []
        for found in scorer.find(as_refs(images)):
            result = found.result
            if maps and isinstance(result, Detection):
                result = replace(result, anomaly_map=full_map(found))
            if similar and isinstance(result, Detection):
                result = replace(result, similar=self._similar(found, similar))
            results.append(result)
        if fdr is not None:
            results = _selected(results, self.calibration, fdr)
        order = sorted(
            (index for index, item in enumerate(results) if isinstance(item, Detection)),
            key=lambda index: -results[index].anomaly_score,  # type: ignore[union-attr]
        )
        for rank, index in enumerate(order, start=1):
            results[index] = replace(results[index], rank=rank)  # type: ignore[arg-type]
        return Results(results)

    def _similar(self, found: Found, count: int) -> tuple[str, ...]:
        """The names of the examples that a scored image is most like."""
        if found.scored is None or not isinstance(found.result, Detection):
            return ()
        examples = self.model.examples
        small = self.model.preparation.displayed(found.scored.original, found.result.size, 2 * SIDE)
        [nearest] = examples.nearest([small], count)
        return tuple(examples.names[index] for index in nearest)

    def _score_ready(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """The scores of pictures (N, H, W, C) that need no preparation: what `find` gives, without its bookkeeping."""
        keep_batches()
        batch, scale = self.model.scoring_batch, self.model.preparation.scale
        at_once = self.runtime.at_once
        # As few pieces as may be, each of which wakes the thread that waits for it, and as many for each thread.
        pieces = at_once * -(-len(pixels) // (at_once * _BATCHES * batch))
        size = -(-len(pixels) // (pieces * batch)) * batch
        full = np.array([[0, 0, *self.runtime.shape[1:]]], dtype=np.int64).repeat(batch, axis=0)

        def work(start: int) -> NDArray[np.float32]:
            # A batch at a time: what was just scaled is still in the processor's caches.
            parts = (pixels[at : at + batch] for at in range(start, min(start + size, len(pixels)), batch))
            return np.concatenate([self.runtime.scores(scale(part), full[: len(part)]) for part in parts])

        starts = range(0, len(pixels), size)
        return np.concatenate(list(ahead(starts, work, workers=at_once, waiting=2 * at_once)))

    def _found(self, images: Images) -> Iterator[Found]:
        for found in self.find(as_refs(images)):
            if isinstance(found.result, Rejection):
                msg = f"{found.result.path}: {found.result.reason}"
                raise ImageError(msg)
            yield found

    def _each(self, images: Images) -> Iterator[Scored]:
        return (found.scored for found in self._found(images) if found.scored is not None)

    # --- the stream that all of the above runs on

    def find(
        self,
        refs: Iterable[ImageRef],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        workers: int | None = None,
        also: Callable[[Found], object] | None = None,
    ) -> Iterator[Found]:
        """Yield one `Found` for each reference, in order; threads decode and score ahead of what is taken.

        Args:
            refs: references from `iter_images` or `as_refs`.
            max_pixels: larger images are rejected before they are decoded.
            workers: threads; as many as score at once unless given.
            also: called with each `Found` in the thread that scored it; what it returns becomes its `extra`.
        """
        stop = Event()
        at_once = workers or self.runtime.at_once
        if self.model.preparation.fit == "tile":
            prepare = self._preparer(max_pixels, stop)
            prepared = in_order(refs, prepare, workers=workers, waiting=2 * self.model.scoring_batch)
            judge = partial(self._judged, also=also)
            done = ahead(self._batches(prepared), judge, workers=at_once, waiting=at_once + 1, stop=stop)
        else:
            # A picture an image: one thread decodes and scores a batch, which is quicker than handing pictures over.
            work = partial(self.find_here, max_pixels=max_pixels, also=also, stop=stop)
            few = portions(refs, self.model.scoring_batch)
            done = ahead(few, work, workers=at_once, waiting=at_once + 2, stop=stop)
        for judged in done:
            yield from judged

    def find_here(
        self,
        refs: Sequence[ImageRef],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        also: Callable[[Found], object] | None = None,
        stop: Event | None = None,
    ) -> list[Found]:
        """Return one `Found` for each of a few references, worked out in this thread.

        Args:
            refs: as `find` takes them, like `max_pixels` and `also`.
            max_pixels: larger images are rejected.
            also: called with each `Found`.
            stop: once set, no more images are read.
        """
        prepare = self._preparer(max_pixels, stop or Event())
        # First all are decoded, then all are scored: each leaves little of the other in the processor's caches.
        prepared = [(ref, prepare(ref)) for ref in refs]
        size = self.model.scoring_batch
        batches = (prepared[start : start + size] for start in range(0, len(prepared), size))
        return [found for batch in batches for found in self._judged(batch, also)]

    def _batches(self, prepared: Iterable[tuple[ImageRef, Prepared | ImageError]]) -> Iterator[_Batch]:
        batch: _Batch = []
        pictures = 0
        for ref, item in prepared:
            batch.append((ref, item))
            pictures += len(item.pixels) if isinstance(item, Prepared) else 0
            # Rejected images must not pile up behind one that is waiting to be scored.
            if pictures >= self.model.scoring_batch or len(batch) >= 4 * self.model.scoring_batch:
                yield batch
                batch, pictures = [], 0
        if batch:
            yield batch

    def _preparer(self, max_pixels: int, stop: Event) -> Callable[[ImageRef], Prepared | ImageError]:
        preparation = self.model.preparation

        def work(ref: ImageRef) -> Prepared | ImageError:
            if stop.is_set():
                return ImageError("the search was stopped")
            try:
                decoded: Decoded = decode(ref.payload, max_pixels=max_pixels, at_least=preparation.at_least)
                return preparation.prepare(decoded)
            except ImageError as error:
                return error

        return work

    def _judged(self, batch: _Batch, also: Callable[[Found], object] | None) -> list[Found]:
        """Score and judge a batch, in the thread that decoded it: the one that takes the results has enough to do."""
        usable = [item for _, item in batch if isinstance(item, Prepared)]
        scored = self.score_prepared(usable)
        scores = [item.anomaly_score for item in scored]
        p_values = self.calibration.p_values(scores).tolist()
        regions = find_each_regions(
            [item.anomaly_map for item in scored],
            [item.size for item in usable],
            self.region_level,
            [score > self.threshold_ for score in scores],
        )
        judged = iter(zip(usable, scored, p_values, regions, strict=True))
        found = [
            Found(Rejection(path=ref.path, reason=str(item)), None, ref)
            if isinstance(item, ImageError)
            else self._judge(ref, *next(judged))
            for ref, item in batch
        ]
        return found if also is None else [Found(item.result, item.scored, item.ref, also(item)) for item in found]

    def _judge(
        self, ref: ImageRef, prepared: Prepared, scored: Scored, p_value: float, regions: tuple[Region, ...]
    ) -> Found:
        score = scored.anomaly_score
        if not np.isfinite(score):
            reason = "the model gave no finite score (extreme pixel values, or a damaged model)"
            return Found(Rejection(path=ref.path, reason=reason, size=prepared.size), None, ref)
        detection = Detection(
            path=ref.path,
            anomaly_score=score,
            threshold=self.threshold_,
            p_value=p_value,
            is_anomaly=score > self.threshold_,
            size=prepared.size,
            regions=regions,
            rule=self.calibration.rule.label,
            parts={} if scored.parts is None else dict(zip(self._part_names, scored.parts.tolist(), strict=False)),
        )
        return Found(detection, scored, ref)

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        """Return what the graph says of each prepared image, in order.

        Args:
            prepared: images as `Preparation.prepare` returned them.
        """
        if not prepared:
            return []
        images, valid, owners = assemble(self.model.preparation, prepared)
        outputs = self.runtime.run(images, valid)
        bounds = np.searchsorted(owners, np.arange(len(prepared) + 1))
        return [
            _join(item, {name: array[start:stop] for name, array in outputs.items()})
            for item, start, stop in zip(prepared, bounds[:-1], bounds[1:], strict=True)
        ]


def load(path: str | Path, *, threads: int | None = None) -> Scorer:
    """Return a scorer from a model file. Needs neither torch nor scikit-learn.

    Args:
        path: a `.oddment` file.
        threads: that score; None takes as many as ODDMENT_THREADS says, or one for each core.

    Raises:
        ModelFileError: if the file is missing, damaged, altered or foreign.
    """
    model = read_model(Path(path))
    try:
        return Scorer(model, threads=threads)
    except ModelFileError as error:
        msg = f"{path}: {error}. Copy it again, or fit the model anew."
        raise ModelFileError(msg) from error


def full_map(found: Found) -> NDArray[np.float32]:
    """Return the anomaly map of a scored image at its original resolution, float32 (H, W)."""
    result, scored = found.result, found.scored
    if scored is None or not isinstance(result, Detection):
        msg = f"{found.ref.path} was rejected and has no anomaly map"
        raise ImageError(msg)
    if scored.anomaly_map.shape == (result.size[1], result.size[0]):
        return scored.anomaly_map
    return np.asarray(Image.fromarray(scored.anomaly_map).resize(result.size, Image.Resampling.BILINEAR))


def _selected(results: list[Result], calibration: Calibration, fdr: float) -> list[Result]:
    """The results of candidates, with the verdicts of the selection among them."""
    selection = select([item.anomaly_score for item in results if isinstance(item, Detection)], calibration, fdr)
    level = calibration.region_level

    def judged(item: Result) -> Result:
        if not isinstance(item, Detection):
            return item
        chosen = item.anomaly_score > selection.threshold
        # A candidate was given a box in any case; one that is not selected keeps what stands out by itself.
        regions = item.regions if chosen else tuple(region for region in item.regions if region.peak > level)
        changes = {"threshold": selection.threshold, "is_anomaly": chosen, "regions": regions, "rule": selection.label}
        return replace(item, **changes)  # type: ignore[arg-type]

    return [judged(item) for item in results]


def _join(item: Prepared, outputs: dict[str, NDArray[np.float32]]) -> Scored:
    """One image from its pictures: the score of the highest, the maps side by side."""
    scores, maps = outputs["anomaly_score"], outputs["anomaly_map"]
    parts = outputs.get(PARTS, [None] * len(scores))
    drawn = outputs["reconstruction"].transpose(0, 2, 3, 1)
    if len(item.placements) == 1:
        top, left, bottom, right = item.placements[0].valid
        inside = np.s_[top:bottom, left:right]
        pixels, latent = item.pixels[0][inside], outputs["latent"][0]
        return Scored(float(scores[0]), maps[0][inside], pixels, drawn[0][inside], latent, parts[0])
    # NaN must win here, so that it is seen and the image rejected.
    highest = int(np.argmax(np.where(np.isnan(scores), np.inf, scores)))
    width, height = item.size
    joined = np.full((height, width), -np.inf, dtype=np.float32)
    original = np.zeros((height, width, item.pixels.shape[3]), dtype=item.pixels.dtype)
    painted = np.zeros((height, width, drawn.shape[3]), dtype=np.float32)
    for index, place in enumerate(item.placements):
        left, top, right, bottom = place.source
        target, inside = np.s_[top:bottom, left:right], np.s_[0 : bottom - top, 0 : right - left]
        joined[target] = np.maximum(joined[target], maps[index][inside])
        original[target] = item.pixels[index][inside]
        painted[target] = drawn[index][inside]
    return Scored(float(scores[highest]), joined, original, painted, outputs["latent"][highest], parts[highest])
