"""Figures against brute force and scikit-learn."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from oddment.errors import ParameterError
from oddment.metrics import Interval, Outcome, PixelTally, auroc, average_precision, best_f1, rate, resample
from oddment.metrics.bootstrap import _Ranking, percentiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scores = tuple["NDArray[np.float64]", "NDArray[np.bool_]"]


def _scores(seed: int, *, count: int = 80, levels: int | None = None) -> Scores:
    """Overlapping scores, with ties where `levels` is given."""
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    truth[:2] = [True, False]
    values = rng.normal(truth * 1.0, 1.0)
    return (np.round(values * levels) / levels if levels else values), truth


class TestRanking:
    """Figures before any threshold."""

    @pytest.mark.parametrize("levels", [None, 1, 3])
    def test_auroc_is_the_share_of_pairs(self, levels: int | None) -> None:
        """AUROC is the share of pairs in which the anomaly scores higher, ties counted half."""
        scores, truth = _scores(1, levels=levels)
        pairs = scores[truth][:, None] - scores[~truth][None, :]
        assert auroc(scores, truth) == pytest.approx(np.mean((pairs > 0) + 0.5 * (pairs == 0)))

    def test_average_precision_by_hand(self) -> None:
        """Anomalies at ranks 1 and 3 of 4 have precisions 1 and 2/3."""
        assert average_precision([4, 3, 2, 1], [True, False, True, False]) == pytest.approx((1 + 2 / 3) / 2)

    @pytest.mark.parametrize("levels", [None, 2])
    def test_best_f1_by_trying_every_threshold(self, levels: int | None) -> None:
        """The best F1 is the largest that any cut gives, and its threshold gives it with a strict comparison."""
        scores, truth = _scores(2, levels=levels)
        tried = [f1_score(truth, scores > cut) for cut in [scores.min() - 1, *np.unique(scores)[:-1]]]
        value, threshold = best_f1(scores, truth)
        assert value == pytest.approx(max(tried))
        assert f1_score(truth, scores > threshold) == pytest.approx(value)

    def test_best_f1_of_neighbouring_floats(self) -> None:
        """A threshold between two floats with none between them still parts them."""
        high = np.nextafter(1.0, 2.0)
        value, threshold = best_f1([1.0, high], [False, True])
        assert value == 1
        assert 1.0 <= threshold < high

    @pytest.mark.parametrize(
        ("scores", "truth", "message"),
        [
            ([1.0], [True, False], "one each"),
            ([1.0, math.nan], [True, False], "not finite"),
            ([1.0, 2.0], [True, True], "no normal image"),
            ([1.0, 2.0], [False, False], "no anomalous image"),
        ],
    )
    def test_mistakes_are_named(self, scores: list[float], truth: list[bool], message: str) -> None:
        """A ranking that is not defined says why."""
        with pytest.raises(ParameterError, match=message):
            auroc(scores, truth)


class TestRates:
    """Figures at a threshold."""

    @pytest.mark.parametrize(
        ("hits", "total", "low", "high"),
        [(0, 100, 0.0, 0.036217), (5, 10, 0.187086, 0.812914), (10, 10, 0.691503, 1.0), (1, 50, 0.000506, 0.106469)],
    )
    def test_clopper_pearson_golden_values(self, hits: int, total: int, low: float, high: float) -> None:
        """Intervals agree with published Clopper–Pearson tables."""
        interval = rate(hits, total)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=2e-6)
        assert interval.value == hits / total

    def test_a_rate_of_nothing_is_undefined(self) -> None:
        """No image gives no rate, shown as a dash and as null."""
        assert str(rate(0, 0)) == "–"
        assert rate(0, 0).as_dict() == {"value": None, "low": None, "high": None}

    def test_outcome_counts_strictly_above(self) -> None:
        """A score equal to the threshold is not flagged."""
        outcome = Outcome.at([1.0, 2.0, 2.0, 3.0], [False, True, False, True], 2.0)
        assert outcome == Outcome(1, 0, 1, 2)
        assert (outcome.tpr.value, outcome.fpr.value, outcome.precision.value, outcome.accuracy.value) == (
            0.5, 0.0, 1.0, 0.75,
        )  # fmt: skip
        assert outcome.f1 == pytest.approx(2 / 3)

    def test_f1_of_nothing_is_undefined(self) -> None:
        """Without an anomaly and without a flag there is no F1."""
        assert math.isnan(Outcome(0, 0, 0, 5).f1)


class TestBootstrap:
    """Resamples and what they are resamples of."""

    @pytest.mark.parametrize("levels", [None, 2])
    def test_weighted_statistics_are_those_of_repeated_images(self, levels: int | None) -> None:
        """An image of weight three counts as three images, for all statistics, ties included."""
        scores, truth = _scores(3, levels=levels)
        weights = np.random.default_rng(0).integers(0, 4, len(scores))
        threshold = float(np.median(scores))
        area, precision, f1 = _Ranking.of(scores, truth, threshold).statistics(weights.astype(float))
        many, kinds = np.repeat(scores, weights), np.repeat(truth, weights)
        assert area == pytest.approx(roc_auc_score(kinds, many))
        assert precision == pytest.approx(average_precision_score(kinds, many))
        assert f1 == pytest.approx(f1_score(kinds, many > threshold))

    def test_a_seed_fixes_the_resamples(self) -> None:
        """The same seed gives the same figures, another seed others."""
        scores, truth = _scores(4)
        first, again, other = (resample(scores, truth, resamples=20, seed=seed).auroc for seed in (1, 1, 2))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)

    def test_kinds_are_drawn_apart(self) -> None:
        """Even a single anomaly is in every resample."""
        drawn = resample([1.0, 2.0, 3.0, 9.0], [False, False, False, True], resamples=50)
        assert np.all(drawn.auroc == 1)

    def test_scores_are_compared_on_the_same_images(self) -> None:
        """Two detectors with the same ranking differ by nothing in every resample."""
        scores, truth = _scores(5)
        drawn = resample(np.stack([scores, np.exp(scores)]), truth, resamples=30)
        assert np.array_equal(drawn.auroc[:, 0], drawn.auroc[:, 1])

    def test_spread_agrees_with_theory(self) -> None:
        """The spread of a resampled AUROC is about what Hanley and McNeil's formula gives."""
        rng = np.random.default_rng(0)
        truth = np.arange(600) >= 300
        scores = rng.normal(truth, 1.0)
        area = auroc(scores, truth)
        first, second = area / (2 - area), 2 * area**2 / (1 + area)
        variance = (area * (1 - area) + 299 * (first - area**2) + 299 * (second - area**2)) / 300**2
        assert resample(scores, truth, resamples=600).auroc.std() == pytest.approx(math.sqrt(variance), rel=0.15)

    def test_groups_widen_the_interval(self) -> None:
        """Five photographs of one thing are one piece of evidence, not five."""
        scores, truth = _scores(6)
        many, kinds, groups = np.repeat(scores, 5), np.repeat(truth, 5), np.repeat(np.arange(len(scores)), 5)
        alone = resample(many, kinds, resamples=300).auroc.std()
        grouped = resample(many, kinds, resamples=300, groups=groups).auroc.std()
        assert grouped == pytest.approx(math.sqrt(5) * alone, rel=0.25)

    def test_groups_of_both_kinds(self) -> None:
        """Resamples that happen to hold one kind alone are left out of the interval."""
        drawn = resample([1.0, 2.0, 3.0, 4.0], [False, True, False, True], groups=[0, 0, 1, 1], resamples=20)
        assert percentiles(0.75, drawn.auroc[:, 0]).low > 0
        assert str(percentiles(0.5, np.array([math.nan]))) == str(Interval(0.5))

    def test_mistakes_are_named(self) -> None:
        """Groups of another length, and no resample, are refused."""
        scores, truth = _scores(7)
        with pytest.raises(ParameterError, match="groups has 3 entries for 80 images"):
            resample(scores, truth, groups=[1, 2, 3])
        with pytest.raises(ParameterError, match="resamples must be at least 1"):
            resample(scores, truth, resamples=0)


