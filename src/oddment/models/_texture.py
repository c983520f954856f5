"""The fixed front end of models of photographs that need nothing pretrained: how each cell looks, whatever the light.

Source: oriented gradients normalised by their surroundings, after Dalal and Triggs, "Histograms of Oriented Gradients
for Human Detection" (2005), section 6; divisive normalisation after Heeger, "Normalization of cell responses in cat
striate cortex" (1992), eq. 2; opponent colours after van de Sande, Gevers and Snoek, "Evaluating Color Descriptors"
(2010), eq. 3.
Differs in cells that stay 4 px on every level of a pyramid, in maxima beside means (a pore is one pixel wide), in the
log contrast kept as a feature of its own, and in a mask: what padding holds never reaches a feature.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

__all__ = ["CELL", "Exposure", "TextureFeatures", "expose"]

CELL = 4  # pixels along a cell's side, at the resolution of the prepared picture
_LEVELS = 4  # halvings of the resolution, the first at full size
_ORIENTATIONS = 8
_PER_LEVEL = _ORIENTATIONS + 5
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as in `images.prepare`
# Share of the surroundings' contrast that is the whole picture's: keeps flat places of a lively picture from noise.
_GLOBAL_SHARE = 0.3
# A cell counts when at least this share of it is real.
_COVERED = 0.6


class Exposure(NamedTuple):
    """How a picture was exposed; what is left when it is divided out no longer depends on lamp or shutter.

    Args:
        level: (N, C, 1, 1), mean of each channel over real pixels.
        contrast: (N, 1, 1, 1), standard deviation of the luma over real pixels, never 0.
    """

    level: Tensor
    contrast: Tensor


def luma(images: Tensor) -> Tensor:
    """Return (N, 1, H, W): gray as it is, the luma of colour."""
    if images.shape[1] == 1:
        return images
    return sum(weight * images[:, index : index + 1] for index, weight in enumerate(_LUMA))  # type: ignore[return-value]


def expose(images: Tensor, mask: Tensor) -> Exposure:
    """Return the exposure of images (N, C, H, W), measured where mask (N, 1, H, W) is 1."""
    area = mask.sum((2, 3), keepdim=True).clamp_min(1)
    level = (images * mask).sum((2, 3), keepdim=True) / area
    variance = ((luma(images) - luma(level)).square() * mask).sum((2, 3), keepdim=True) / area
    return Exposure(level, variance.sqrt() + 0.01)


def fill_padding(images: Tensor, mask: Tensor) -> Tensor:
    """Return images (N, C, H, W) with the nearest real pixel on all padding, whatever it held."""
    for dim in (2, 3):
        real = mask.amax(5 - dim, keepdim=True)  # 1 where a row (or a column) holds real pixels
        size = images.shape[dim]
        place = torch.arange(size, device=images.device, dtype=images.dtype)
        place = place.view((1, 1, -1, 1) if dim == 2 else (1, 1, 1, -1))
        first = (place * real + size * (1 - real)).amin(dim, keepdim=True)
        last = (place * real).amax(dim, keepdim=True)
        nearest = torch.minimum(torch.maximum(place, first), last).long()
        images = images.gather(dim, nearest.expand(-1, images.shape[1], *images.shape[2:]))
    return images


def _gaussian(sigma: float, radius: int) -> Tensor:
    kernel = torch.exp(-torch.arange(-radius, radius + 1.0).square() / (2 * sigma * sigma))
    return kernel / kernel.sum()


def _blur(images: Tensor, kernel: Tensor) -> Tensor:
    """Blur images (N, 1, H, W) along both sides; the border repeats."""
    padded = F.pad(images, [len(kernel) // 2] * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))


def _erode(weight: Tensor, size: int) -> Tensor:
    return 1 - F.max_pool2d(1 - weight, size, 1, size // 2)


class TextureFeatures(nn.Module):
    """Features of each cell of CELL × CELL pixels: 13 a level of the pyramid, 1 of brightness, 6 of colour.

    A level gives, for each cell: the largest bright and the largest dark detail, their means, eight rectified
    orientations of the gradient, all relative to the contrast around, and the logarithm of that contrast. Colour adds
    level and largest deviations of two opponent channels. Nothing in here is learnt.

    Args:
        channels: 1 (gray) or 3 (RGB).

    Attributes:
        width: features a cell.
    """

    narrow: Tensor
    wide: Tensor
    slopes: Tensor
    directions: Tensor
    opponents: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.width = _LEVELS * _PER_LEVEL + 1 + (6 if channels == 3 else 0)
        angle = torch.arange(_ORIENTATIONS) * 2 * math.pi / _ORIENTATIONS
        slopes = torch.zeros(2, 1, 3, 3)
        slopes[0, 0, 1] = torch.tensor([-0.5, 0, 0.5])
        slopes[1, 0, :, 1] = torch.tensor([-0.5, 0, 0.5])
        constants = {
            "narrow": _gaussian(1.0, 3),
            "wide": _gaussian(1.4, 4),
            "slopes": slopes,
            "directions": torch.stack([angle.cos(), angle.sin()], 1).view(_ORIENTATIONS, 2, 1, 1),
            "opponents": torch.tensor([[1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]).view(2, 3, 1, 1),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)

    def forward(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (N, width, H/4, W/4) and which cells count (N, 1, H/4, W/4), 1 or 0.

        Args:
            images: (N, C, H, W), H and W multiples of 32.
            mask: (N, 1, H, W), 1 on real pixels.
        """
        exposure = expose(images, mask)
        images = fill_padding(images, mask)
        image, weight = (luma(images) - luma(exposure.level)) / exposure.contrast, mask
        cover = F.avg_pool2d(mask, CELL)
        brightness = F.avg_pool2d(image * mask, CELL) / (cover + 1e-3)
        features = []
        for level in range(_LEVELS):
            found, smooth = self._level(image, weight, max(1, CELL >> level))
            features.append(F.interpolate(found, scale_factor=2.0, mode="nearest") if 1 << level > CELL else found)
            if level < _LEVELS - 1:
                image, weight = F.avg_pool2d(smooth, 2), 1 - F.max_pool2d(1 - weight, 2)
        features.append(brightness)
        if self.channels == 3:
            features.append(self._colour(images, exposure))
        # A strip thinner than a cell has no well covered one; the best it has must do.
        enough = cover.amax((2, 3), keepdim=True).clamp(max=_COVERED)
        return torch.cat(features, 1), (cover >= enough).to(cover.dtype)

    def _level(self, image: Tensor, weight: Tensor, cell: int) -> tuple[Tensor, Tensor]:
        """Return 13 features a cell of image (N, 1, h, w), and the smoothed image."""
        smooth = _blur(image, self.narrow)
        real = _erode(weight, 5)
        detail = smooth - _blur(smooth, self.wide)
        contrast = _surroundings(detail.abs(), real)
        detail = detail / contrast * real
        slope = F.conv2d(F.pad(smooth, [1] * 4, mode="replicate"), self.slopes)  # (N, 2, h, w)
        steepness = _surroundings((slope.square().sum(1, keepdim=True) + 1e-8).sqrt(), real)
        oriented = F.conv2d(slope / steepness * real, self.directions).relu()
        spots = torch.cat([detail.relu(), (-detail).relu()], 1)
        share = _mean(real, cell) + 1e-3
        relative = torch.cat([_largest(spots, cell), _mean(spots, cell) / share, _mean(oriented, cell) / share], 1)
        return torch.cat([2 * (relative + 0.01).sqrt(), _mean(contrast.log() * real, cell) / share], 1), smooth

    def _colour(self, images: Tensor, exposure: Exposure) -> Tensor:
        """Return 6 features a cell of RGB images: opponent colours relative to the picture's brightness."""
        chroma = F.conv2d(images, self.opponents) / luma(exposure.level).clamp_min(0.05)
        around = torch.cat([_blur(chroma[:, :1], self.wide), _blur(chroma[:, 1:], self.wide)], 1)
        detail = chroma - around
        pools = [_mean(chroma, CELL), _largest(detail.relu(), CELL), _largest((-detail).relu(), CELL)]
        return torch.cat(pools, 1)

    def mirror(self, dim: int) -> Tensor:
        """Return the order of the features in a picture that was flipped along dim 2 (rows) or 3 (columns)."""
        turn = 0 if dim == 2 else _ORIENTATIONS // 2
        order = torch.arange(self.width)
        turned = 4 + (turn - torch.arange(_ORIENTATIONS)) % _ORIENTATIONS
        for start in range(0, _LEVELS * _PER_LEVEL, _PER_LEVEL):
            order[start + 4 : start + 4 + _ORIENTATIONS] = start + turned
        return order


def _surroundings(values: Tensor, real: Tensor) -> Tensor:
    """Return the mean of values (N, 1, h, w) ≥ 0 some 20 px around each pixel, plus a share of the overall mean."""
    wide, weight = values * real, real
    for size, stride, margin in ((4, 4, 0), (3, 1, 1), (3, 1, 1)):
        wide, weight = F.avg_pool2d(wide, size, stride, margin), F.avg_pool2d(weight, size, stride, margin)
    around = F.interpolate(wide / (weight + 1e-3), scale_factor=4.0, mode="bilinear", align_corners=False)
    overall = (values * real).sum((2, 3), keepdim=True) / (real.sum((2, 3), keepdim=True) + 1e-3)
    return around + _GLOBAL_SHARE * overall + 1e-4


def _mean(values: Tensor, cell: int) -> Tensor:
    return F.avg_pool2d(values, cell) if cell > 1 else values


def _largest(values: Tensor, cell: int) -> Tensor:
    return F.max_pool2d(values, cell) if cell > 1 else values
