"""Preparing images: every pixel is covered, padding is known, and all pixel types agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from oddment.errors import ImageError, ParameterError
from oddment.images import Decoded, decode
from oddment.images.prepare import Preparation, assemble

sides = st.integers(1, 60)
frames = st.integers(1, 40)


def picture(height: int, width: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def decoded(pixels: np.ndarray) -> Decoded:
    return Decoded(pixels, (pixels.shape[1], pixels.shape[0]))


@settings(deadline=None)
@given(h=sides, w=sides, height=frames, width=frames)
def test_letterbox(h: int, w: int, height: int, width: int) -> None:
    """A letterboxed image keeps its aspect ratio to the pixel, touches two sides, is centred and padded by its edge."""
    prepared = Preparation(height, width, 1).prepare(decoded(picture(h, w)))
    assert prepared.pixels.shape == (1, height, width, 1)
    (place,) = prepared.placements
    top, left, bottom, right = place.valid
    assert place.source == (0, 0, w, h)
    assert bottom - top == height or right - left == width
    scale = min(width / w, height / h)
    assert abs((right - left) - w * scale) <= 0.5 or right - left == 1
    assert abs((bottom - top) - h * scale) <= 0.5 or bottom - top == 1
    assert 0 <= (height - bottom) - top <= 1
    assert 0 <= (width - right) - left <= 1
    inside = prepared.pixels[0, top:bottom, left:right]
    around = ((top, height - bottom), (left, width - right), (0, 0))
    assert np.array_equal(prepared.pixels[0], np.pad(inside, around, mode="edge"))


@settings(deadline=None)
@given(h=sides, w=sides, height=frames, width=frames, fit=st.sampled_from(["letterbox", "stretch"]))
def test_resizing_is_pillows(h: int, w: int, height: int, width: int, fit: Any) -> None:
    """Inside the valid rectangle is Pillow's bilinear resize of the whole image, and stretch leaves no padding."""
    pixels = picture(h, w)
    prepared = Preparation(height, width, 1, fit).prepare(decoded(pixels))
    top, left, bottom, right = prepared.placements[0].valid
    if fit == "stretch":
        assert (top, left, bottom, right) == (0, 0, height, width)
    size = (right - left, bottom - top)
    expected = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
    assert np.array_equal(prepared.pixels[0, top:bottom, left:right, 0], expected)


@settings(deadline=None)
@given(h=sides, w=sides, height=frames, width=frames)
def test_tiles_cover_every_pixel(h: int, w: int, height: int, width: int) -> None:
    """Tiles cover every source pixel at its own resolution, as few as that takes, and never padded where they fit."""
    pixels = np.arange(h * w, dtype=np.uint16).reshape(h, w)
    prepared = Preparation(height, width, 1, "tile").prepare(decoded(pixels))
    assert len(prepared.pixels) == len(prepared.placements) == -(-h // height) * -(-w // width)
    assert prepared.pixels.dtype == np.uint16
    seen = np.zeros((h, w), bool)
    for tile, place in zip(prepared.pixels, prepared.placements, strict=True):
        left, top, right, bottom = place.source
        assert place.valid == (0, 0, bottom - top, right - left) == (0, 0, min(h, height), min(w, width))
        assert np.array_equal(tile[: bottom - top, : right - left, 0], pixels[top:bottom, left:right])
        seen[top:bottom, left:right] = True
    assert seen.all()


@settings(deadline=None)
@given(h=sides, w=sides, side=st.integers(4, 40), fit=st.sampled_from(["letterbox", "stretch", "tile"]))
def test_source_boxes_lead_back(h: int, w: int, side: int, fit: Any) -> None:
    """Placements map the valid rectangle onto the original: a bright source pixel is found where they say."""
    y, x = h // 3, w // 3
    pixels = np.zeros((h, w), np.uint8)
    pixels[y, x] = 255
    prepared = Preparation(side, side, 1, fit).prepare(decoded(pixels))
    brightest = max(range(len(prepared.pixels)), key=lambda index: prepared.pixels[index].max())
    place, tile = prepared.placements[brightest], prepared.pixels[brightest, :, :, 0]
    top, left, bottom, right = place.valid
    inside = tile[top:bottom, left:right]
    if inside.max() == 0:
        return  # shrunk away
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    scale_x = (place.source[2] - place.source[0]) / (right - left)
    scale_y = (place.source[3] - place.source[1]) / (bottom - top)
    assert abs(place.source[0] + (column + 0.5) * scale_x - (x + 0.5)) <= max(1.0, scale_x)
    assert abs(place.source[1] + (row + 0.5) * scale_y - (y + 0.5)) <= max(1.0, scale_y)


def test_reduced_decoding_keeps_the_original_size() -> None:
    """An image decoded at reduced scale is placed by its original size, so that boxes lead back to it."""
    prepared = Preparation(16, 16, 1).prepare(Decoded(picture(50, 25), (100, 200)))
    assert prepared.size == (100, 200)
    assert prepared.placements[0].source == (0, 0, 100, 200)
    assert prepared.placements[0].valid == (0, 4, 16, 12)


@settings(deadline=None)
@given(h=sides, w=sides, channels=st.sampled_from([1, 3]), fit=st.sampled_from(["letterbox", "stretch", "tile"]))
def test_pixel_types_agree(h: int, w: int, channels: Any, fit: Any) -> None:
    """The same picture in 8 bits, 16 bits and floats is the same to the model, to 1/255 where 8 bits are rounded."""
    pixels = picture(h, w, 3, seed=h * 100 + w)
    preparation = Preparation(12, 12, channels, fit)
    batches = [
        assemble(preparation, [preparation.prepare(decoded(form))])[0]
        for form in (pixels, pixels.astype(np.uint16) * 257, pixels.astype(np.float32) / np.float32(255))
    ]
    tolerance = 1e-6 if (h, w) == (12, 12) and channels == 3 else 2.01 / 255 if channels == 1 else 1.01 / 255
    assert np.abs(batches[0] - batches[1]).max() <= tolerance
    assert np.abs(batches[0] - batches[2]).max() <= tolerance
    assert np.abs(batches[1] - batches[2]).max() <= 3 / 65535
    assert all(batch.dtype == np.float32 and batch.flags.c_contiguous for batch in batches)


@given(seed=st.integers(0, 1000))
def test_gray_is_pillows(seed: int) -> None:
    """Gray of a colour image equals Pillow's L exactly, deep gray to half a step of 8 bits."""
    pixels = picture(8, 8, 3, seed)
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    preparation = Preparation(8, 8, 1)
    assert np.array_equal(preparation.prepare(decoded(pixels)).pixels[0, :, :, 0], expected)
    deep = preparation.prepare(decoded(pixels.astype(np.uint16) * 257)).pixels[0, :, :, 0]
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - expected).max() <= 0.51


