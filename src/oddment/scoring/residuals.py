"""How a reconstruction differs from an image, pixel by pixel: the scores that `--score` names.

Each takes reconstructions and images (N, C, H, W) and returns (N, H, W), higher where they differ more. What looks at
neighbourhoods sees padding as a copy of the nearest real pixel, of the reconstruction too, so that padding never
matters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.models._base import channel_mean
from oddment.training.losses import EPSILON

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RESIDUALS", "residual"]

# Of SSIM, for values in [0, 1]: 11 × 11 pixels, a Gaussian of 1.5, and the constants of the source.
_WINDOW, _SIGMA, _C1, _C2 = 11, 1.5, 0.01**2, 0.03**2
_MIDDLE = 0.5
# Of the gradient magnitude similarity: 170 for values up to 255.
_C_GRADIENT = 170 / 255**2
_SCALES, _LEAST_SIDE = 4, 8
# Of artanh's power series, the last first.
_TERMS = (13, 11, 9, 7, 5, 3, 1)
# Below the square root, so that no gradient of nothing is asked for.
_TINY = 1e-12


def residual(name: str, reconstruction: Tensor, images: Tensor, valid: Tensor) -> Tensor:
    """Return how the reconstruction differs (N, H, W), by the residual of that name; padding holds whatever comes.

    Args:
        name: one of `RESIDUALS`.
        reconstruction: (N, C, H, W).
        images: (N, C, H, W).
        valid: int64 (N, 4), the (top, left, bottom, right) of real pixels.
    """
    if name in _NEIGHBOURS:
        reconstruction, images = _without_padding(reconstruction, valid), _without_padding(images, valid)
    return RESIDUALS[name](reconstruction, images)


def squared_error(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean over channels of the squared difference."""
    return channel_mean((images - reconstruction).square())


