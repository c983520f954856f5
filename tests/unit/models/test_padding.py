"""Padding that convolutions take over: what is folded, what is left, and that the numbers stay."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._frames import _around, local_contrast
from oddment.models._padding import fold_crops, fold_padding

IMAGES = torch.rand(2, 3, 10, 12, generator=torch.Generator().manual_seed(0))


class Padded(nn.Module):
    """A picture, padded, and convolved."""

    def __init__(
        self, margin: list[int], *, value: float = 0.0, mode: str = "constant", own: int = 0, shown: bool = False
    ) -> None:
        super().__init__()
        self.margin, self.value, self.mode, self.shown = margin, value, mode, shown
        self.filter = nn.Conv2d(3, 5, 3, stride=2, padding=own)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the result, and the padded picture where that is wanted."""
        more = {"value": self.value} if self.mode == "constant" else {}
        padded = F.pad(images, self.margin, mode=self.mode, **more)
        found = self.filter(padded)
        return (found, padded.sum(1)) if self.shown else (found,)


def exported(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (IMAGES,), buffer, dynamo=False, opset_version=17, input_names=["images"])  # type: ignore[arg-type]
    return buffer.getvalue()


def kinds(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(graph).graph.node]


def assert_same(graph: bytes, module: nn.Module) -> None:
    """The graph is a valid one and gives what the module gives."""
    onnx.checker.check_model(onnx.load_model_from_string(graph))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        for ours, theirs in zip(session.run(None, {"images": IMAGES.numpy()}), module(IMAGES), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("margin", [[0, 1, 0, 1], [2, 1, 0, 3], [1, 1, 1, 1]])
@pytest.mark.parametrize("own", [0, 1])
def test_zeros_around_a_convolution_are_its_own(margin: list[int], own: int) -> None:
    """The graph has one node less that matters, and gives the same."""
    module = Padded(margin, own=own)
    graph = fold_padding(exported(module))
    assert "Pad" in kinds(exported(module))
    assert kinds(graph) == ["Conv"]
    assert_same(graph, module)


@pytest.mark.parametrize(
    "module",
    [
        Padded([0, 1, 0, 1], value=0.5),
        Padded([1, 1, 1, 1], mode="reflect"),
        Padded([0, 1, 0, 1], shown=True),
        Padded([-1, 1, 0, 1]),
    ],
    ids=["another value", "another mode", "wanted elsewhere", "a crop"],
)
def test_other_padding_stays(module: nn.Module) -> None:
    """What is no border of zeros, or is looked at by others, is left as it is."""
    graph = fold_padding(exported(module))
    assert "Pad" in kinds(graph)
    assert_same(graph, module)


class Cropped(nn.Module):
    """A transposed convolution of which something is cut off."""

    def __init__(self, rows: slice, columns: slice, *, shown: bool = False) -> None:
        super().__init__()
        self.rows, self.columns, self.shown = rows, columns, shown
        self.grow = nn.ConvTranspose2d(3, 4, 3, 2)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the rest, and the whole where that is wanted."""
        full = self.grow(images)
        found = full[:, :, self.rows, self.columns]
        return (found, full) if self.shown else (found,)


@pytest.mark.parametrize(
    "module",
    [
        Cropped(slice(None, -1), slice(None, -1)),
        Cropped(slice(None), slice(None, -2)),
        Cropped(slice(1, -1), slice(2, None)),
    ],
    ids=["below and right", "right", "all around"],
)
def test_what_is_cut_off_is_not_made(module: nn.Module) -> None:
    """Cropping is part of the transposed convolution, and the rest is the same."""
    graph = fold_crops(exported(module))
    assert "Slice" in kinds(exported(module))
    assert kinds(graph) == ["ConvTranspose"]
    assert_same(graph, module)


@pytest.mark.parametrize(
    "module",
    [
        Cropped(slice(None, -1), slice(None, -1), shown=True),
        Cropped(slice(None, 5), slice(None)),
        Cropped(slice(None, None, 2), slice(None)),
        Cropped(slice(-3, None), slice(None)),
    ],
    ids=["wanted whole", "the first rows", "every other row", "the last rows"],
)
def test_other_cuts_stay(module: nn.Module) -> None:
    """Slices that are no border, or leave what is wanted elsewhere, are left as they are."""
    graph = fold_crops(exported(module))
    assert "Slice" in kinds(graph)
    assert_same(graph, module)


def test_what_lies_around_has_no_denormal_weights() -> None:
    """Weights of a Gaussian are numbers that processors are quick with, and sum to 1."""
    weights = _around(320, 12.0)
    some = weights[weights != 0]
    assert some.min() > 1e-20
    assert len(some) < weights.numel()
    torch.testing.assert_close(weights.sum(1), torch.ones(320))
    frames = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(1))
    assert local_contrast(frames, 12.0).isfinite().all()
