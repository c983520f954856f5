"""Convolution, ReLU and pooling in one go while a model trains, where torch's own steps do work that is not needed.

What is computed is what the layers say, but for rounding. On the large maps of a convolutional autoencoder a step
waits for memory more than it computes, so that passes over them are what is saved:

- The largest of four values is rectified instead of all four, which is the same number.
- A ReLU writes where it reads.
- The first convolution, whose images need no gradient, gives the four values that pooling compares side by side: one
  matrix product, and comparisons of whole numbers, in whose order floating-point numbers above zero lie.
- Gradients of a convolution to very few channels are one product of shifted slopes with a map, and a convolution.
- Those of a convolution of an upsampled map are those of a strided one of the small map: four ninths of the operations.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.models._keras import SameConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["run_stages"]

# Channels up to which a convolution is done as products of its images with all of its kernel at once.
_FEW = 4
# Whole numbers as wide, in which torch computes four times as fast: positive numbers lie in their order, negative ones
# below.
_BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
_LEAST = 128  # pixels of a small map, from which it was measured to gain
_PARTS = 8  # of a sum over all pixels of a batch
# Of a square of two by two, row and column, as the halves of a row of values hold them: the upper and the lower row of
# the left column, then those of the right one.
_CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))


def run_stages(layers: Iterable[nn.Module], images: Tensor) -> Tensor:
    """Return what the layers make of the images, one after the other, by the short way where there is one."""
    rest = list(layers)
    short = images.device.type == "cpu" and images.dtype in _BITS and not torch.onnx.is_in_onnx_export()
    while rest:
        layer = rest.pop(0)
        doubled = short and bool(rest) and _takes_doubled(rest[0]) and _doubles(layer, images)
        if doubled:
            layer = rest.pop(0)
        if not (short and isinstance(layer, SameConv2d) and _is_plain(layer[-1])):
            images = layer(images)
            continue
        rectified = bool(rest) and isinstance(rest[0], nn.ReLU)
        pooled = rectified and not doubled and len(rest) > 1 and isinstance(rest[1], nn.MaxPool2d)
        images = _stage(layer[-1], images, doubled=doubled, rectified=rectified, pooled=pooled)
        del rest[: rectified + pooled]
    return images


def _doubles(layer: nn.Module, images: Tensor) -> bool:
    """Whether it repeats each pixel in a square of two by two, of maps that are not tiny."""
    nearest = isinstance(layer, nn.Upsample) and layer.mode == "nearest" and layer.scale_factor == 2
    return nearest and images.shape[2] * images.shape[3] >= _LEAST


def _takes_doubled(layer: nn.Module) -> bool:
    """Whether it is a convolution whose gradients are sooner found on the map before it was doubled."""
    if not (isinstance(layer, SameConv2d) and _is_plain(layer[-1])):
        return False
    filters, _, height, width = layer[-1].weight.shape  # type: ignore[misc]
    return filters > _FEW and height == width == 3


def _is_plain(layer: nn.Module) -> bool:
    """Whether it is a convolution of stride 1 that pads as much before as after."""
    return isinstance(layer, nn.Conv2d) and layer.stride == (1, 1) and layer.kernel_size[0] % 2 == 1


def _stage(layer: nn.Module, images: Tensor, *, doubled: bool, rectified: bool, pooled: bool) -> Tensor:
    """What one convolution makes of the images, with upsampling before it, a ReLU and 2×2 pooling after it if so."""
    weight, bias = layer.weight, layer.bias
    if doubled:
        large: Tensor = _Doubled.apply(images, weight, bias, rectified)  # type: ignore[no-untyped-call]
        return large
    # Without gradients models are watched, by numbers that must not hide what is not finite, as whole numbers may.
    if pooled and torch.is_grad_enabled() and not images.requires_grad and images.shape[1] <= _FEW:
        first: Tensor = _FirstPooled.apply(images, weight, bias)  # type: ignore[no-untyped-call]
        return first
    found: Tensor = _Convolved.apply(images, weight, bias, rectified and not pooled)  # type: ignore[no-untyped-call]
    return F.relu(F.max_pool2d(found, 2)) if pooled else found


def _products_kind(images: Tensor) -> torch.dtype:
    """The type that products take their factors in."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else images.dtype


