"""Exposure: every picture brought to one mean and one contrast, so that a dimmer lamp is no anomaly."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oddment.models._base import sum_rows

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Exposed", "standardise_exposure"]

# What mean and standard deviation of a picture become.
_MEAN, _CONTRAST = 0.5, 0.2
# A picture with less contrast, such as an empty one, is not amplified to show its noise.
_LEAST_CONTRAST = 0.02


class Exposed(NamedTuple):
    """Pictures of one exposure, and the way back.

    Args:
        images: (N, C, H, W).
        mean: (N, 1, 1, 1), of each picture before.
        gain: (N, 1, 1, 1), what its deviations from that were multiplied by.
    """

    images: Tensor
    mean: Tensor
    gain: Tensor

    def undo(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) at the exposure that the pictures had."""
        return (images - _MEAN) / self.gain + self.mean


def standardise_exposure(images: Tensor, mask: Tensor) -> Exposed:
    """Return pictures whose real pixels have the mean 0.5 and the standard deviation 0.2, all channels together.

    Args:
        images: (N, C, H, W).
        mask: (N, 1, H, W), 1 on real pixels; padding is changed as the real pixels are, and not looked at.
    """
    channels = int(images.shape[1])
    area = sum_rows(mask.flatten(1)) * channels
    mean = (sum_rows((images * mask).flatten(1)) / area)[:, :, None, None]
    variance = (sum_rows(((images - mean).square() * mask).flatten(1)) / area)[:, :, None, None]
    gain = _CONTRAST / variance.sqrt().clamp_min(_LEAST_CONTRAST)
    return Exposed((images - mean) * gain + _MEAN, mean, gain)
