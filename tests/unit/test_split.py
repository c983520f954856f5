"""Splitting by whole groups: parts never share an image or a group, and a conformal rule gets what it needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oddment.calibration import Calibration, ThresholdRule, images_needed
from oddment.errors import TooFewImagesError
from oddment.training.split import LEAST_IMAGES, Split, split_images

FIXED = ThresholdRule("fixed", 0.0)
sizes = st.lists(st.integers(1, 8), min_size=5, max_size=80)
rules = st.sampled_from([0.01, 0.05, 0.1, 0.25, 0.5]).map(lambda rate: ThresholdRule("target_fpr", rate)) | st.just(
    FIXED
)


def grouped(sizes: list[int], seed: int = 0) -> np.ndarray:
    """Group numbers of the given group sizes, in mixed order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int64)


def split_or_skip(groups: np.ndarray, rule: ThresholdRule, seed: int) -> Split:
    try:
        return split_images(groups, rule, seed=seed)
    except TooFewImagesError:
        assume(False)
        raise


def parts_of(split: Split) -> list[np.ndarray]:
    return [split.training, split.validation, split.calibration]


@given(sizes=sizes, rule=rules, seed=st.integers(0, 99))
def test_parts_share_nothing(sizes: list[int], rule: ThresholdRule, seed: int) -> None:
    """No image and no group is in two parts, each part is ascending, and none is empty."""
    groups = grouped(sizes, seed)
    split = split_or_skip(groups, rule, seed)
    parts = parts_of(split)
    images = np.concatenate(parts)
    assert len(np.unique(images)) == len(images)
    assert all(part.size and (np.diff(part) > 0).all() and part.dtype == np.int64 for part in parts)
    owners = [set(groups[part].tolist()) for part in parts]
    assert sum(map(len, owners)) == len(set.union(*owners))


@given(sizes=sizes, rule=rules, seed=st.integers(0, 99))
def test_groups_are_not_torn(sizes: list[int], rule: ThresholdRule, seed: int) -> None:
    """Groups train or validate whole; what is left out belongs to calibration groups, of which one image calibrates."""
    groups = grouped(sizes, seed)
    split = split_or_skip(groups, rule, seed)
    for part in (split.training, split.validation):
        assert np.isin(np.flatnonzero(np.isin(groups, groups[part])), part).all()
    left_out = np.setdiff1d(np.arange(len(groups)), np.concatenate(parts_of(split)))
    assert np.isin(groups[left_out], groups[split.calibration]).all()
    assert split.n_groups == len(set(groups[split.calibration].tolist()))
    torn = left_out.size > 0
    assert not torn or split.n_groups == split.calibration.size


@given(sizes=sizes, rule=rules, seed=st.integers(0, 99))
def test_enough_to_calibrate(sizes: list[int], rule: ThresholdRule, seed: int) -> None:
    """A conformal rule gets the images it needs, or the split is refused."""
    split = split_or_skip(grouped(sizes, seed), rule, seed)
    if rule.kind == "target_fpr":
        assert split.calibration.size >= images_needed(rule.value)


