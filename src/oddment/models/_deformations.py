"""Which differences between normal pictures count less: those that come with how a thing happens to lie in its frame.

Pictures of a kind are shifted against each other where things fill their frame, as cloth does, and differ in width and
height where things are centred in it, as strokes are. Each of some normal pictures is shifted or stretched a little;
what that does to its code has a covariance, and codes are multiplied by the inverse square root of it and the identity.
Distances, planes and Gaussians then all forgive such differences, at no cost for the picture that is scored.

Turning and slanting pictures was found to forgive what tells strokes apart, and is left out.

Source: Keysers, Macherey, Ney and Dahmen, "Adaptation in statistical pattern recognition using tangent vectors" (2004),
sections 3 and 4, where tangents widen the covariance; Simard, LeCun and Denker, "Efficient pattern recognition using a
new transformation distance" (1993).
Differs in one covariance for all pictures instead of tangents of each, and in small steps instead of derivatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor

from oddment.models._base import Batch

if TYPE_CHECKING:
    from oddment.models._gradients import GradientFeatures

__all__ = ["forgiving"]

_SHIFTED = 0.043  # at most, of a side: 1.2 pixels of 28
_STRETCHED = 0.15  # at most, of the width and of the height, each by itself
_DEFORMED = 2000  # pictures that are deformed
_TIMES = 2  # times each
_WHOLE = 0.999  # of a pixel that came from inside the picture; gradients at others are left out
_STILL = 1e-5  # mean square along a direction, of features of length 1: less is what rounding does to even pictures


def forgiving(
    features: GradientFeatures,
    pictures: Batch,
    centre: Tensor,
    directions: Tensor,
    *,
    strokes: float,
    strength: float,
    seed: int,
) -> Tensor:
    """Return the symmetric matrix (K, K) that codes are multiplied by, which keeps their mean squared length.

    Args:
        features: of pictures.
        pictures: normal ones.
        centre: (1, W), the mean of the features.
        directions: (K, W), that make codes of features less their mean.
        strokes: 0 where shifts are forgiven, 1 where stretching is; both, in parts, between.
        strength: mean variance of the deformations along a direction, where the identity has 1; 0 forgives nothing.
        seed: of the deformations.
    """
    if not strength:
        return torch.eye(len(directions))
    step = -(-len(pictures.images) // _DEFORMED)
    some = Batch(pictures.images[::step], pictures.mask[::step])
    still = _codes(features, some, directions)
    chance = torch.Generator().manual_seed(seed)
    moved = torch.zeros(len(directions), len(directions))
    for share, shift, stretch in ((1 - strokes, _SHIFTED, 0.0), (strokes, 0.0, _STRETCHED)):
        if share:
            by = [_codes(features, _deformed(some, shift, stretch, chance), directions) - still for _ in range(_TIMES)]
            moved += share * _covariance(torch.cat(by))
    values, axes = torch.linalg.eigh(moved.double() * strength)
    metric: Tensor = ((axes / (1 + values.clamp_min(0)).sqrt()) @ axes.T).float()
    codes = still - F.linear(centre, directions)
    before, after = codes.square().sum(), (codes @ metric).square().sum()
    return metric * (before / after).sqrt() if after > 0 else metric


def _codes(features: GradientFeatures, pictures: Batch, directions: Tensor) -> Tensor:
    return F.linear(features.of_many(pictures.images, pictures.mask), directions)


def _covariance(moved: Tensor) -> Tensor:
    """Return the second moment (K, K) of differences (n, K), the mean of its diagonal 1; 0 where nothing moved."""
    found = moved.T @ moved / len(moved)
    mean = found.diagonal().mean()
    return found / mean if mean > _STILL else torch.zeros_like(found)


def _deformed(pictures: Batch, shift: float, stretch: float, chance: torch.Generator) -> Batch:
    """Return pictures moved by up to `shift` of their sides and stretched by up to `stretch`, real where they were."""

    def drawn(most: float) -> Tensor:
        return (torch.rand(len(pictures.images), generator=chance) * 2 - 1) * most

    # Sides of a picture are from -1 to 1 here.
    wider, right, taller, lower = 1 + drawn(stretch), drawn(2 * shift), 1 + drawn(stretch), drawn(2 * shift)
    none = torch.zeros_like(wider)
    place = torch.stack([torch.stack([wider, none, right], 1), torch.stack([none, taller, lower], 1)], 1)
    grid = F.affine_grid(place, list(pictures.images.shape), align_corners=False)
    images, mask = (F.grid_sample(part, grid, align_corners=False) for part in (pictures.images, pictures.mask))
    return Batch(images, pictures.mask * (mask > _WHOLE))
