"""A score is a property of the image and the model: not of its company, the order, the file or the pixel type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddment import Detector, Scorer, ThresholdRule, load
from oddment.results import Detection

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

quick = settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pictures(count: int, seed: int = 0, side: tuple[int, int] = (8, 8)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, *side)).astype(np.uint8)


@pytest.fixture(scope="module", params=["letterbox", "stretch", "tile"])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    """A small model of each way to fit an image."""
    detector = Detector(target_fpr=0.1, epochs=1, fit_mode=request.param, size=8).fit(pictures(60, 1))
    return detector.scorer_


@pytest.fixture(scope="module")
def crowd() -> NDArray[np.uint8]:
    """More images than two batches hold, larger than the model's picture and not square."""
    return pictures(80, 2, (9, 17))


@quick
@given(order=st.permutations(range(80)), size=st.integers(1, 80))
def test_company_and_order(scorer: Scorer, crowd: NDArray[np.uint8], order: list[int], size: int) -> None:
    """How many others come along, and in which order, does not change a score, map or p-value by one bit."""
    expected = scorer.anomaly_score(crowd)
    chosen = order[:size]
    assert scorer.anomaly_score(crowd[chosen]).tobytes() == expected[chosen].tobytes()
    if size <= 5:
        maps, p_values = scorer.anomaly_map(crowd), scorer.p_value(crowd)
        assert np.array_equal(np.asarray(scorer.anomaly_map(crowd[chosen])), np.asarray(maps)[chosen])
        assert scorer.p_value(crowd[chosen]).tobytes() == p_values[chosen].tobytes()


def test_mixed_sizes(scorer: Scorer, crowd: NDArray[np.uint8], tmp_path: Path) -> None:
    """Images of other sizes and unusable files between them do not change a score by one bit."""
    from PIL import Image

    expected = scorer.anomaly_score(crowd[:40])
    for index in range(40):
        Image.fromarray(crowd[index]).save(tmp_path / f"{index:03}.png")
        Image.fromarray(pictures(1, index, (5 + index, 30))[0]).save(tmp_path / f"{index:03}_other.png")
        (tmp_path / f"{index:03}_broken.png").write_bytes(b"\x89PNG broken")
    results = scorer.detect(tmp_path)
    assert len(results) == 120
    scores = [r.anomaly_score for r in results if isinstance(r, Detection) and "other" not in r.path]
    assert np.array(scores, np.float32).tobytes() == expected.tobytes()


def test_save_and_load(scorer: Scorer, crowd: NDArray[np.uint8], tmp_path: Path) -> None:
    """A saved and loaded model gives bit-equal scores, maps, p-values, latents, reconstructions and verdicts."""
    scorer.save(tmp_path / "m.oddment")
    again = load(tmp_path / "m.oddment")
    for name in ("anomaly_score", "p_value", "anomaly_map", "latent", "reconstruct", "predict"):
        before, after = np.asarray(getattr(scorer, name)(crowd)), np.asarray(getattr(again, name)(crowd))
        assert before.tobytes() == after.tobytes(), name
        assert before.dtype == after.dtype
    assert again.threshold_ == scorer.threshold_
    assert again.detect(crowd) == scorer.detect(crowd)


@quick
@given(batch=st.sampled_from([1, 2, 7, 32]), seed=st.integers(0, 50))
def test_float_images(scorer: Scorer, batch: int, seed: int) -> None:
    """A float32 image of uint8 / 255 scores the same as the image, to 1e-6, where no resizing rounds 8 bits."""
    images = pictures(batch, seed)
    floats = images.astype(np.float32) / np.float32(255)
    assert np.abs(scorer.anomaly_score(floats) - scorer.anomaly_score(images)).max() <= 1e-6
    assert np.abs(scorer.anomaly_score(images.astype(np.uint16) * 257) - scorer.anomaly_score(images)).max() <= 1e-6


@quick
@given(thresholds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_lower_thresholds_never_flag_fewer(scorer: Scorer, crowd: NDArray[np.uint8], thresholds: list[float]) -> None:
    """Whatever a threshold flags, a lower one flags too."""
    low, high = (scorer.with_rule(ThresholdRule("fixed", value)).predict(crowd) == -1 for value in thresholds)
    assert (low | ~high).all()


def test_verdicts_are_strict_and_agree(scorer: Scorer, crowd: NDArray[np.uint8]) -> None:
    """`predict`, `detect` and the p-values agree on every image; a score equal to the threshold is no anomaly."""
    scores = scorer.anomaly_score(crowd)
    exact = scorer.with_rule(ThresholdRule("fixed", float(np.sort(scores)[40])))
    found: list[Any] = exact.detect(crowd)
    assert [item.is_anomaly for item in found] == (exact.predict(crowd) == -1).tolist()
    assert sum(item.is_anomaly for item in found) == 39
    assert [item.p_value for item in found] == scorer.p_value(crowd).tolist()
    assert np.array([item.anomaly_score for item in found], np.float32).tobytes() == scores.tobytes()
    ranks = np.array([item.rank for item in found])
    assert np.array_equal(np.sort(ranks), np.arange(1, 81))
    assert (np.diff(scores[np.argsort(ranks)]) <= 0).all()


def test_promise_and_p_values(scorer: Scorer, crowd: NDArray[np.uint8]) -> None:
    """Under the conformal rule an anomaly has a p-value of at most target_fpr, and a normal image without ties more."""
    mixed = np.concatenate([crowd, np.full((3, 9, 17), 255, np.uint8), np.zeros((3, 9, 17), np.uint8)])
    flagged = scorer.predict(mixed) == -1
    assert 0 < flagged.sum() < len(mixed)
    ties = np.isin(scorer.anomaly_score(mixed), scorer.calibration.scores)
    small = scorer.p_value(mixed) <= 0.1
    assert np.array_equal(flagged[~ties], small[~ties])
    assert not (flagged & ~small).any()


@quick
@given(seed=st.integers(0, 30), shape=st.sampled_from([(8, 4), (3, 8), (16, 5), (7, 30)]))
def test_maps_cover_the_image_and_nothing_else(scorer: Scorer, seed: int, shape: tuple[int, int]) -> None:
    """A map has the image's own size and is finite and non-negative everywhere: no padding is left in it."""
    anomaly_map = np.asarray(scorer.anomaly_map(pictures(1, seed, shape)))
    assert anomaly_map.shape == (1, *shape)
    assert np.isfinite(anomaly_map).all()
    assert (anomaly_map >= 0).all()
