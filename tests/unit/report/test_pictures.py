"""Small pictures of one image."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oddment.errors import ParameterError
from oddment.report import Pictures, render_heat_map, render_pictures


def _decode(data: bytes | None) -> NDArray[np.uint8]:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_large_image_is_made_smaller_and_keeps_its_shape() -> None:
    """The longest side becomes max_side; all three have one shape, and what was redrawn small is not enlarged."""
    for redrawn, expected in (((64, 64), (64, 128)), ((64, 128), (64, 128)), ((400, 400), (112, 224))):
        pictures = render_pictures(
            _noise(300, 600), np.zeros((*redrawn, 3), np.float32), np.zeros((32, 32), np.float32), map_range=(0, 1)
        )
        assert (pictures.width, pictures.height) == (224, 112)
        assert _decode(pictures.original).shape == _decode(pictures.heat_map).shape == (112, 224, 3)
        assert _decode(pictures.reconstruction).shape[:2] == expected


def test_tiny_image_keeps_every_pixel() -> None:
    """A 28 x 28 digit is neither enlarged nor blurred: it is stored without loss."""
    digit = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    pictures = render_pictures(digit, None, np.zeros((28, 28), np.float32), map_range=(0, 1))
    assert pictures.reconstruction is None
    assert np.array_equal(_decode(pictures.original)[:, :, 0], digit)
    assert pictures.nbytes == len(pictures.original) + len(pictures.heat_map or b"")


def test_drawing_is_stored_without_loss_where_that_is_smaller() -> None:
    """Few colours compress better without loss, and stay sharp."""
    drawing = np.zeros((128, 128, 3), np.uint8)
    drawing[40:60, 10:100] = (255, 0, 0)
    pictures = render_pictures(drawing, None, np.zeros((8, 8), np.float32), map_range=(0, 1))
    assert np.array_equal(_decode(pictures.original), drawing)


def test_heat_map_is_gray_where_low_and_coloured_where_high() -> None:
    """Below the range nothing is coloured; above it the colour is bright, and clipping is for display only."""
    original = np.full((40, 40, 3), (200, 60, 60), np.uint8)
    anomaly_map = np.full((40, 40), -5.0, np.float32)
    anomaly_map[20:, :] = 99.0
    heat = render_heat_map(original, anomaly_map, map_range=(0.0, 1.0), size=(80, 60)).astype(int)
    assert heat.shape == (60, 80, 3)
    assert np.ptp(heat[5], axis=-1).max() == 0
    assert np.ptp(heat[55], axis=-1).min() > 60
    assert anomaly_map.max() == 99.0


def test_lightness_rises_with_the_map() -> None:
    """Colours can be told apart without colour vision: once opaque, more anomalous is lighter."""
    ramp = np.linspace(0.6, 1.0, 64, dtype=np.float32)[None, :].repeat(4, 0)
    heat = render_heat_map(np.full((4, 64), 128, np.uint8), ramp, map_range=(0.0, 1.0), size=(64, 4))
    lightness = heat[0].astype(float) @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) >= -0.5).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_do_no_harm(value: float) -> None:
    """NaN and infinity in a map or a reconstruction still give pictures."""
    bad = np.full((8, 8), value, np.float32)
    pictures = render_pictures(np.zeros((8, 8), np.uint8), bad[..., None], bad, map_range=(1.0, 1.0))
    assert pictures.nbytes > 0


@pytest.mark.parametrize("shape", [(8,), (8, 8, 4), (0, 8), (2, 8, 8, 3)])
def test_wrong_shape_is_named(shape: tuple[int, ...]) -> None:
    """An array that is no image raises and says which shape it had."""
    with pytest.raises(ParameterError, match="shape"):
        render_pictures(np.zeros(shape, np.uint8), None, np.zeros((8, 8), np.float32), map_range=(0, 1))


def test_wrong_map_shape_is_named() -> None:
    """A map with channels raises."""
    with pytest.raises(ParameterError, match="anomaly_map"):
        render_heat_map(np.zeros((8, 8), np.uint8), np.zeros((8, 8, 1), np.float32), map_range=(0, 1), size=(8, 8))


def test_one_pixel_wide_image() -> None:
    """A line of pixels keeps at least one pixel in each direction."""
    pictures = render_pictures(_noise(2000, 1), None, np.zeros((4, 4), np.float32), map_range=(0, 1))
    assert isinstance(pictures, Pictures)
    assert (pictures.width, pictures.height) == (1, 224)
