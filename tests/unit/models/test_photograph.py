"""What `conv-large` promises beyond what every model does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment import Detector
from oddment.models import Batch, Shape, build, valid_mask
from oddment.models._texture import TextureFeatures, fill_padding
from oddment.models.photograph import corrupt
from oddment.scoring import ScoringGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE = 64


def surfaces(count: int, seed: int) -> NDArray[np.uint8]:
    """Brushed surfaces in slightly different tones, under lamps of different strength, (count, 64, 64, 3)."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 1, (count, SIDE, SIDE + 8))
    brushed = np.mean([grain[:, :, shift : shift + SIDE] for shift in range(8)], axis=0)
    tone = np.array([1.0, 0.95, 0.85]) + rng.normal(0, 0.01, (count, 1, 1, 3))
    lamp = rng.uniform(90, 150, (count, 1, 1, 1))
    noise = rng.normal(0, 2, (count, SIDE, SIDE, 3))
    return np.clip(lamp * tone * (1 + 0.15 * brushed[..., None]) + noise, 0, 255).astype(np.uint8)


def spot(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A dark pore of 4×4 px at (20, 40)."""
    spoilt = images.copy()
    spoilt[:, 20:24, 40:44] = spoilt[:, 20:24, 40:44] // 3
    return spoilt


def scratch(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A bright scratch against the grain, 1 px wide and 20 long, around (20, 40)."""
    spoilt = images.astype(np.float32)
    spoilt[:, 10:30, 40] *= 1.5
    return np.clip(spoilt, 0, 255).astype(np.uint8)


def blot(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A red blot of 8×8 px around (20, 40), of the same luma to a rounding."""
    spoilt = images.astype(np.float32)
    spoilt[:, 16:24, 36:44] += np.array([40.0, -40 * 0.299 / 0.587, 0.0], np.float32)
    return np.clip(spoilt, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def detector() -> Any:
    """A narrow network, trained for a few seconds."""
    narrow = {"filters": (24, 32, 48), "latent_channels": 16}
    return Detector(model="conv-large", options=narrow, size=SIDE, target_fpr=0.05, epochs=20).fit(surfaces(90, 0))


@pytest.mark.parametrize("spoil", [spot, scratch, blot], ids=["spot", "scratch", "blot"])
def test_a_planted_defect_is_found_and_located(detector: Any, spoil: Any) -> None:
    """Every spoilt picture scores above all normal ones, and its map peaks at the defect."""
    normal, spoilt = surfaces(40, 1), spoil(surfaces(12, 2))
    assert detector.anomaly_score(spoilt).min() > detector.anomaly_score(normal).max()
    for anomaly_map in detector.anomaly_map(spoilt):
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        assert abs(row - 20) <= 12
        assert abs(column - 40) <= 8


def test_reconstruction_is_in_the_unit_of_the_image(detector: Any) -> None:
    """The drawn picture has the brightness and colour of the picture itself."""
    images = surfaces(8, 4)
    drawn = detector.reconstruct(images)
    difference = drawn.mean((1, 2)) - images.mean((1, 2)) / 255
    assert np.abs(difference).max() < 0.05
    assert drawn.min() > -0.5
    assert drawn.max() < 1.5


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (200, 10), (10, 200), (1, 1), (1, 300)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_of_any_shape_have_finite_scores(detector: Any, shape: tuple[int, int], value: int) -> None:
    """Nothing is divided by the contrast of a flat picture, or by the area of a strip thinner than a cell."""
    image = np.full((1, *shape, 3), value, np.uint8)
    assert np.isfinite(detector.anomaly_score(image)).all()
    assert np.isfinite(detector.anomaly_map(image)).all()
    assert np.isfinite(detector.reconstruct(image)).all()


def test_exposure_hardly_matters(detector: Any) -> None:
    """Two thirds of the light change a score by little."""
    images = surfaces(10, 5).astype(np.float32) / 255
    bright, dark = detector.anomaly_score(images), detector.anomaly_score(images * np.float32(2 / 3))
    assert np.abs(bright - dark).max() < 0.25 * bright.mean()


def _model(channels: int, height: int = 64, width: int = 96) -> Any:
    torch.manual_seed(0)
    return build("conv-large", Shape(channels, height, width)).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_content_of_padding_changes_nothing(channels: int) -> None:
    """Score, map, latent and reconstruction are equal to the last bit, whatever the padding holds."""
    graph = ScoringGraph(_model(channels), Shape(channels, 64, 96))
    valid = torch.tensor([[10, 0, 53, 96], [0, 7, 64, 80], [31, 0, 33, 96]])
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(3, channels, 64, 96, generator=rng)
    mask = valid_mask(valid, 64, 96)
    other = images * mask + torch.rand(images.shape, generator=rng) * 9 * (1 - mask)
    with torch.no_grad():
        for ours, theirs in zip(graph(images, valid), graph(other, valid), strict=True):
            assert torch.equal(ours, theirs)


def test_fill_padding_repeats_the_nearest_pixel() -> None:
    """As numpy.pad does with mode "edge"."""
    inside = torch.arange(12.0).view(1, 1, 3, 4)
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 2:5, 1:5] = 1
    images = torch.full((1, 1, 8, 8), 99.0)
    images[..., 2:5, 1:5] = inside
    expected = np.pad(inside[0, 0].numpy(), ((2, 3), (1, 3)), mode="edge")
    assert np.array_equal(fill_padding(images, mask)[0, 0].numpy(), expected)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_mirrored_features_are_features_of_the_mirror_image(channels: int, dim: int) -> None:
    """Flipping the cells and reordering the orientations is the same as flipping the picture."""
    texture = TextureFeatures(channels)
    images = torch.rand(2, channels, 64, 96, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 64, 96)
    flipped = texture(images.flip(dim), mask)[0]
    reordered = texture(images, mask)[0][:, texture.mirror(dim)].flip(dim)
    torch.testing.assert_close(flipped, reordered, rtol=1e-3, atol=1e-4)


def test_features_do_not_see_the_exposure() -> None:
    """Another lamp and another black level give the same gray features."""
    texture = TextureFeatures(1)
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 1, 64, 64)
    torch.testing.assert_close(texture(images, mask)[0], texture(images * 0.6 + 0.2, mask)[0], rtol=0.02, atol=0.05)


def test_corruption_spoils_three_quarters_by_the_generator_alone() -> None:
    """Some pictures stay as they were, most do not, the original is left alone, and a seed repeats it."""
    clean = torch.randn(400, 5, 12, 8, generator=torch.Generator().manual_seed(0))
    copy = clean.clone()
    first = corrupt(clean, torch.Generator().manual_seed(1))
    second = corrupt(clean, torch.Generator().manual_seed(1))
    assert torch.equal(first, second)
    assert torch.equal(clean, copy)
    touched = (first != clean).flatten(1).any(1).float().mean()
    assert 0.65 < touched < 0.85


def _settled(count: int) -> Any:
    """A model settled on pictures of noise, and its map of them."""
    model = _model(1)
    images = torch.rand(count, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    batch = Batch(images, torch.ones(count, 1, 64, 96))
    with torch.no_grad():
        model.begin(lambda: iter([batch]))
        model.settle(lambda: iter([batch]), lambda: iter(()))
        return model, model.leftover(batch).anomaly_map


@pytest.mark.parametrize("count", [1, 10])
def test_the_map_of_normal_pictures_is_somewhat_below_one(count: int) -> None:
    """Its unit is that of the covariance it was settled with, of however few pictures."""
    assert 0.3 < float(_settled(count)[1].mean()) < 1.1


def test_many_cells_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whitening of a third of the cells is close to that of all."""
    every = _settled(10)[0].whitening
    monkeypatch.setattr("oddment.models.photograph._CELLS", 1000)
    assert float((_settled(10)[0].whitening - every).abs().max()) < 0.2 * float(every.abs().max())
