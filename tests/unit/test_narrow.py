"""Convolutions to few channels, and those after upsampling, are exported in another form with the same result."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from oddment.models import Shape, build
from oddment.scoring import ScoringGraph, export
from oddment.scoring.narrow import widen_narrow
from oddment.scoring.upsampled import fold_upsampling

if TYPE_CHECKING:
    from numpy.typing import NDArray


def exported(layer: nn.Module, images: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(layer.eval(), (images,), buffer, dynamo=False, opset_version=17, input_names=["images"])
    return buffer.getvalue()


def operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(graph).graph.node]


def run(graph: bytes, images: torch.Tensor) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"images": images.numpy()})[0]
    return result


@pytest.mark.parametrize("kernel", [(3, 3), (5, 3), (2, 2), (1, 4)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_sums(kernel: tuple[int, int], padding: int, *, bias: bool) -> None:
    """Any kernel and padding, with a bias or without, gives the convolution's result and shape."""
    if padding >= min(kernel):
        padding = 0
    torch.manual_seed(0)
    images = torch.randn(2, 20, 9, 7)
    layer = nn.Conv2d(20, 3, kernel, padding=padding, bias=bias)
    before = exported(layer, images)
    after = widen_narrow(before)
    assert (operators(before), operators(after)) == (["Conv"], ["ConvTranspose"])
    onnx.checker.check_model(onnx.load_model_from_string(after), full_check=True)
    np.testing.assert_allclose(run(after, images), run(before, images), atol=2e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(20, 5, 3),
        nn.Conv2d(8, 1, 3),
        nn.Conv2d(20, 1, 1),
        nn.Conv2d(20, 1, 3, stride=2),
        nn.Conv2d(20, 1, 3, dilation=2),
        nn.Conv2d(20, 4, 3, groups=2),
        nn.Conv2d(20, 1, 3, padding=3),
    ],
)
def test_what_would_not_gain_stays(layer: nn.Module) -> None:
    """Wider results, few inputs, single pixels, strides, dilations, groups and wide padding stay as they are."""
    graph = exported(layer, torch.zeros(1, layer.in_channels, 9, 9))  # type: ignore[arg-type]
    assert operators(widen_narrow(graph)) == operators(graph)


@pytest.mark.parametrize("size", [(7, 7), (4, 9), (1, 1), (2, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_upsampled_sums(size: tuple[int, int], channels: int, *, bias: bool) -> None:
    """The same pictures from the small map, whatever its size, with a bias or without."""
    torch.manual_seed(0)
    wide, last = nn.Conv2d(5, 20, 3, padding=1, bias=bias), nn.Conv2d(20, channels, 3, padding=1, bias=bias)
    layers = nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), wide, nn.ReLU(), last, nn.Sigmoid())
    images = torch.randn(2, 5, *size)
    before = exported(layers, images)
    after = fold_upsampling(before)
    assert "Resize" in operators(before)
    assert "Resize" not in operators(after)
    onnx.checker.check_model(onnx.load_model_from_string(after), full_check=True)
    np.testing.assert_allclose(run(after, images), run(before, images), atol=2e-6)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 5, 3, padding=1)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 3, padding=1), nn.Sigmoid(), nn.Conv2d(8, 1, 3, padding=1)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)],
        [nn.Upsample(scale_factor=3), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1)],
        [
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(4, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 1, 3, padding=1),
        ],
        [nn.Upsample(scale_factor=2), nn.Conv2d(4, 8, 3, padding=1), nn.ReLU()],
    ],
)
def test_other_layers_are_not_folded(layers: list[nn.Module]) -> None:
    """Many channels at the end, another function, kernel, padding or factor, and a chain cut short stay as they are."""
    graph = exported(nn.Sequential(*layers), torch.zeros(1, 4, 6, 6))
    assert operators(fold_upsampling(graph)) == operators(graph)


def test_the_pooling_network() -> None:
    """Its last layers, 32 channels to 1, are done on the small map, and its scores are torch's."""
    torch.manual_seed(0)
    graph = ScoringGraph(build("conv-pooling", Shape(1, 28, 28)), Shape(1, 28, 28)).eval()
    content = export(graph)
    assert (operators(content).count("ConvTranspose"), operators(content).count("Resize")) == (1, 1)
    images, valid = torch.rand(3, 1, 28, 28), torch.tensor([[0, 0, 28, 28]] * 3)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["anomaly_score"], {"images": images.numpy(), "valid": valid.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(scores, graph(images, valid)[0].numpy(), rtol=1e-5)
