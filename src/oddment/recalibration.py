"""New normal images for an old model: another calibration, the weights untouched. What `oddment recalibrate` runs."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oddment.calibration import Calibration, images_needed
from oddment.errors import DataError, ImageError, TooFewImagesError
from oddment.images.decode import DEFAULT_MAX_PIXELS, decode
from oddment.images.fingerprint import digest, gray_thumb, group_near_duplicates, join_groups, perceptual_hashes
from oddment.images.groups import group_numbers, read_groups
from oddment.images.stream import in_order
from oddment.progress import Progress
from oddment.regions import map_peaks
from oddment.results import Rejection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from oddment.artifact import ModelFile
    from oddment.calibration import ThresholdRule
    from oddment.images.files import ImageRef
    from oddment.images.prepare import Prepared
    from oddment.scorer import Scorer

__all__ = ["Recalibrated", "recalibrate", "with_history"]

How = Literal["replace", "add", "threshold"]

_MAPS_SAMPLED, _MAP_VALUES = 256, 4096
# Entries of the history that a model file keeps, the latest ones.
_REMEMBERED = 1_000
# Scores equal to the last bit happen by chance; this share of them, and this many, do not.
_SAME_SHARE, _SAME_COUNT = 0.05, 3


@dataclass(frozen=True, slots=True)
class Recalibrated:
    """What recalibrating gives back.

    Args:
        scorer: the same model with its new calibration.
        scores: float32 (N,) of every usable image, in order.
        used: how many of them calibrate.
        groups: independent groups among the usable images.
        repeated: images left out since they are equal to an earlier one to the last pixel.
        flagged_before: share of the usable images that the old threshold flags.
        rejections: images that could not be used.
        caveats: what weakens the result, in sentences.
    """

    scorer: Scorer
    scores: NDArray[np.float32]
    used: int
    groups: int
    repeated: int
    flagged_before: float
    rejections: tuple[Rejection, ...]
    caveats: tuple[str, ...]


def recalibrate(
    scorer: Scorer,
    refs: Iterable[ImageRef],
    count: int = 0,
    *,
    rule: ThresholdRule | None = None,
    add: bool = False,
    groups: str | None = None,
    note: str = "",
    seed: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    progress: Progress | None = None,
) -> Recalibrated:
    """Return the model with a calibration from new normal images; its weights stay as they are.

    As in fitting, near duplicates and images of one group count as one: where there are groups enough for the rule, one
    image of each calibrates, drawn at random; else all do, and the caveats say what that weakens.

    Args:
        scorer: the model.
        refs: references to normal images that it was not trained on.
        count: how many there are, for the progress bar.
        rule: the threshold rule; the model's own when None.
        add: add to the calibration scores instead of replacing them.
        groups: images of one group count as one; a CSV file or a pattern, as `read_groups` takes it.
        note: why, for the history in the model file.
        seed: fixes which image of a group calibrates.
        max_pixels: larger images are rejected before they are decoded.
        progress: told how far it is.

    Raises:
        DataError: if no image can be used.
        ParameterError: if `groups` is neither a CSV file nor a pattern.
        TooFewImagesError: if there are too few for the rule.
    """
    group_of = read_groups(groups) if groups else None
    taken = _take(scorer, refs, count, max_pixels, progress or Progress())
    if not taken.scores:
        msg = f"none of the {len(taken.rejections):,} files can be used. Give normal images that the model can score."
        raise DataError(msg)
    old = scorer.calibration
    rule = rule or old.rule
    scores, peaks = (np.array(values, dtype=np.float32) for values in (taken.scores, taken.peaks))
    grouping = _group(taken, group_of)
    chosen, n_groups = _choose(grouping, rule, old.n_groups if add else 0, seed=seed)
    calibration = _calibration(old, scores[chosen], peaks[chosen], rule, n_groups, add=add)
    model = replace(scorer.model, calibration=calibration)
    if not add:
        model = replace(model, map_range=_map_range(taken.map_values, calibration.region_level))
    model = with_history(scorer.model, model, "add" if add else "replace", note=note)
    return Recalibrated(
        scorer=scorer.with_model(model),
        scores=scores,
        used=chosen.size,
        groups=int(grouping.max()) + 1,
        repeated=len(taken.digests) - len(set(taken.digests)),
        flagged_before=float(np.mean(scores.astype(np.float64) > old.threshold)),
        rejections=tuple(taken.rejections),
        caveats=tuple(_caveats(scorer.model, taken, scores, calibration, add=add)),
    )


def with_history(old: ModelFile, new: ModelFile, how: How, *, note: str = "") -> ModelFile:
    """Return `new` with an entry more in the list of its calibrations, `info["calibrations"]`, than `old` has.

    Args:
        old: the model before the change; one without a list gets an entry for its own, first calibration.
        new: the model after it.
        how: "replace" or "add" calibration scores, or "threshold" where only the rule changed.
        note: why.
    """
    entries = old.info.get("calibrations")
    if not isinstance(entries, list) or not entries:
        entries = [_entry(old.calibration, str(old.info.get("created", "")), "fit", "")]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entries = [*entries, _entry(new.calibration, now, how, note)]
    return replace(new, info={**new.info, "calibrations": entries[-_REMEMBERED:]})


def _entry(calibration: Calibration, when: str, how: str, note: str) -> dict[str, Any]:
    scores = calibration.scores
    return {
        "when": when,
        "how": how,
        "images": int(scores.size),
        **calibration.as_dict(),
        "median": float(np.median(scores)) if scores.size else None,
        "largest": float(scores[-1]) if scores.size else None,
        "note": note,
    }


# --- one pass over the images


@dataclass(slots=True)
class _Taken:
    """What one pass over the images leaves behind; of exact duplicates the first alone."""

    paths: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    peaks: list[float] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    hashes: list[NDArray[np.uint64]] = field(default_factory=list)
    map_values: list[NDArray[np.float32]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Usable:
    path: str
    prepared: Prepared
    digest: bytes
    thumb: NDArray[Any]


def _take(scorer: Scorer, refs: Iterable[ImageRef], count: int, max_pixels: int, progress: Progress) -> _Taken:
    taken, seen = _Taken(), set[bytes]()
    step = 1
    progress.start("Scoring normal images", count or None)
    for done, batch in _batches(scorer, refs, max_pixels, taken):
        # Of images that are equal to the last pixel, the first.
        fresh = list({item.digest: item for item in reversed(batch) if item.digest not in seen}.values())[::-1]
        seen.update(item.digest for item in batch)
        taken.digests += [item.digest for item in batch]
        judged = scorer.score_prepared([item.prepared for item in fresh])
        peaks = map_peaks([scored.anomaly_map for scored in judged]).tolist()
        for item, scored, peak in zip(fresh, judged, peaks, strict=True):
            if not math.isfinite(scored.anomaly_score):
                taken.rejections.append(Rejection(path=item.path, reason="the model gave no finite score"))
                continue
            if len(taken.scores) % step == 0:
                values = scored.anomaly_map.ravel()
                taken.map_values.append(values[:: max(1, values.size // _MAP_VALUES)].copy())
            if len(taken.map_values) == 2 * _MAPS_SAMPLED:
                # However many images there are, an even sample of them is kept.
                step, taken.map_values = 2 * step, taken.map_values[::2]
            taken.paths.append(item.path)
            taken.scores.append(scored.anomaly_score)
            taken.peaks.append(peak)
            taken.hashes.append(perceptual_hashes(item.thumb[None]))
        progress.update(done, f"{len(taken.rejections):,} rejected" if taken.rejections else "")
    progress.finish()
    return taken


def _batches(
    scorer: Scorer, refs: Iterable[ImageRef], max_pixels: int, taken: _Taken
) -> Iterator[tuple[int, list[_Usable]]]:
    """Yield images seen so far, and usable ones of about one scoring batch; rejected ones go into `taken`."""
    preparation = scorer.model.preparation

    def work(ref: ImageRef) -> _Usable | ImageError:
        try:
            decoded = decode(ref.payload, max_pixels=max_pixels, at_least=preparation.at_least)
            return _Usable(ref.path, preparation.prepare(decoded), digest(decoded.pixels), gray_thumb(decoded))
        except ImageError as error:
            return error

    batch: list[_Usable] = []
    done = 0
    for done, (ref, item) in enumerate(in_order(refs, work), start=1):
        if isinstance(item, ImageError):
            taken.rejections.append(Rejection(path=ref.path, reason=str(item)))
            continue
        batch.append(item)
        if sum(len(usable.prepared.pixels) for usable in batch) >= scorer.model.scoring_batch:
            yield done, batch
            batch = []
    if batch:
        yield done, batch


# --- choosing


def _group(taken: _Taken, group_of: Callable[[str], str | None] | None) -> NDArray[np.int64]:
    near = group_near_duplicates(np.concatenate(taken.hashes))
    return join_groups(near, group_numbers(taken.paths, group_of)[0]) if group_of else near


def _choose(
    grouping: NDArray[np.int64], rule: ThresholdRule, before: int, *, seed: int
) -> tuple[NDArray[np.int64], int]:
    """Indices of the images that calibrate, and the number of independent groups with those from before."""
    n_groups = before + int(grouping.max()) + 1
    needed = images_needed(rule.value) if rule.kind == "target_fpr" else 1
    if n_groups < needed:
        return np.arange(grouping.size), n_groups
    shuffled = np.random.default_rng(seed).permutation(grouping.size)
    _, first = np.unique(grouping[shuffled], return_index=True)
    return np.sort(shuffled[first]), n_groups


def _calibration(
    old: Calibration,
    scores: NDArray[np.float32],
    peaks: NDArray[np.float32],
    rule: ThresholdRule,
    n_groups: int,
    *,
    add: bool,
) -> Calibration:
    if add:
        scores, peaks = np.concatenate([old.scores, scores]), np.concatenate([old.peaks, peaks])
    try:
        return Calibration.of(scores, old.training_scores, peaks, rule, n_groups)
    except TooFewImagesError as error:
        more = "" if add else " With --add the calibration images that are there count as well."
        msg = f"{error}{more}"
        raise TooFewImagesError(msg) from error


def _map_range(values: list[NDArray[np.float32]], level: float) -> tuple[float, float]:
    """Where the heat map's colours start and end, as fitting has it: most of what is normal has none."""
    low = float(np.quantile(np.concatenate(values), 0.9))
    return low, low + 1.5 * (max(level, low + 1e-6) - low)