def _exact_aupro(maps: list[NDArray[np.float32]], masks: list[NDArray[np.bool_]], limit: float) -> float:
    """AUPRO by trying every value as a threshold."""
    from scipy.ndimage import label

    regions, normal = [], np.concatenate([levels[~mask] for levels, mask in zip(maps, masks, strict=True)])
    for levels, mask in zip(maps, masks, strict=True):
        numbers, count = label(mask, structure=np.ones((3, 3)))
        regions += [levels[numbers == number] for number in range(1, count + 1)]
    cuts = np.unique(np.concatenate([levels.ravel() for levels in maps]))[::-1]
    x = np.array([0.0, *((normal >= cut).mean() for cut in cuts)])
    y = np.array([0.0, *(np.mean([(region >= cut).mean() for region in regions]) for cut in cuts)])
    grid = np.append(x[x < limit], limit)
    return float(np.trapezoid(np.append(y[x < limit], np.interp(limit, x, y)), grid) / limit)


class TestPixels:
    """Anomaly maps against masks."""

    @pytest.fixture
    def pictures(self) -> tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]:
        """Three maps with negative and positive values, and masks with one, two and no regions."""
        rng = np.random.default_rng(0)
        masks = [np.zeros((24, 20), bool) for _ in range(3)]
        masks[0][3:7, 4:9] = True
        masks[1][0:2, 0:2] = masks[1][10:20, 10:18] = True
        maps = [rng.normal(mask * 1.2, 1.0).astype(np.float32) for mask in masks]
        return maps, masks

    def test_figures_agree_with_exact_ones(
        self, pictures: tuple[list[NDArray[np.float32]], list[NDArray[np.bool_]]]
    ) -> None:
        """Bins change neither AUROC, nor average precision, nor AUPRO by more than a thousandth."""
        maps, masks = pictures
        tally = PixelTally()
        for levels, mask in zip(maps, masks, strict=True):
            tally.add(levels, mask if mask.any() else None)
        result = tally.result()
        values, truth = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
        assert result.auroc == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
        assert result.average_precision == pytest.approx(average_precision_score(truth, values), abs=1e-3)
        assert result.aupro == pytest.approx(_exact_aupro(maps, masks, 0.3), abs=1e-3)
        assert (result.n_images, result.n_regions) == (3, 3)

    def test_small_regions_weigh_as_much_as_large_ones(self) -> None:
        """A map that finds the large region and misses the small one finds half of them."""
        mask = np.zeros((40, 40), bool)
        mask[0:20, 0:20] = mask[30:32, 30:32] = True
        levels = np.zeros((40, 40), np.float32)
        levels[0:20, 0:20] = 1
        tally = PixelTally()
        tally.add(levels, mask)
        # The small region appears only with all normal pixels: 0.5 at once, and half of that ramp up to the limit.
        assert tally.result(limit=0.3).aupro == pytest.approx(0.5 + 0.5 * 0.3 / 2)

    def test_touching_corners_are_one_region(self) -> None:
        """Pixels that touch at a corner belong together."""
        tally = PixelTally()
        tally.add(np.zeros((4, 4), np.float32), np.eye(4, dtype=bool))
        assert tally.n_regions == 1

    def test_maps_are_brought_to_the_size_of_the_mask(self) -> None:
        """A coarse map is judged at the mask's resolution."""
        mask = np.zeros((64, 64), bool)
        mask[:32] = True
        coarse = np.zeros((8, 8), np.float32)
        coarse[:4] = 1
        tally = PixelTally()
        tally.add(coarse, mask)
        assert tally.result().auroc > 0.99
        assert tally.result().anomalous_share == 0.5

    def test_mistakes_are_named(self) -> None:
        """Maps that are not finite, wrong shapes, limits and missing kinds are refused."""
        tally = PixelTally()
        with pytest.raises(ParameterError, match="not finite"):
            tally.add(np.full((2, 2), np.nan, np.float32))
        with pytest.raises(ParameterError, match="shape"):
            tally.add(np.zeros(4, np.float32))
        tally.add(np.zeros((2, 2), np.float32))
        with pytest.raises(ParameterError, match="0 anomalous pixels"):
            tally.result()
        with pytest.raises(ParameterError, match="limit must lie in"):
            tally.result(limit=0)
