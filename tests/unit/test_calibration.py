"""Thresholds and p-values against their definitions, to the last image."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from oddment.calibration import (
    Calibration,
    ThresholdRule,
    conformal_threshold,
    images_needed,
    p_values,
    smallest_target_fpr,
)
from oddment.errors import ParameterError, TooFewImagesError

NO_SCORES = np.empty(0, np.float32)
numbers = st.floats(-1000, 1000, width=32)
# Few distinct values: most scores are tied.
tied = st.integers(0, 4).map(float)
some_scores = st.lists(numbers, min_size=1, max_size=60) | st.lists(tied, min_size=1, max_size=60)
rates = st.sampled_from([0.01, 0.05, 0.1, 1 / 3, 0.25, 0.5, 0.9, 0.999, 0.02, 1 / 7, 0.3, 0.7]) | st.floats(0.02, 0.99)


def exact_rate(rate: float) -> Fraction:
    """The rate that was meant: the simplest fraction within binary rounding of it."""
    return Fraction(rate).limit_denominator(10**7)


@pytest.mark.parametrize(
    ("rate", "needed"),
    [
        (0.5, 1), (0.34, 2), (1 / 3, 2), (0.25, 3), (0.2, 4), (0.15, 6), (0.1, 9), (0.05, 19), (0.03, 33), (0.02, 49),
        (0.01, 99), (1 / 7, 6), (1 / 49, 48), (0.001, 999), (0.0001, 9999), (0.00001, 99999), (0.9, 1), (0.999, 1),
        (0.07, 14), (0.06, 16), (1e-6, 999_999),
    ],
)  # fmt: skip
def test_images_needed_by_hand(rate: float, needed: int) -> None:
    """The number of images needed is exact, without binary rounding adding one."""
    assert images_needed(rate) == needed


@given(n=st.integers(1, 200_000))
def test_images_needed_inverts_the_smallest_rate(n: int) -> None:
    """A rate of exactly 1 / (n + 1) needs exactly n images, and any lower one more."""
    assert images_needed(smallest_target_fpr(n)) == n
    assert images_needed(smallest_target_fpr(n) * (1 - 1e-4)) > n


@given(rate=rates)
def test_images_needed_is_the_least(rate: float) -> None:
    """It is the least n with rate ≥ 1 / (n + 1), and at least 1 image is needed for any rate."""
    meant, n = exact_rate(rate), images_needed(rate)
    assert n >= 1
    assert meant >= Fraction(1, n + 1)
    assert n == 1 or meant < Fraction(1, n)


def brute_force_threshold(scores: list[float], rate: float) -> float:
    """The smallest of the scores above which at most rate·(n + 1) - 1 of them lie, counting the new image as one."""
    ordered = sorted(np.asarray(scores, np.float32).tolist())
    allowed = exact_rate(rate) * (len(scores) + 1)
    # Strictly above the k-th smallest lie, of n + 1 exchangeable scores, at most n + 1 - k.
    return next(value for k, value in enumerate(ordered, start=1) if len(scores) + 1 - k <= allowed)


@given(scores=some_scores, rate=rates)
def test_threshold_is_the_least_that_keeps_the_promise(scores: list[float], rate: float) -> None:
    """The threshold equals a brute-force search for the lowest score that keeps the promise, ties included."""
    assume(len(scores) >= images_needed(rate))
    assert conformal_threshold(scores, rate) == brute_force_threshold(scores, rate)


@given(scores=some_scores, rate=rates)
def test_promise_holds_leaving_one_out(scores: list[float], rate: float) -> None:
    """Of n + 1 scores, each once the new one, at most rate·(n + 1) lie above the threshold of the others."""
    assume(len(scores) - 1 >= images_needed(rate))
    values = np.asarray(scores, np.float32)
    flagged = sum(float(values[i]) > conformal_threshold(np.delete(values, i), rate) for i in range(len(values)))
    assert flagged <= exact_rate(rate) * len(values)


@given(scores=some_scores, rate=rates, news=st.lists(numbers | tied, min_size=1))
def test_verdict_and_p_value_agree(scores: list[float], rate: float, news: list[float]) -> None:
    """A score above the threshold has a p-value of at most the rate, always; without ties also the other way round."""
    assume(len(scores) >= images_needed(rate))
    threshold = conformal_threshold(scores, rate)
    new = np.asarray([*news, *scores], np.float32)
    above = new.astype(np.float64) > threshold
    n = len(scores)
    # Counted, not divided: 0.1 as a float is a little more than a tenth.
    counts = np.rint(p_values(new, scores) * (n + 1)).astype(int)
    small = np.array([int(count) <= exact_rate(rate) * (n + 1) for count in counts])
    assert not (above & ~small).any()
    tied_with = np.isin(new, np.asarray(scores, np.float32))
    assert np.array_equal(above[~tied_with], small[~tied_with])
    if len(set(np.asarray(scores, np.float32).tolist())) == n:
        assert np.array_equal(above, small)


@given(scores=some_scores, news=st.lists(numbers | tied, min_size=1))
def test_p_values_count(scores: list[float], news: list[float]) -> None:
    """A p-value is (1 + number of calibration scores at least as high) / (n + 1)."""
    held, new = np.asarray(scores, np.float32), np.asarray(news, np.float32)
    expected = [(1 + int((held >= value).sum())) / (len(held) + 1) for value in new]
    assert p_values(new, held).tolist() == expected


@given(scores=some_scores, low=rates, high=rates)
def test_higher_rates_never_flag_fewer(scores: list[float], low: float, high: float) -> None:
    """A higher rate gives a threshold that is no higher, and a lower threshold never flags fewer."""
    low, high = sorted([low, high])
    assume(len(scores) >= images_needed(low))
    calibration = Calibration.of(np.asarray(scores, np.float32), NO_SCORES, NO_SCORES, ThresholdRule("target_fpr", low))
    other = calibration.with_rule(ThresholdRule("target_fpr", high))
    assert other.threshold <= calibration.threshold
    assert other.flagged_share >= calibration.flagged_share
    assert calibration.flagged_share <= low


def test_order_does_not_matter() -> None:
    """Thresholds and p-values depend on the set of scores, not on their order."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=100).astype(np.float32)
    mixed = rng.permutation(scores)
    assert conformal_threshold(scores, 0.05) == conformal_threshold(mixed, 0.05)
    assert np.array_equal(p_values(scores, scores), p_values(scores, mixed))


