"""Keras's conventions in torch: what the published networks are built of, and the way in and out for their weights.

Source: Keras 3.15 and, for batch statistics, Keras 2, with which the reference systems were published. "same" padding
is TensorFlow's: what cannot be shared out evenly goes to the bottom and the right. `Flatten` and `Reshape` walk
height, width, channels. Glorot's limit sqrt(6 / (fan_in + fan_out)) is the same in both layouts, transposed kernels
included, since only the sum of the fans enters; so that `keras_start` serves.

Batch normalisation: momentum 0.99 (torch counts from the other end: 0.01) and epsilon 1e-3. Keras 3 keeps the biased
batch variance in its moving average; Keras 2 as published (its fused kernel) and torch keep the corrected one,
n / (n - 1), and so do we. Inference with copied weights is the same in all three.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FlattenLast",
    "SameConv2d",
    "SameConvTranspose2d",
    "UnflattenLast",
    "keras_batch_norm",
    "keras_layers",
    "keras_parameters",
    "keras_weights",
    "load_keras_weights",
]


class SameConv2d(nn.Sequential):
    """A convolution with "same" padding: (N, C, H, W) to (N, filters, H / stride, W / stride).

    Args:
        channels: C.
        filters: channels of the result.
        kernel: height and width of the kernel.
        stride: H and W must be multiples of it; for those, the padding does not depend on them.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1) -> None:
        before, total = (kernel - stride) // 2, kernel - stride
        if total % 2 == 0:
            super().__init__(nn.Conv2d(channels, filters, kernel, stride, padding=before))
        else:
            after = total - before
            # ONNX Runtime folds this padding into the convolution.
            super().__init__(nn.ZeroPad2d((before, after, before, after)), nn.Conv2d(channels, filters, kernel, stride))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution with "same" padding: (N, C, H, W) to (N, filters, H * stride, W * stride).

    Args:
        channels: C.
        filters: channels of the result.
        kernel: height and width of the kernel, no smaller than the stride.
        stride: factor of height and width.
        bias: whether a bias is added.
    """

    def __init__(self, channels: int, filters: int, kernel: int, stride: int = 1, *, bias: bool = True) -> None:
        super().__init__(channels, filters, kernel, stride, padding=(kernel - stride) // 2, bias=bias)
        self.surplus = (kernel - stride) % 2

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002 - torch's name
        """Return the result, cropped at the bottom and the right by what torch cannot crop on one side alone."""
        if self.training and input.device.type == "cpu":
            return self._descend(input)
        full = super().forward(input, output_size)
        return full[..., : -self.surplus, : -self.surplus] if self.surplus else full

    def _descend(self, images: Tensor) -> Tensor:
        """The same numbers from the gradient of the convolution that this one transposes: up to 2 × as fast on CPUs."""
        weight = self.weight
        if torch.is_autocast_enabled("cpu"):
            kind = torch.get_autocast_dtype("cpu")
            images, weight = images.to(kind), weight.to(kind)
        full: Tensor = _Transposed.apply(images, weight, self.stride[0], self.padding[0])  # type: ignore[no-untyped-call]
        grown: Tensor = full[..., : -self.surplus, : -self.surplus] if self.surplus else full
        return grown if self.bias is None else grown + self.bias.to(grown.dtype).view(1, -1, 1, 1)


class _Transposed(torch.autograd.Function):
    """A transposed convolution as the gradient, by its input, of the convolution with the same kernel.

    The library's own transposed convolution reaches a quarter of the speed of that gradient on CPUs (oneDNN 3.12).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:  # noqa: ANN401 - torch's
        """Return (N, O, s(H - 1) + k - 2p, …) for images (N, I, H, W) and weight (I, O, k, k)."""
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        height, width = ((length - 1) * stride + weight.shape[2] - 2 * padding for length in images.shape[2:])
        like = images.new_empty((len(images), weight.shape[1], height, width)).contiguous(
            memory_format=torch.channels_last
        )
        return _gradients(images, like, weight, stride, padding, (True, False))[0]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:  # noqa: ANN401
        """Return the gradients by images and weight."""
        images, weight = ctx.saved_tensors
        slope = slopes[0]
        by_images = F.conv2d(slope, weight, None, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        by_weight = _gradients(images, slope, weight, ctx.stride, ctx.padding, (False, True))[1]
        return by_images, by_weight, None, None


def _gradients(
    slope: Tensor, images: Tensor, weight: Tensor, stride: int, padding: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """The gradients of conv2d(images, weight) by images and by weight, where `slope` is that by its result."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        slope, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [*wanted, False]
    )
    return found[:2]


class FlattenLast(nn.Module):
    """(N, C, H, W) to (N, H·W·C), Keras's order; costs nothing in torch's channels-last layout."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the rows."""
        return images.permute(0, 2, 3, 1).flatten(1)


class UnflattenLast(nn.Module):
    """(N, H·W·C) to (N, C, H, W).

    Args:
        channels: C.
        height: H.
        width: W.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.volume = (height, width, channels)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the images."""
        return rows.reshape(-1, *self.volume).permute(0, 3, 1, 2)


def keras_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Return a BatchNormalization with Keras's defaults; see the head of this file for the variance it keeps."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


# --- weights


class _Slot(NamedTuple):
    """A tensor of ours and the axes of Keras's array in our order."""

    tensor: Tensor
    axes: tuple[int, ...]


# Keras's (height, width, in, out) becomes (out, in, height, width), and for transposed kernels (height, width, out, in)
# becomes (in, out, height, width): the same axes.
_KERNEL, _MATRIX, _VECTOR = (3, 2, 0, 1), (1, 0), (0,)
_NAMES: dict[type[nn.Module], str] = {
    nn.Linear: "Dense",
    nn.Conv2d: "Conv2D",
    nn.ConvTranspose2d: "Conv2DTranspose",
    nn.BatchNorm2d: "BatchNormalization",
}


def _slots(module: nn.Module) -> list[_Slot]:
    """The weights of one layer in the order in which Keras lists them; none for a layer without."""
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        kernel = _Slot(module.weight, _MATRIX if isinstance(module, nn.Linear) else _KERNEL)
        return [kernel] if module.bias is None else [kernel, _Slot(module.bias, _VECTOR)]
    if isinstance(module, nn.BatchNorm2d):
        tensors = (module.weight, module.bias, module.running_mean, module.running_var)
        return [_Slot(tensor, _VECTOR) for tensor in tensors if tensor is not None]
    return []


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, list[_Slot]]]:
    """The layers with weights, in the order in which the model holds them."""
    for module in model.modules():
        if slots := _slots(module):
            yield module, slots