def test_gray_becomes_colour() -> None:
    """A gray image is three equal channels to a colour model."""
    prepared = Preparation(6, 6, 3).prepare(decoded(picture(6, 6)))
    assert prepared.pixels.shape == (1, 6, 6, 3)
    assert (prepared.pixels == prepared.pixels[..., :1]).all()


def test_scale_is_exact_and_unclipped() -> None:
    """The ends of a range become exactly 0 and 1, what lies beyond stays beyond, channels come first."""
    preparation = Preparation(1, 2, 3, ranges={"uint8": (55.0, 255.0), "float32": (-2.0, 2.0)})
    pixels = np.array([[[[55, 255, 0], [155, 55, 255]]]], np.uint8)
    assert preparation.scale(pixels).tolist() == [[[[0, 0.5]], [[1, 0]], [[np.float32(-0.275).item(), 1]]]]
    assert preparation.scale(np.full((1, 1, 2, 3), 4, np.float32)).max() == 1.5


def test_every_gray_level() -> None:
    """All 256 levels of 8 bits scale to level / 255, the nearest float32."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    scaled = Preparation(16, 16, 1).scale(levels).ravel()
    assert np.array_equal(scaled, (np.arange(256) / 255).astype(np.float32))


def test_unknown_pixel_type() -> None:
    """A pixel type that the model has no range for is an image error, not a wrong score."""
    preparation = Preparation(4, 4, 1, ranges={"uint8": (0.0, 255.0)})
    with pytest.raises(ImageError, match="pixels of type uint16 are not what this model was made for"):
        preparation.prepare(decode(np.zeros((4, 4), np.uint16)))


def test_assemble() -> None:
    """A batch holds all pictures of all images in order, with their valid rectangles and owners."""
    preparation = Preparation(4, 4, 1, "tile")
    images = [preparation.prepare(decoded(picture(*shape))) for shape in ((4, 4), (4, 10), (3, 4))]
    batch, valid, owners = assemble(preparation, images)
    assert batch.shape == (5, 1, 4, 4)
    assert owners.tolist() == [0, 1, 1, 1, 2]
    assert valid.tolist() == [[0, 0, 4, 4]] * 4 + [[0, 0, 3, 4]]
    for index, image in enumerate(images):
        assert np.array_equal(batch[owners == index], preparation.scale(image.pixels))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"height": 0}, "size must lie between 1 and 8192; got 0×8"),
        ({"width": 9000}, "got 8×9000"),
        ({"channels": 2}, "channels must be 1"),
        ({"fit": "crop"}, "fit must be one of letterbox, stretch, tile; got 'crop'"),
        ({"ranges": {"uint8": (1.0, 1.0)}}, "range of uint8 must be finite and rising"),
        ({"ranges": {"uint8": (0.0, float("nan"))}}, "range of uint8"),
    ],
)
def test_wrong_settings(arguments: dict[str, Any], reason: str) -> None:
    """A setting that breaks its rule is refused by name and value."""
    with pytest.raises(ParameterError, match=reason):
        Preparation(**{"height": 8, "width": 8, "channels": 1} | arguments)


def test_all_mistakes_at_once() -> None:
    """Several mistakes are reported in one message."""
    with pytest.raises(ParameterError, match=r"size .*channels .*fit "):
        Preparation(0, 8, 2, "crop")  # type: ignore[arg-type]


@given(height=frames, width=frames, channels=st.sampled_from([1, 3]), low=st.floats(-100, 100), span=st.floats(1, 9))
def test_dict_round_trip(height: int, width: int, channels: int, low: float, span: float) -> None:
    """A preparation survives being written as a dictionary."""
    preparation = Preparation(height, width, channels, "tile", {"float32": (low, low + span)})
    assert Preparation.from_dict(preparation.as_dict()) == preparation
