"""Networks that others trained, as frozen front ends of one form, whoever wrote them.

Two kinds: the EfficientNets of `_pretrained`, whose weights come by pip, and any convolutional network of timm's by its
name there (`timm:resnet18`), with weights that timm fetches, or from a file of the user's
(`timm:resnet18@weights.safetensors`). timm is no dependency: who names it has it.

Source: Wightman, "PyTorch Image Models" (2019), https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from oddment.errors import MissingExtraError, ParameterError
from oddment.models._pretrained import BACKBONES, EfficientNetLite

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DETAIL_STRIDE", "STRIDE", "Backbone", "load_backbone"]

STRIDE = 32
"""Pixels to a cell of the deepest features."""
DETAIL_STRIDE = 16
"""Pixels to a cell of the finer ones."""

_TIMM = "timm:"
# The last blocks of the fourth and the fifth stage, and the last two of all.
_TAPS = {"efficientnet-lite0": (7, 10, 14, 15), "efficientnet-lite2": (10, 14, 19, 20)}
_LITE_MEAN, _LITE_DEVIATION = (0.498,), (0.502,)  # as these networks were trained


class Backbone(nn.Module):
    """A frozen network, from frames in 0..1 to its features.

    Args:
        network: takes (N, 3, H, W) and returns the features that are looked at, a list, coarser ones last: one for
            texture and one for detail, at `DETAIL_STRIDE`, and the deepest ones, at `STRIDE`.
        widths: channels of each.
        mean: of the pictures that the network was trained on, one value or one a channel.
        deviation: likewise.

    Attributes:
        texture: channels of the features for texture.
        detail: of those for detail.
        deepest: of all deepest features together.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, network: nn.Module, widths: Sequence[int], mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.texture, self.detail, *deepest = widths
        self.deepest = sum(deepest)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation).view(1, -1, 1, 1), persistent=False)
        self.requires_grad_(requires_grad=False)
        self.train(mode=False)

    def train(self, mode: bool = True) -> Backbone:  # noqa: ARG002, FBT001, FBT002 - torch's signature
        """Stay as trained: what the network normalises by must not follow the pictures."""
        return super().train(mode=False)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features for texture, for detail, and the deepest ones, each (N, D, h, w).

        Args:
            frames: (N, C, H, W) in 0..1, C 1 or 3; H and W multiples of 32.
        """
        shown = ((frames - self.mean) / self.deviation).expand(-1, 3, -1, -1)
        texture, detail, *deepest = self.network(shown.contiguous(memory_format=torch.channels_last))
        return texture, detail, torch.cat(deepest, 1)


def load_backbone(name: str) -> Backbone:
    """Return a network with its weights.

    Args:
        name: in `BACKBONES`, or `timm:NAME`, or `timm:NAME@FILE` with a file of safetensors.

    Raises:
        ParameterError: if there is none of that name, or it has no features at 16 and 32 pixels a cell.
        MissingExtraError: if what holds its weights is not installed, or they cannot be had.
    """
    if name.startswith(_TIMM):
        return _timm(name)
    if name not in BACKBONES:
        known = ", ".join(BACKBONES)
        msg = f"backbone must be one of {known}, or {_TIMM}NAME for a network of timm's; got {name!r}."
        raise ParameterError(msg)
    network = EfficientNetLite(name, _TAPS[name])
    network.load()
    return Backbone(network, network.widths, _LITE_MEAN, _LITE_DEVIATION)


class _Timm(nn.Module):
    """What timm calls a feature network, its finer output given twice: for texture and for detail."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        fine, deep = self.network(images)
        return [fine, fine, deep]


def _timm(name: str) -> Backbone:
    model, _, file = name.removeprefix(_TIMM).partition("@")
    try:
        import timm
    except ImportError as error:
        msg = f"backbone={name!r} is a network of timm's, which is not installed: pip install timm."
        raise MissingExtraError(msg) from error
    if not timm.is_model(model):
        near = ", ".join(timm.list_models(f"*{model}*")[:3])
        msg = f"backbone={name!r}: timm has no model {model!r}." + (f" It has {near}." if near else "")
        raise ParameterError(msg)
    strides = _strides(name, lambda **more: timm.create_model(model, features_only=True, **more))
    network = _with_weights(name, timm, model, file, strides)
    about = timm.get_pretrained_cfg(model)
    channels = network.feature_info.channels()
    return Backbone(_Timm(network), [channels[0], *channels], about.mean, about.std)


def _strides(name: str, create: Any) -> tuple[int, int]:  # noqa: ANN401 - timm ships no types
    """Which of a network's outputs have 16 and 32 pixels to a cell."""
    try:
        found = list(create(pretrained=False).feature_info.reduction())
    except (AttributeError, RuntimeError, AssertionError, TypeError) as error:
        msg = f"backbone={name!r} gives no features stage by stage: {error}. Take a convolutional network."
        raise ParameterError(msg) from error
    if not {DETAIL_STRIDE, STRIDE} <= set(found):
        msg = (
            f"backbone={name!r} must have outputs of {DETAIL_STRIDE} and of {STRIDE} pixels to a cell; it has "
            f"{', '.join(map(str, found))}. Take a convolutional network such as timm:resnet18."
        )
        raise ParameterError(msg)
    # The last of a kind has seen most.
    last = len(found) - 1 - found[::-1].index(STRIDE)
    return len(found) - 1 - found[::-1].index(DETAIL_STRIDE), last


def _with_weights(name: str, timm: Any, model: str, file: str, outputs: tuple[int, int]) -> Any:  # noqa: ANN401
    more: dict[str, Any] = {}
    if file:
        # The other kind of file that timm reads is a pickle.
        if Path(file).suffix != ".safetensors" or not Path(file).is_file():
            msg = f"backbone={name!r}: {file} must be a file of safetensors, whose name ends in .safetensors."
            raise ParameterError(msg)
        more["pretrained_cfg_overlay"] = {"file": file}
    try:
        return timm.create_model(model, pretrained=True, features_only=True, out_indices=outputs, **more)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        msg = (
            f"the weights of {model} cannot be had: {reason}. Fetch them where there is a network, or name a file: "
            f"backbone={_TIMM}{model}@weights.safetensors."
        )
        raise MissingExtraError(msg) from error