def keras_layers(model: nn.Module) -> list[tuple[str, int]]:
    """Return Keras's name and parameter count of each layer with weights, as Keras's `summary` lists them.

    Keras counts the moving mean and variance of BatchNormalization among the (non-trainable) parameters.

    Example:
        >>> from oddment.models import Shape, build
        >>> keras_layers(build("dense", Shape(1, 28, 28)))
        [('Dense', 50240), ('Dense', 50960)]
    """
    return [(_keras_name(layer), sum(slot.tensor.numel() for slot in slots)) for layer, slots in _layers(model)]


def _keras_name(layer: nn.Module) -> str:
    return next(name for kind, name in _NAMES.items() if isinstance(layer, kind))


def keras_parameters(model: nn.Module) -> int:
    """Return the number of parameters as Keras prints it, moving statistics included.

    Example:
        >>> from oddment.models import Shape, build
        >>> keras_parameters(build("dense", Shape(1, 28, 28)))
        101200
    """
    return sum(count for _, count in keras_layers(model))


def keras_weights(model: nn.Module) -> list[NDArray[np.float32]]:
    """Return copies of the weights as Keras's `get_weights` gives them, layer after layer, encoder first."""
    return [
        np.ascontiguousarray(slot.tensor.detach().cpu().numpy().transpose(np.argsort(slot.axes)))
        for _, slots in _layers(model)
        for slot in slots
    ]


@torch.no_grad()
def load_keras_weights(model: nn.Module, weights: Sequence[NDArray[np.float32]]) -> None:
    """Copy the weights of a Keras model into ours.

    Args:
        model: one of the published networks, or any of dense, (transposed) convolution and BatchNorm2d layers.
        weights: `[w for layer in keras_model.layers for w in layer.get_weights()]`, of the encoder, then the decoder:
            kernel and bias; gamma, beta, moving mean and moving variance.

    Raises:
        ParameterError: if number or shapes of the arrays are not the model's; nothing is copied then.
    """
    slots = [slot for _, found in _layers(model) for slot in found]
    if len(slots) != len(weights):
        msg = f"the model has {len(slots)} arrays of weights and weights={len(weights)} were given."
        raise ParameterError(msg)
    arrays = [np.asarray(array, np.float32) for array in weights]
    wrong = [
        f"weights[{index}] must have shape {tuple(slot.tensor.shape[axis] for axis in np.argsort(slot.axes))}; "
        f"got {array.shape}."
        for index, (slot, array) in enumerate(zip(slots, arrays, strict=True))
        if tuple(slot.tensor.shape) != _reordered(array.shape, slot.axes)
    ]
    if wrong:
        raise ParameterError(" ".join(wrong))
    for slot, array in zip(slots, arrays, strict=True):
        slot.tensor.copy_(torch.from_numpy(np.ascontiguousarray(array.transpose(slot.axes))))


def _reordered(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape with its axes in another order; None where it has not that many."""
    return tuple(shape[axis] for axis in axes) if len(shape) == len(axes) else None