class _Convolved(torch.autograd.Function):
    """A "same" convolution of stride 1 with an odd kernel, and the ReLU after it if there is one."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, rectified: bool) -> Tensor:  # noqa: ANN401, FBT001 - torch's
        """Return (N, O, H, W) for images (N, I, H, W), weight (O, I, k, k) and bias (O,)."""
        kind = _products_kind(images)
        images, kernel, bias = images.to(kind), weight.to(kind), bias.to(kind)
        # Products in bfloat16 would be rounded before they are added up.
        narrow = len(kernel) <= _FEW and kind == torch.float32
        found = (
            _narrow(images, kernel, bias) if narrow else F.conv2d(images, kernel, bias, padding=kernel.shape[2] // 2)
        )
        if rectified:
            _rectify(found)
        ctx.save_for_backward(images, kernel, found if rectified else None)
        return found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:  # noqa: ANN401
        """Return the gradients by images, weight and bias."""
        images, kernel, found = ctx.saved_tensors
        slope = slopes[0] if found is None else torch.ops.aten.threshold_backward(slopes[0], found, 0)
        return *_gradients(slope, images, kernel, wanted=ctx.needs_input_grad[0]), None


class _Doubled(torch.autograd.Function):
    """Nearest upsampling by two, a "same" convolution of stride 1 with a kernel of three, and a ReLU if there is one.

    What comes back from the large map is a strided convolution with the kernel as the small map's pixels meet it.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, rectified: bool) -> Tensor:  # noqa: ANN401, FBT001 - torch's
        """Return (N, O, 2H, 2W) for images (N, I, H, W), weight (O, I, 3, 3) and bias (O,)."""
        kind = _products_kind(images)
        images = images.to(kind)
        large = F.interpolate(images, scale_factor=2.0)
        found = F.conv2d(large, weight.to(kind), bias.to(kind), padding=1)
        if rectified:
            _rectify(found)
        # In float32 the kernel's gradient is sooner found on the small map as well, in bfloat16 on the large one.
        ctx.save_for_backward(images if kind == torch.float32 else large, weight, found if rectified else None)
        return found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:  # noqa: ANN401
        """Return the gradients by images, weight and bias."""
        images, weight, found = ctx.saved_tensors
        slope = slopes[0] if found is None else torch.ops.aten.threshold_backward(slopes[0], found, 0)
        met = _channels_last(_met(weight).to(slope.dtype))
        by_images = F.conv2d(slope, met, stride=2, padding=1) if ctx.needs_input_grad[0] else None
        if images.shape[2:] == slope.shape[2:]:
            return by_images, *_gradients(slope, images, weight.to(slope.dtype), wanted=False)[1:], None
        by_met = torch.ops.aten.convolution_backward(
            images, slope, met, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
        )[1]
        return by_images, _unmet(by_met), slope.sum((0, 2, 3)), None


def _met(kernel: Tensor) -> Tensor:
    """(O, I, 3, 3) to (I, O, 4, 4): by what a pixel of a map adds to the pixels around the four that repeat it."""
    turned = kernel.flip(2, 3).transpose(0, 1)
    down = F.pad(turned, (0, 0, 0, 1)) + F.pad(turned, (0, 0, 1, 0))
    return F.pad(down, (0, 1)) + F.pad(down, (1, 0))


def _unmet(slope: Tensor) -> Tensor:
    """The gradient (O, I, 3, 3) by a kernel, where `slope` (I, O, 4, 4) is that by what `_met` makes of it."""
    down = slope[:, :, :-1] + slope[:, :, 1:]
    return (down[..., :-1] + down[..., 1:]).flip(2, 3).transpose(0, 1)


def _rectify(values: Tensor) -> None:
    """Set what is below zero to zero, where it is."""
    if values.dtype == torch.bfloat16:
        values.view(torch.int16).clamp_min_(0)
    else:
        values.relu_()