def _caveats(
    model: ModelFile, taken: _Taken, scores: NDArray[np.float32], calibration: Calibration, *, add: bool
) -> Iterator[str]:
    data = model.info.get("data")
    fitted = data.get("fingerprint") if isinstance(data, dict) else None
    if hashlib.sha256(b"".join(taken.digests)).hexdigest() == fitted:
        yield (
            "These are the very images that the model was fitted to: scores of images that were trained on lie below "
            "those of new ones, and the threshold is too low. Calibrate with others."
        )
    elif _same(scores, model.calibration.training_scores):
        yield (
            f"{_same(scores, model.calibration.training_scores):,} of {scores.size:,} images score, to the last bit, "
            "like images that were trained on. If they are the same, their scores lie below those of new ones, and the "
            "threshold is too low. Calibrate with others."
        )
    if add and _same(scores, model.calibration.scores):
        yield (
            f"{_same(scores, model.calibration.scores):,} of the {scores.size:,} images score, to the last bit, like "
            "calibration images that are there. If they are the same, they now count twice."
        )
    rule = calibration.rule
    if rule.kind == "fixed" or rule.over == "training":
        yield f"The rule ({rule.label}) does not look at calibration scores: the threshold stays, p-values are new."
    caveat = calibration.caveat()
    if caveat:
        yield caveat


def _same(scores: NDArray[np.float32], known: NDArray[np.float32]) -> int:
    """How many scores equal a known one to the last bit; 0 where that may be chance."""
    count = int(np.isin(scores, known).sum())
    return count if count >= max(_SAME_COUNT, _SAME_SHARE * scores.size) else 0
