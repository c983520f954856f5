"""Synthetic defects: inside the real pixels, visible, of the pictures' own type and values, the same again by seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.errors import ParameterError
from oddment.training.synthetic import KINDS, make_defects

if TYPE_CHECKING:
    from numpy.typing import NDArray

TYPES: dict[str, float] = {"uint8": 255, "uint16": 4095, "float32": 1.0}


def textures(shape: tuple[int, int, int], dtype: str = "uint8", count: int = 2 * len(KINDS)) -> NDArray[Any]:
    """Pictures with soft waves and some noise, each with its own phase."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width] / 5
    waves = np.stack([np.sin(y + a) * np.cos(x + b) for a, b in rng.uniform(0, 6, (count, 2))])
    bright = 0.5 + 0.3 * waves[..., None] + rng.normal(0, 0.03, (count, height, width, channels))
    scaled = bright.clip(0, 1) * TYPES[dtype]
    return (np.rint(scaled) if dtype != "float32" else scaled).astype(dtype)


def whole(pictures: NDArray[Any]) -> NDArray[np.int64]:
    """All pixels are real."""
    return np.array([[0, 0, *pictures.shape[1:3]]] * len(pictures), np.int64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (28, 28, 3), (40, 64, 3)])
def test_every_picture_has_one_defect_where_it_is_said_to_be(dtype: str, shape: tuple[int, int, int]) -> None:
    """Each copy differs inside its region and nowhere else; type, shape, range and the originals stay."""
    pictures = textures(shape, dtype)
    before = pictures.copy()
    made = make_defects(pictures, whole(pictures), seed=1)
    np.testing.assert_array_equal(pictures, before)
    assert (made.pixels.dtype, made.pixels.shape) == (pictures.dtype, pictures.shape)
    assert pictures.min() <= made.pixels.min() <= made.pixels.max() <= pictures.max()
    changed = (made.pixels != pictures).any(axis=3)
    assert changed.any(axis=(1, 2)).all()
    assert not (changed & ~made.regions).any()
    assert made.kinds == KINDS * 2


def test_nothing_outside_of_the_real_pixels_is_touched() -> None:
    """Padding stays as it is, whatever part of it each picture has."""
    pictures = textures((24, 32, 3), count=60)
    rng = np.random.default_rng(0)
    corner = rng.integers(0, 9, (60, 2))
    valid = np.concatenate([corner, corner + rng.integers(8, [16, 24], (60, 2))], axis=1)
    made = make_defects(pictures, valid, seed=0)
    for picture, copy, region, (top, left, bottom, right) in zip(
        pictures, made.pixels, made.regions, valid.tolist(), strict=True
    ):
        padding = np.ones((24, 32), dtype=bool)
        padding[top:bottom, left:right] = False
        np.testing.assert_array_equal(copy[padding], picture[padding])
        assert not region[padding].any()
        assert region.any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_seen(kind: str, digits: NDArray[np.uint8]) -> None:
    """Strokes on black ground are damaged where there is something to see: no black square on black."""
    pictures = digits[:60, :, :, None]
    made = make_defects(pictures, whole(pictures), seed=3)
    change = np.abs(made.pixels.astype(float) - pictures)[..., 0]
    seen = [change[index][made.regions[index]].mean() for index, each in enumerate(made.kinds) if each == kind]
    assert len(seen) == 10
    assert min(seen) > 0
    assert np.median(seen) > 0.05 * 255


def test_a_defect_is_small(digits: NDArray[np.uint8]) -> None:
    """Most of a picture stays normal."""
    pictures = digits[:60, :, :, None]
    share = make_defects(pictures, whole(pictures), seed=0).regions.mean(axis=(1, 2))
    assert share.max() < 0.5
    assert np.median(share) < 0.15


def test_the_seed_fixes_every_defect(digits: NDArray[np.uint8]) -> None:
    """The same seed makes the same defects to the last pixel, another one others."""
    pictures = digits[:30, :, :, None]
    first, again, other = (make_defects(pictures, whole(pictures), seed=seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    np.testing.assert_array_equal(first.regions, again.regions)
    assert not np.array_equal(first.pixels, other.pixels)


def test_pictures_without_contrast_come_back() -> None:
    """Where every pixel has one value there is nothing to tell apart, and no error."""
    pictures = np.full((6, 8, 8, 1), 7, np.uint8)
    np.testing.assert_array_equal(make_defects(pictures, whole(pictures), seed=0).pixels, pictures)


@pytest.mark.parametrize(("count", "side"), [(1, 16), (0, 16), (4, 7)])
def test_too_few_or_too_small_pictures_are_refused(count: int, side: int) -> None:
    """A defect needs a second picture to come from and room to be in."""
    pictures = np.zeros((count, side, side, 1), np.uint8)
    valid = np.array([[0, 0, side, side]] * count, np.int64).reshape(-1, 4)
    with pytest.raises(ParameterError, match="at least 2 pictures of at least 8 pixels"):
        make_defects(pictures, valid, seed=0)