def _gradients(slope: Tensor, images: Tensor, kernel: Tensor, *, wanted: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """The gradients by images, if wanted, kernel and bias, where `slope` is that by the convolution's result."""
    filters, channels, side, _ = kernel.shape
    if filters > _FEW:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            slope, images, kernel, [filters], [1, 1], [side // 2] * 2, [1, 1], False, [0, 0], 1, [wanted, True, True]
        )
        return found
    sums = _long_product(_shifted(slope, side), _rows(images))
    by_kernel = sums.view(filters, side, side, channels).flip(1, 2).permute(0, 3, 1, 2)
    mirrored = _channels_last(kernel.flip(2, 3).transpose(0, 1))
    by_images = F.conv2d(slope, mirrored, padding=side // 2) if wanted else None
    return by_images, by_kernel, slope.sum((0, 2, 3))


def _long_product(few: Tensor, many: Tensor) -> Tensor:
    """Return few (M, K) @ many (K, N) where K is very long: as parts, each by itself, and their sum.

    Of a single product of 9 rows in bfloat16, two threads take 39 ms where one takes 3, and the parts take 1.
    """
    length = few.shape[1]
    parts = math.gcd(length, _PARTS)
    left = few.view(-1, parts, length // parts).transpose(0, 1)
    found: Tensor = torch.bmm(left, many.view(parts, length // parts, -1)).sum(0)
    return found


def _channels_last(kernel: Tensor) -> Tensor:
    """The same, laid out with channels last beyond doubt.

    With a single channel either layout is the other, torch takes the first, makes maps of channels first, and is ten
    times as slow with these beside others: 42 instead of 3 ms a step at 64×64.
    """
    _, channels, height, width = kernel.shape
    laid = kernel.contiguous(memory_format=torch.channels_last)
    return laid.as_strided(laid.shape, (height * width * channels, 1, width * channels, channels))


def _rows(maps: Tensor) -> Tensor:
    """(N, C, H, W) to (N·H·W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _shifted(maps: Tensor, side: int, stride: int = 1, more: int = 0) -> Tensor:
    """(N, C, H, W) to (C·k·k + more, N·H·W / stride²): each pixel's neighbourhood, by channel, row, column; then ones.

    Of every `stride`-th pixel along rows and columns; k is `side + stride - 1`.
    """
    count, channels, height, width = maps.shape
    padded, reach = F.pad(maps, [side // 2] * 4), side + stride - 1
    around = padded.unfold(2, reach, stride).unfold(3, reach, stride).permute(1, 4, 5, 0, 2, 3)
    found = maps.new_ones(channels * reach**2 + more, count, height // stride, width // stride)
    found[: channels * reach**2].view(around.shape).copy_(around)
    return found.flatten(1)


def _narrow(images: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution to few channels, as a product with all of the kernel and a sum of what is shifted by it."""
    filters, channels, side, _ = kernel.shape
    count, _, height, width = images.shape
    parts = kernel.permute(0, 2, 3, 1).reshape(-1, channels) @ _rows(images).t()
    padded = images.new_zeros(filters, count, height + side - 1, width + side - 1)
    for (channel, top, left), part in zip(
        product(range(filters), range(side), range(side)), parts.view(-1, count, height, width), strict=True
    ):
        down, right = side - 1 - top, side - 1 - left
        padded[channel, :, down : down + height, right : right + width] += part
    reach = side // 2
    inside = padded[:, :, reach : reach + height, reach : reach + width]
    return inside.transpose(0, 1).add(bias[:, None, None]).contiguous()


class _FirstPooled(torch.autograd.Function):
    """A "same" convolution of images with few channels, 2×2 max pooling and a ReLU; the images get no gradient.

    Of equal values the first gets the slope, row by row, as torch's pooling has it.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # noqa: ANN401 - torch's
        """Return (N, O, H / 2, W / 2) for images (N, I, H, W), weight (O, I, k, k) and bias (O,)."""
        kind, (filters, channels, side, _) = _products_kind(images), weight.shape
        seen = _shifted(images.to(kind), side, stride=2, more=1)
        spread = weight.new_zeros(channels, side + 1, side + 1, 4, filters)
        for place, (down, right) in enumerate(_CORNERS):
            spread[:, down : down + side, right : right + side, place] = weight.permute(1, 2, 3, 0)
        kernels = torch.cat([spread.view(-1, 4 * filters), bias.repeat(4)[None]]).to(kind)
        corners = (seen.t() @ kernels).view(_BITS[kind])
        rows = torch.maximum(*_halves(corners))
        found = torch.maximum(*_halves(rows)).clamp_min_(0)
        ctx.save_for_backward(seen, corners, rows, found)
        ctx.shape = weight.shape
        count, _, height, width = images.shape
        return found.view(kind).view(count, height // 2, width // 2, filters).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[None, Tensor, Tensor]:  # noqa: ANN401
        """Return the gradients by weight and bias."""
        seen, corners, rows, found = ctx.saved_tensors
        filters, channels, side, _ = ctx.shape
        slope = _where(torch.gt, found, 0, _rows(slopes[0]).view(found.dtype), torch.empty_like(found))
        for values in (rows, corners):
            slope = _shared(slope, values)
        parts = _long_product(seen, slope.view(seen.dtype)).float()
        spread = parts[:-1].view(channels, side + 1, side + 1, 4, filters)
        by_weight = torch.stack(
            [spread[:, down : down + side, right : right + side, place] for place, (down, right) in enumerate(_CORNERS)]
        ).sum(0)
        return None, by_weight.permute(3, 0, 1, 2), parts[-1].view(4, filters).sum(0)


def _halves(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The first and the second half of each row."""
    middle = rows.shape[1] // 2
    return rows[:, :middle], rows[:, middle:]


def _shared(slope: Tensor, values: Tensor) -> Tensor:
    """The bits of a slope in each half of the values: in the second where it is larger, else in the first."""
    found = torch.empty_like(values)
    first, second = _halves(found)
    _where(torch.lt, *_halves(values), slope, second)
    torch.sub(slope, second, out=first)
    return found


def _where(holds: Callable[..., Tensor], first: Tensor, second: Tensor | int, bits: Tensor, found: Tensor) -> Tensor:
    """The bits where something holds of two values, zero elsewhere: by a product, which is quicker than a choice."""
    return holds(first, second, out=found).mul_(bits)
