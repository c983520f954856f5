"""Which images train, which stop the training, and which calibrate. The three never share an image or a group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.calibration import ThresholdRule, images_needed
from oddment.errors import TooFewImagesError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST_IMAGES", "Split", "all_training", "split_images"]

LEAST_IMAGES = 5
_CALIBRATION_SHARE = 0.2
_VALIDATION_SHARE = 0.1
_MOST_CALIBRATION = 10_000
_MOST_VALIDATION = 2_000
# A group larger than this share of all images always trains: held out, it would speak for one object only.
_LARGE_GROUP = 0.1


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of the images in each part.

    Args:
        training: int64, images that the weights descend on.
        validation: int64, images that early stopping watches.
        calibration: int64, images that set the threshold.
        n_groups: independent groups among the calibration images; their number when each stands alone.
        normal: int64, images whose scores are the training scores; those of training and validation when None.
    """

    training: NDArray[np.int64]
    validation: NDArray[np.int64]
    calibration: NDArray[np.int64]
    n_groups: int
    normal: NDArray[np.int64] | None = None

    @property
    def scored_as_training(self) -> NDArray[np.int64]:
        """The images whose scores are the training scores, each once."""
        return np.union1d(self.training, self.validation) if self.normal is None else self.normal


def all_training(count: int) -> Split:
    """Return a split that holds nothing out: every image trains, a sample of them is watched, none calibrates.

    Raises:
        TooFewImagesError: if there are too few images to train on.
    """
    _check_enough(count, 0, ThresholdRule("fixed", 0.0))
    everything = np.arange(count, dtype=np.int64)
    return Split(everything, everything[:: -(-count // _MOST_VALIDATION)], everything[:0], 0)


def split_images(groups: NDArray[np.int64], rule: ThresholdRule, *, seed: int) -> Split:
    """Split images by whole groups.

    A conformal promise is made for images of new groups, so one image of each calibration group calibrates, as long as
    there are groups enough for the rate. Where there are not, all images of the held-out groups do, and
    `Calibration.caveat` says what that weakens.

    Args:
        groups: int64 (N,), the group of each image.
        rule: the threshold rule; a conformal one decides how many calibration images are needed.
        seed: fixes the split.

    Raises:
        TooFewImagesError: if there are too few images for the rule.

    Source:
        Subsampling one member a group: Dunn, Wasserman and Ramdas (2023), section 3.
    """
    needed = images_needed(rule.value) if rule.kind == "target_fpr" else 1
    _check_enough(len(groups), needed, rule)
    rng = np.random.default_rng(seed)
    members = _shuffled_groups(groups, rng)
    held = [group for group in members if group.size <= max(1, _LARGE_GROUP * len(groups))]
    wanted = max(needed, min(round(_CALIBRATION_SHARE * len(held)), _MOST_CALIBRATION))
    if wanted <= len(members) / 2 and len(held) > wanted:
        chosen, rest = held[:wanted], held[wanted:]
        calibration = np.array([int(group[0]) for group in chosen], dtype=np.int64)
    else:
        wanted = max(needed, min(round(_CALIBRATION_SHARE * len(groups)), _MOST_CALIBRATION))
        chosen, rest = _take(held, wanted)
        calibration = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
        _check_held(calibration.size, needed, rule)
    share = min(max(1, round(_VALIDATION_SHARE * len(groups))), _MOST_VALIDATION)
    watching, rest = _take(rest, share)
    # With hardly any group left, the smallest one still validates: early stopping needs an image it has not seen.
    validation = np.concatenate(watching) if watching else np.empty(0, np.int64)
    used = np.zeros(len(groups), dtype=bool)
    used[validation] = True
    for group in chosen:
        used[group] = True
    training = np.flatnonzero(~used)
    if not training.size or not validation.size:
        msg = (
            f"{len(groups):,} images in {len(members):,} independent groups cannot be split into training, validation "
            "and calibration. Add images of other objects, or check --groups."
        )
        raise TooFewImagesError(msg)
    return Split(training, np.sort(validation), np.sort(calibration), len(chosen))


def _shuffled_groups(groups: NDArray[np.int64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The members of each group, groups in random order and members in random order."""
    shuffled = rng.permutation(len(groups))
    order = shuffled[np.argsort(groups[shuffled], kind="stable")]
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [members[index] for index in rng.permutation(len(members))]


def _take(groups: list[NDArray[np.int64]], wanted: int) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """Take groups from the front until they hold `wanted` images; the rest comes back."""
    total = 0
    for index, group in enumerate(groups):
        if total >= wanted or index == len(groups) - 1:
            return groups[:index], groups[index:]
        total += group.size
    return groups, []


def _check_enough(count: int, needed: int, rule: ThresholdRule) -> None:
    if rule.kind == "target_fpr" and count < 2 * needed:
        reachable = 1 / (count // 2 + 1) if count >= LEAST_IMAGES else math.nan
        other = f", or raise it to {math.ceil(reachable * 100) / 100:g}" if reachable < 0.5 else ""
        msg = (
            f"{count:,} usable images are too few for target_fpr={rule.value:g}: it needs at least {2 * needed:,} "
            f"({needed:,} held out to calibrate, as many to train on). Add {2 * needed - count:,} images{other}, "
            "or give up the promise with --max-normal or --quantile."
        )
        raise TooFewImagesError(msg)
    if count < LEAST_IMAGES:
        msg = f"{count:,} usable images are too few to train on; at least {LEAST_IMAGES} are needed. Add images."
        raise TooFewImagesError(msg)


def _check_held(count: int, needed: int, rule: ThresholdRule) -> None:
    if rule.kind == "target_fpr" and count < needed:
        msg = (
            f"only {count:,} images can be held out to calibrate, since the others belong to a few large groups; "
            f"target_fpr={rule.value:g} needs {needed:,}. Add images of other objects, raise target_fpr, or "
            "check --groups."
        )
        raise TooFewImagesError(msg)
