"""Layers that are exported in another form, with the same result: to few channels, after upsampling, in phases."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper
from torch import nn

from oddment.models import Shape, build, get_spec
from oddment.models._keras import SameConvTranspose2d, keras_batch_norm
from oddment.models._padding import fold_crops
from oddment.scoring import ScoringGraph, export
from oddment.scoring.narrow import widen_narrow
from oddment.scoring.phases import split_phases
from oddment.scoring.upsampled import fold_upsampling

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def exported(layer: nn.Module, images: torch.Tensor) -> bytes:
    """A graph with a free batch, crops left to the convolution before them."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            layer.eval(),
            (images,),
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=["images"],
            output_names=["drawn"],
            dynamic_axes={name: {0: "batch"} for name in ("images", "drawn")},
        )
    return fold_crops(buffer.getvalue())


def operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_model_from_string(graph).graph.node]


def run(graph: bytes, images: torch.Tensor) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"images": images.numpy()})[0]
    return result


# --- to few channels


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


# --- after upsampling


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


# --- in phases


def settled(layers: nn.Module) -> nn.Module:
    """Batch normalisation as it is after training, with a shift that shows at the borders."""
    for layer in layers.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor)
    return layers


@pytest.mark.parametrize("size", [(7, 7), (4, 9), (1, 1), (2, 1)])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_map(size: tuple[int, int], kernel: int, *, bias: bool) -> None:
    """Any size, kernel and padding, odd ones included, which are cut off on one side alone."""
    torch.manual_seed(0)
    layers = settled(
        nn.Sequential(SameConvTranspose2d(16, 20, kernel, stride=2, bias=bias), nn.LeakyReLU(0.3), keras_batch_norm(20))
    )
    images = torch.randn(3, 16, *size)
    before = exported(layers, images)
    after = split_phases(before)
    assert operators(before)[0] == "ConvTranspose"
    assert operators(after).count("Conv") == 4
    assert operators(after)[-2:] == ["Concat", "DepthToSpace"]
    onnx.checker.check_model(onnx.load_model_from_string(after), full_check=True)
    np.testing.assert_allclose(run(after, images), run(before, images), atol=1e-5)
    np.testing.assert_allclose(run(after, images[:1]), run(before, images[:1]), atol=1e-5)


