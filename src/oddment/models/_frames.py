"""From pictures on a canvas, padded or not, to frames of a fixed size without any padding, and back.

The real part of each picture is stretched to the frame, whatever its aspect ratio, so that what padding holds never
reaches a feature and every cell of the frame counts. Around it the picture is continued by its own reflection.
Everything is a product with two small matrices, which every runtime computes alike.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor

from oddment.models._texture import luma

__all__ = [
    "Light",
    "Rectangle",
    "frame_size",
    "light",
    "local_contrast",
    "onto_canvas",
    "rectangle",
    "to_frame",
    "without_margin",
]

_FAINTEST = 0.005  # contrast below which a picture is not stretched further: a blank one stays blank
_SPREAD = 0.18  # of a frame's values, about that of photographs
_TAIL = 1e-12  # weights of a Gaussian below this are none
_OVERALL_SHARE = 0.15  # of the contrast around that is the whole frame's: keeps even places from being all noise


class Rectangle(NamedTuple):
    """Where real pixels lie on a canvas: first row and column and how many of each, all (N, 1)."""

    top: Tensor
    height: Tensor
    left: Tensor
    width: Tensor


class Light(NamedTuple):
    """How a picture was exposed: mean luma and standard deviation of all channels about it, both (N, 1, 1, 1)."""

    level: Tensor
    contrast: Tensor

    def even(self, images: Tensor) -> Tensor:
        """Return images as if all had been exposed alike, in 0..1 but for what is clipped."""
        return ((images - self.level) / self.contrast * _SPREAD + 0.5).clamp(0, 1)

    def restore(self, images: Tensor) -> Tensor:
        """Return evened images in the picture's own exposure."""
        return (images - 0.5) / _SPREAD * self.contrast + self.level


def light(images: Tensor, mask: Tensor) -> Light:
    """Return the exposure of images (N, C, H, W), measured where mask (N, 1, H, W) is 1."""
    area = mask.sum((2, 3), keepdim=True).clamp_min(1)
    level = (luma(images) * mask).sum((2, 3), keepdim=True) / area
    variance = ((images - level).square().mean(1, keepdim=True) * mask).sum((2, 3), keepdim=True) / area
    return Light(level, variance.sqrt() + _FAINTEST)


def local_contrast(frames: Tensor, reach: float) -> Tensor:
    """Return frames (N, C, H, W) relative to mean and contrast of what lies around each pixel, clipped to 0..1.

    Shade and gloss that change slowly over an object are gone; a texture looks alike wherever it lies.

    Args:
        frames: in any exposure.
        reach: standard deviation, in pixels, of the Gaussian that says what lies around.

    Source: divisive normalisation after Heeger, "Normalization of cell responses in cat striate cortex" (1992), eq. 2.
    """
    rows, columns = (_around(int(size), reach).to(frames.device) for size in frames.shape[2:])
    frames = frames - frames.mean((1, 2, 3), keepdim=True)  # so that rounding is small beside what is left
    detail = frames - rows @ frames @ columns.T
    squares = detail.square().mean(1, keepdim=True)
    overall = squares.mean((2, 3), keepdim=True).sqrt()
    contrast = (rows @ squares @ columns.T).clamp_min(0).sqrt() + _OVERALL_SHARE * overall + _FAINTEST / 5
    relative = detail / contrast
    deviation = relative.square().mean((1, 2, 3), keepdim=True).sqrt() + _FAINTEST
    return (relative / deviation * _SPREAD + 0.5).clamp(0, 1)


def _around(size: int, reach: float) -> Tensor:
    """Weights (size, size) of a Gaussian about each of so many pixels, summing to 1 over those that there are."""
    place = torch.arange(size, dtype=torch.float32)
    weights = (-(place[:, None] - place).square() / (2 * reach * reach)).exp()
    # Far away they are denormal numbers, for which a product takes ten times as long.
    weights = weights * (weights > _TAIL)
    return weights / weights.sum(1, keepdim=True)


def rectangle(mask: Tensor) -> Rectangle:
    """Return the rectangle in which mask (N, 1, H, W) is 1."""
    bounds: list[Tensor] = []
    for dim in (3, 2):
        real = mask.amax((1, dim))  # (N, H), then (N, W)
        length = int(real.shape[1])
        place = torch.arange(length, device=mask.device, dtype=mask.dtype)
        first = (place * real + length * (1 - real)).amin(1, keepdim=True)
        bounds += [first, real.sum(1, keepdim=True).clamp_min(1)]
    return Rectangle(*bounds)


def frame_size(height: int, width: int, side: int, multiple: int) -> tuple[int, int]:
    """Return (height, width) of a frame of about side² pixels and a canvas' aspect ratio, both multiples."""
    ratio = math.sqrt(height / width)
    return tuple(multiple * max(2, round(length / multiple)) for length in (side * ratio, side / ratio))  # type: ignore[return-value]


def to_frame(images: Tensor, where: Rectangle, size: tuple[int, int], margin: int = 0) -> Tensor:
    """Return (N, C, h + 2·margin, w + 2·margin): the real part of images (N, C, H, W), reflected into the margin."""
    rows = _reading(where.top, where.height, int(images.shape[2]), size[0], margin)
    columns = _reading(where.left, where.width, int(images.shape[3]), size[1], margin)
    return rows[:, None] @ images @ columns.transpose(1, 2)[:, None]


def without_margin(features: Tensor, cut: int) -> Tensor:
    """Return features (N, D, h, w) of the frame alone, `cut` cells off each side, each the mean of those around it."""
    return F.avg_pool2d(features[:, :, cut:-cut, cut:-cut], 3, 1, 1, count_include_pad=False)


def onto_canvas(frames: Tensor, where: Rectangle, height: int, width: int) -> Tensor:
    """Return (N, C, height, width): frames (N, C, h, w) stretched to the real part; elsewhere their border repeats."""
    rows = _writing(where.top, where.height, height, int(frames.shape[2]))
    columns = _writing(where.left, where.width, width, int(frames.shape[3]))
    return rows[:, None] @ frames @ columns.transpose(1, 2)[:, None]


def _reading(first: Tensor, count: Tensor, source: int, target: int, margin: int) -> Tensor:
    """Weights (N, target + 2·margin, source) with which pixels of the canvas make up those of the frame."""
    place = torch.arange(-margin, target + margin, device=first.device, dtype=first.dtype) + 0.5
    along = place * count / target  # (N, T), from 0 to count within the frame
    along = along - 2 * count * (along / (2 * count)).floor()
    along = torch.minimum(along, 2 * count - along)
    pixel = torch.arange(source, device=first.device, dtype=first.dtype)
    real = ((pixel >= first) & (pixel < first + count)).to(first.dtype)
    return _hats(along - 0.5 + first, (count / target).clamp_min(1), pixel, real)


def _writing(first: Tensor, count: Tensor, target: int, source: int) -> Tensor:
    """Weights (N, target, source) with which cells of the frame make up pixels of the canvas."""
    pixel = torch.arange(target, device=first.device, dtype=first.dtype)
    along = ((pixel - first + 0.5) / count * source - 0.5).clamp(0, source - 1)
    cell = torch.arange(source, device=first.device, dtype=first.dtype)
    return _hats(along, (source / count).clamp_min(1), cell, torch.ones_like(first))


def _hats(place: Tensor, reach: Tensor, at: Tensor, real: Tensor) -> Tensor:
    """Weights (N, T, S) falling linearly to 0 within `reach` of each place (N, T), summing to 1 over the real ones."""
    weights = (1 - (place[:, :, None] - at).abs() / reach[:, :, None]).clamp_min(0) * real[:, None]
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-6)