def test_too_few_names_needed_and_got() -> None:
    """The refusal names what is needed, what there is, and a rate that would do; that rate does."""
    with pytest.raises(TooFewImagesError) as caught:
        conformal_threshold(np.arange(40), 0.01)
    assert str(caught.value) == (
        "target_fpr=0.01 needs at least 99 calibration images (1/target_fpr - 1); got 40. "
        "Add images or raise target_fpr to 0.025."
    )
    assert conformal_threshold(np.arange(40), 0.025) == 39


@given(n=st.integers(1, 20_000))
def test_advised_rate_suffices(n: int) -> None:
    """The rate that the refusal advises is enough for the images there are."""
    with pytest.raises(TooFewImagesError) as caught:
        conformal_threshold(np.zeros(n), 0.99 / (n + 1))
    advised = float(str(caught.value).rpartition(" to ")[2].removesuffix("."))
    assert images_needed(advised) <= n
    assert advised <= 1.2 / (n + 1)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf])
@pytest.mark.parametrize("kind", ["target_fpr", "quantile"])
def test_rate_out_of_range(kind: Any, rate: float) -> None:
    """A rate or quantile outside (0, 1) is refused with its name and value."""
    with pytest.raises(ParameterError, match=f"{kind} must lie strictly between 0 and 1; got {rate:g}"):
        ThresholdRule(kind, rate)


@pytest.mark.parametrize(("kind", "name"), [("fixed", "threshold"), ("max_normal", "margin")])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_value_not_finite(kind: Any, name: str, value: float) -> None:
    """A threshold or margin that is not finite is refused by name."""
    with pytest.raises(ParameterError, match=f"{name} must be a finite number; got {value}"):
        ThresholdRule(kind, value)