@pytest.mark.parametrize("size", [(7, 7), (4, 9), (1, 1), (2, 1)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_the_same_picture(size: tuple[int, int], channels: int, kernel: int, *, transposed: bool, bias: bool) -> None:
    """A last convolution to few channels, transposed or not, is done on the phases, which are not put together."""
    torch.manual_seed(0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    last = kind(16, channels, kernel, padding=kernel // 2, bias=bias)
    grown = SameConvTranspose2d(16, 16, 3, stride=2, bias=bias)
    layers = settled(nn.Sequential(grown, nn.ReLU(), keras_batch_norm(16), last, nn.Sigmoid()))
    images = torch.randn(2, 16, *size)
    before = exported(layers, images)
    after = split_phases(before)
    assert [operators(after).count(kind) for kind in ("Conv", "Concat", "DepthToSpace")] == [8, 0, 1]
    onnx.checker.check_model(onnx.load_model_from_string(after), full_check=True)
    np.testing.assert_allclose(run(after, images), run(before, images), atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(16, 1, 4, stride=2, padding=1),
        nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1),
        nn.ConvTranspose2d(16, 16, 4, stride=2),
        nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1),
        nn.ConvTranspose2d(16, 16, 3, stride=1, padding=1),
        nn.ConvTranspose2d(16, 16, 5, stride=3, padding=1),
        nn.ConvTranspose2d(16, 16, 3, stride=2, padding=2, dilation=2, output_padding=1),
        nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(16, 16, (4, 2), stride=2, padding=(1, 0)),
    ],
)
def test_other_layers_stay(layer: nn.Module) -> None:
    """Few channels, a map that is not twice as large, dilations, groups and oblong kernels stay as they are."""
    graph = exported(layer, torch.zeros(1, layer.in_channels, 9, 9))  # type: ignore[arg-type]
    assert operators(split_phases(graph)) == operators(graph)


class Twice(nn.Module):
    """A map that is used twice, or is a result itself."""

    def __init__(self) -> None:
        super().__init__()
        self.grown, self.last = SameConvTranspose2d(16, 16, 3, stride=2), nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return both uses, added."""
        grown = self.grown(images)
        return self.last(grown).relu() + grown.mean(1, keepdim=True)


def test_a_map_that_is_used_twice_is_put_together() -> None:
    """What else looks at it finds it."""
    torch.manual_seed(0)
    images = torch.randn(2, 16, 5, 6)
    before = exported(Twice(), images)
    after = split_phases(before)
    assert operators(after).count("Concat") == 1
    np.testing.assert_allclose(run(after, images), run(before, images), atol=1e-5)


@pytest.mark.parametrize(("name", "channels"), [("conv-strided-deep", 3), ("conv-strided", 1), ("conv-small", 1)])
def test_networks(name: str, channels: int, tmp_path: Path) -> None:
    """Their scores are torch's; the runtime adds up phases while it computes them, and has no sum of its own."""
    torch.manual_seed(0)
    shape = Shape(channels, 32, 32)
    graph = ScoringGraph(settled(build(name, shape)), shape).eval()  # type: ignore[arg-type]
    content = export(graph)
    images, valid = torch.rand(3, channels, 32, 32), torch.tensor([[0, 0, 32, 32]] * 3)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["anomaly_score"], {"images": images.numpy(), "valid": valid.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(scores, graph(images, valid)[0].numpy(), rtol=1e-5)
    assert "DepthToSpace" in operators(content)
    assert "Add" not in [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]


def test_bits_do_not_depend_on_the_place_in_a_batch() -> None:
    """A picture's score is the same wherever it lies."""
    torch.manual_seed(0)
    shape = Shape(3, 32, 32)
    content = export(ScoringGraph(build("conv-strided-deep", shape), shape).eval())
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    count = get_spec("conv-strided-deep").scored_at_once(Shape(3, 256, 256))
    images = np.random.default_rng(0).random((1, 3, 32, 32), np.float32).repeat(count, axis=0)
    valid = np.array([[0, 0, 32, 32]] * count, np.int64)
    (scores,) = session.run(["anomaly_score"], {"images": images, "valid": valid})
    assert np.unique(scores).size == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_after_narrow_layers(channels: int) -> None:
    """A last convolution that `widen_narrow` has turned into a transposed one is done on the phases all the same."""
    torch.manual_seed(0)
    last = nn.Conv2d(16, channels, 3, padding=1)
    images = torch.randn(1, 16, 4, 4)
    before = widen_narrow(exported(nn.Sequential(SameConvTranspose2d(16, 16, 3, stride=2), nn.ReLU(), last), images))
    after = split_phases(before)
    assert [operators(graph).count("ConvTranspose") for graph in (before, after)] == [2, 0]
    np.testing.assert_allclose(run(after, images), run(before, images), atol=1e-5)


def test_padding_that_is_not_the_same_on_both_axes_stays() -> None:
    """A row cut off at the top and a column at the right: what no exporter of ours writes, and others may."""
    model = onnx.load_model_from_string(exported(SameConvTranspose2d(16, 16, 3, stride=2), torch.zeros(1, 16, 5, 5)))
    [node] = model.graph.node
    [pads] = [item for item in node.attribute if item.name == "pads"]
    assert list(pads.ints) == [0, 0, 1, 1]
    assert "DepthToSpace" in operators(split_phases(model.SerializeToString()))
    pads.CopyFrom(helper.make_attribute("pads", [1, 0, 0, 1]))
    assert operators(split_phases(model.SerializeToString())) == ["ConvTranspose"]