def test_seed_fixes_the_split() -> None:
    """The same seed gives the same split, another seed another."""
    groups = grouped([1, 2, 3] * 40)
    rule = ThresholdRule("target_fpr", 0.05)
    one, same, other = (split_images(groups, rule, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(parts_of(one), parts_of(same), strict=True))
    assert not np.array_equal(one.calibration, other.calibration)


def test_shares() -> None:
    """Of images that stand alone a fifth calibrates and a tenth validates, up to fixed numbers."""
    split = split_images(np.arange(1000), ThresholdRule("target_fpr", 0.01), seed=0)
    assert [part.size for part in parts_of(split)] == [700, 100, 200]
    assert split.n_groups == 200
    large = split_images(np.arange(100_000), ThresholdRule("target_fpr", 0.01), seed=0)
    assert [part.size for part in parts_of(large)] == [88_000, 2_000, 10_000]


def test_rate_raises_the_share() -> None:
    """A low rate takes more than the usual fifth to calibrate, up to half of the images."""
    split = split_images(np.arange(200), ThresholdRule("target_fpr", 0.01), seed=0)
    assert split.calibration.size == 99


def test_one_member_a_group() -> None:
    """With groups enough, one image of each calibration group calibrates and its siblings are left out."""
    groups = np.repeat(np.arange(300), 4)
    split = split_images(groups, ThresholdRule("target_fpr", 0.02), seed=0)
    assert split.calibration.size == split.n_groups == 60
    assert len(set(groups[split.calibration].tolist())) == 60
    assert len(groups) - sum(part.size for part in parts_of(split)) == 3 * 60


def test_member_is_drawn_at_random() -> None:
    """The image that speaks for its group is not always the first of it."""
    groups = np.repeat(np.arange(300), 4)
    split = split_images(groups, ThresholdRule("target_fpr", 0.02), seed=0)
    assert set((split.calibration % 4).tolist()) == {0, 1, 2, 3}


def test_too_few_groups_fall_back_to_images() -> None:
    """With too few groups for the rate all images of held-out groups calibrate, and the calibration says so."""
    groups = np.repeat(np.arange(30), 20)
    rule = ThresholdRule("target_fpr", 0.01)
    split = split_images(groups, rule, seed=0)
    assert split.calibration.size >= 99
    assert split.n_groups == split.calibration.size // 20
    scores = np.arange(split.calibration.size, dtype=np.float32)
    caveat = Calibration.of(scores, scores, scores, rule, split.n_groups).caveat()
    assert caveat is not None
    assert f"only {split.n_groups} independent groups" in caveat


@pytest.mark.parametrize("seed", range(5))
def test_very_large_group_trains(seed: int) -> None:
    """A group of more than a tenth of all images always trains, in either way of calibrating."""
    singles = np.concatenate([np.zeros(100), np.arange(1, 401)]).astype(np.int64)
    families = np.concatenate([np.zeros(100), np.repeat(np.arange(1, 9), 20)]).astype(np.int64)
    for groups, rate in ((singles, 0.05), (families, 0.05)):
        split = split_images(groups, ThresholdRule("target_fpr", rate), seed=seed)
        assert not (groups[split.calibration] == 0).any()


@pytest.mark.parametrize(("count", "rate", "reachable"), [(197, 0.01, 0.02), (40, 0.02, 0.05), (5, 0.1, 0.34)])
def test_too_few_images(count: int, rate: float, reachable: float) -> None:
    """The refusal names how many there are, are needed and are missing, and a rate that would do; that rate does."""
    with pytest.raises(TooFewImagesError) as caught:
        split_images(np.arange(count), ThresholdRule("target_fpr", rate), seed=0)
    needed = images_needed(rate)
    assert f"{count} usable images are too few for target_fpr={rate:g}" in str(caught.value)
    assert f"at least {2 * needed} ({needed} held out" in str(caught.value)
    assert f"Add {2 * needed - count} images, or raise it to {reachable:g}" in str(caught.value)
    split_images(np.arange(count), ThresholdRule("target_fpr", reachable), seed=0)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.1, 1 / 3])
def test_twice_the_needed_is_enough(rate: float) -> None:
    """Exactly twice the calibration images needed are accepted, one fewer is not."""
    rule, needed = ThresholdRule("target_fpr", rate), images_needed(rate)
    count = max(2 * needed, LEAST_IMAGES)
    assert split_images(np.arange(count), rule, seed=0).calibration.size >= needed
    with pytest.raises(TooFewImagesError):
        split_images(np.arange(count - 1), rule, seed=0)


def test_least_images() -> None:
    """Any rule needs five images."""
    assert split_images(np.arange(LEAST_IMAGES), FIXED, seed=0).calibration.size == 1
    with pytest.raises(TooFewImagesError, match="4 usable images are too few to train on; at least 5"):
        split_images(np.arange(LEAST_IMAGES - 1), FIXED, seed=0)


def test_one_group_cannot_be_split() -> None:
    """Images of one object alone are refused, with what to look at."""
    with pytest.raises(TooFewImagesError, match=r"only 0 images can be held out .* check --groups"):
        split_images(np.zeros(500, np.int64), ThresholdRule("target_fpr", 0.01), seed=0)
    with pytest.raises(TooFewImagesError, match=r"500 images in 1 independent groups .* check --groups"):
        split_images(np.zeros(500, np.int64), FIXED, seed=0)


def test_few_large_groups() -> None:
    """Where all groups are too large to be held out, the refusal says how many images could be."""
    groups = np.repeat(np.arange(4), 100)
    with pytest.raises(TooFewImagesError, match="only 0 images can be held out to calibrate"):
        split_images(groups, ThresholdRule("target_fpr", 0.05), seed=0)