def absolute_error(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean over channels of the absolute difference."""
    return channel_mean((images - reconstruction).abs())


def cross_entropy(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return the mean over channels of the binary cross-entropy, which is not 0 where a gray pixel is redrawn.

    Source: as `oddment.training.losses.binary_cross_entropy`, which training descends on.
    """
    predicted = reconstruction.clamp(EPSILON, 1 - EPSILON)
    return -channel_mean(images * _log(predicted) + (1 - images) * _log(1 - predicted))


def structural_dissimilarity(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return (1 - SSIM) / 2, mean over channels, in [0, 1].

    Source:
        Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity"
        (2004), equation 13; as an anomaly map Bergmann et al., "Improving unsupervised defect segmentation by applying
        structural similarity to autoencoders" (2019). Differs in the border, where the nearest pixel is repeated.
    """
    # Around 0, where the differences of large squares that variances are lose least of float32.
    a, b = images - _MIDDLE, reconstruction - _MIDDLE
    moments = _blurred(torch.cat([a, b, a.square(), b.square(), a * b], 1))
    x, y, xx, yy, xy = torch.chunk(moments, 5, 1)
    variances, covariance = (xx - x.square()).clamp_min(0) + (yy - y.square()).clamp_min(0), xy - x * y
    x, y = x + _MIDDLE, y + _MIDDLE
    likeness = (2 * x * y + _C1) * (2 * covariance + _C2)
    likeness = likeness / ((x.square() + y.square() + _C1) * (variances + _C2))
    return channel_mean(((1 - likeness) / 2).clamp_min(0))


def gradient_dissimilarity(reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return 1 - the gradient magnitude similarity, mean over scales, in [0, 1].

    Source:
        Zavrtanik, Kristan and Skočaj, "Reconstruction by inpainting for visual anomaly detection" (2021), section 3.2;
        the similarity is that of Xue, Zhang, Mou and Bovik, "Gradient magnitude similarity deviation" (2014), equation
        4. Differs in taking only scales whose shorter side has 8 pixels or more, of four, and in leaving out the mean
        filter of 21 × 21 pixels at the end, which small pictures have no room for: `--pool` does its work.
    """
    height, width = (int(side) for side in images.shape[2:])
    scales = max(1, min(_SCALES, int(math.log2(max(1, min(height, width) / _LEAST_SIDE))) + 1))
    unit = 2 ** (scales - 1)
    margin = (0, -width % unit, 0, -height % unit)
    both = [F.pad(each.mean(1, keepdim=True), margin, mode="replicate") for each in (images, reconstruction)]
    size, total = (height + margin[3], width + margin[1]), torch.zeros_like(both[0])
    for scale in range(scales):
        first, second = (_gradient(each) for each in both)
        unlike = 1 - (2 * first * second + _C_GRADIENT) / (first.square() + second.square() + _C_GRADIENT)
        total = total + (F.interpolate(unlike, size, mode="bilinear", align_corners=False) if scale else unlike)
        both = [F.avg_pool2d(each, 2) for each in both] if scale < scales - 1 else both
    return (total[:, 0, :height, :width] / scales).clamp_min(0)


RESIDUALS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "mse": squared_error,
    "mae": absolute_error,
    "bce": cross_entropy,
    "ssim": structural_dissimilarity,
    "msgms": gradient_dissimilarity,
}
_NEIGHBOURS = frozenset({"ssim", "msgms"})


def _without_padding(pictures: Tensor, valid: Tensor) -> Tensor:
    """Pictures (N, C, H, W) whose padding is a copy of the nearest real pixel."""
    for axis, first, last in ((2, 0, 2), (3, 1, 3)):
        place = torch.arange(int(pictures.shape[axis]), device=pictures.device)[None]
        place = torch.minimum(torch.maximum(place, valid[:, first, None]), valid[:, last, None] - 1)
        place = place[:, None, :, None] if axis == 2 else place[:, None, None, :]
        pictures = pictures.gather(axis, place.expand_as(pictures))
    return pictures


def _log(values: Tensor) -> Tensor:
    """The natural logarithm of values in [2⁻²⁴, 1], to 2e-7 of its size.

    ONNX Runtime's own rounds values at the ends of a thread's share otherwise than those between, so that a score would
    depend on the place in a batch. Here every step is rounded as IEEE 754 says, wherever it is computed.
    """
    halvings = torch.zeros_like(values)
    for steps in (16, 8, 4, 2, 1):
        small = values < 2.0**-steps
        values = torch.where(small, values * 2.0**steps, values)
        halvings = torch.where(small, halvings + float(steps), halvings)
    # Now in [1/2, 1], where log x = 2 artanh((x - 1) / (x + 1)) converges fast.
    ratio = (values - 1) / (values + 1)
    square = ratio * ratio
    series = torch.full_like(values, 1 / _TERMS[0])
    for term in _TERMS[1:]:
        series = series * square + 1 / term
    logarithm: Tensor = 2 * ratio * series - halvings * math.log(2)
    return logarithm


def _blurred(pictures: Tensor) -> Tensor:
    """The Gaussian mean of each plane of (N, C, H, W), the nearest pixel repeated beyond the border."""
    bell = [math.exp(-((place - _WINDOW // 2) ** 2) / (2 * _SIGMA**2)) for place in range(_WINDOW)]
    weights = [value / sum(bell) for value in bell]
    # Lists, not tensors that are repeated: the exporter wants kernels that are constants.
    planes = int(pictures.shape[1])
    across = torch.tensor([[[weights]]] * planes, device=pictures.device)
    down = torch.tensor([[[[value] for value in weights]]] * planes, device=pictures.device)
    padded = F.pad(pictures, (_WINDOW // 2,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, across, groups=planes), down, groups=planes)


def _gradient(gray: Tensor) -> Tensor:
    """The gradient magnitude of (N, 1, H, W) by Prewitt's operator."""
    across = [[1 / 3, 0.0, -1 / 3]] * 3
    kernels = torch.tensor([[across], [[list(row) for row in zip(*across, strict=True)]]], device=gray.device)
    sides = F.conv2d(F.pad(gray, (1, 1, 1, 1), mode="replicate"), kernels)
    return (sides.square().sum(1, keepdim=True) + _TINY).sqrt()