def test_choosing_a_rule() -> None:
    """Exactly one rule is chosen; none asked for means 1 % false alarms, promised."""
    assert ThresholdRule.choose() == ThresholdRule("target_fpr", 0.01, "calibration")
    assert ThresholdRule.choose(quantile=0.9) == ThresholdRule("quantile", 0.9)
    assert ThresholdRule.choose(max_normal=True, margin=2.0) == ThresholdRule("max_normal", 2.0, "training")
    assert ThresholdRule.choose(max_normal=True, over="calibration").over == "calibration"
    assert ThresholdRule.choose(threshold=0.0) == ThresholdRule("fixed", 0.0)
    with pytest.raises(ParameterError, match=r"not 2 \(target_fpr, fixed\)"):
        ThresholdRule.choose(target_fpr=0.1, threshold=0.0)
    with pytest.raises(ParameterError, match="margin=1 belongs to max_normal"):
        ThresholdRule.choose(quantile=0.9, margin=1.0)
    with pytest.raises(ParameterError, match="over=training applies to"):
        ThresholdRule.choose(target_fpr=0.1, over="training")


@pytest.mark.parametrize("field", ["kind", "over"])
def test_unknown_rule(field: str) -> None:
    """A kind of rule or set of scores that does not exist is refused."""
    with pytest.raises(ParameterError, match="must be"):
        ThresholdRule(**{field: "magic"})  # type: ignore[arg-type]


def test_other_rules() -> None:
    """Quantile, largest score and fixed thresholds are what their names say."""
    held, trained = np.arange(1, 101, dtype=np.float32), np.arange(0, 50, dtype=np.float32)
    calibration = Calibration.of(held, trained, held, ThresholdRule("fixed", 7.0))
    assert calibration.threshold == 7
    assert calibration.with_rule(ThresholdRule("quantile", 0.5)).threshold == 50.5
    assert calibration.with_rule(ThresholdRule("quantile", 0.5, "training")).threshold == 24.5
    assert calibration.with_rule(ThresholdRule("max_normal", 2.0, "training")).threshold == 51
    assert calibration.with_rule(ThresholdRule("max_normal", 0.0)).threshold == 100
    assert calibration.target_fpr is None
    with pytest.raises(TooFewImagesError, match="quantile needs calibration scores and the model holds none"):
        Calibration.of(NO_SCORES, trained, NO_SCORES, ThresholdRule("quantile", 0.5))


def test_caveat() -> None:
    """Groups too few for the rate give a caveat that names both numbers and the rate that does hold."""
    scores = np.arange(100, dtype=np.float32)
    rule = ThresholdRule("target_fpr", 0.01)
    assert Calibration.of(scores, scores, scores, rule).caveat() is None
    assert Calibration.of(scores, scores, scores, rule, 99).caveat() is None
    caveat = Calibration.of(scores, scores, scores, rule, 20).caveat()
    assert caveat is not None
    assert "100 calibration images come from only 20 independent groups" in caveat
    assert "holds down to 0.048" in caveat
    assert Calibration.of(scores, scores, scores, ThresholdRule("fixed", 1.0), 2).caveat() is None


@given(peaks=st.lists(numbers, min_size=1, max_size=300))
def test_region_level(peaks: list[float]) -> None:
    """At most one in a hundred calibration peaks lies above the level where regions begin, and it is one of them."""
    values = np.asarray(peaks, np.float32)
    level = Calibration.of(values, values, values, ThresholdRule("fixed", 0.0)).region_level
    assert np.mean(values > level) <= 0.01
    assert level in values


def test_no_peaks_no_regions() -> None:
    """Without peaks no pixel belongs to a region, and no share is flagged."""
    empty = Calibration.of(NO_SCORES, NO_SCORES, NO_SCORES, ThresholdRule("fixed", 0.0))
    assert empty.region_level == math.inf
    assert math.isnan(empty.flagged_share)


@given(scores=some_scores, kind=st.sampled_from(["fixed", "quantile", "max_normal"]))
def test_dict_round_trip(scores: list[float], kind: Any) -> None:
    """A calibration survives being written as a dictionary and arrays."""
    values = np.asarray(scores, np.float32)
    calibration = Calibration.of(values, values[:2], values, ThresholdRule(kind, 0.5))
    names = ("scores", "training_scores", "peaks")
    again = Calibration.from_dict(calibration.as_dict(), {name: getattr(calibration, name) for name in names})
    assert again.as_dict() == calibration.as_dict()
    assert np.array_equal(again.p_values(scores), calibration.p_values(scores))
