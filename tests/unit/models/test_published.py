"""The published networks against Keras: layer by layer, number by number.

`tests/fixtures/keras` was made by `tools/make_keras_fixtures.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from oddment import Detector
from oddment.errors import ParameterError
from oddment.models import (
    Autoencoder,
    Batch,
    Shape,
    build,
    get_spec,
    keras_layers,
    keras_parameters,
    keras_weights,
    load_keras_weights,
)
from oddment.scoring import ScoringGraph, export

FIXTURE = Path(__file__).parents[2] / "fixtures/keras/networks.npz"
with np.load(FIXTURE, allow_pickle=False) as archive:
    ARRAYS = {name: archive[name] for name in archive.files}
CASES: dict[str, dict[str, Any]] = json.loads(str(ARRAYS["about"]))["cases"]
# What the five systems say, encoder and decoder, and what Keras's summary lists layer by layer.
PUBLISHED = {
    "autoencoder": (50_240, 50_960, [50_240, 50_960]),
    "deep_autoencoder": (108_736, 109_456, [100_480, 8_256, 8_320, 101_136]),
    "convolutional_autoencoder": (6_104, 6_097, [320, 4_624, 1_160, 1_168, 4_640, 289]),
    "held_out_digit": (25_120, 25_872, [25_120, 25_872]),
    "latent_plane": (25_090, 26_369, [320, 18_496, 6_274, 6_336, 18_464, 1_569]),
    "contaminated_ones": (
        69_392,
        109_377,
        [320, 128, 18_496, 256, 50_192, 53_312, 36_928, 256, 18_464, 128, 289],
    ),
    "deepweeds": (
        2_121_216,
        2_223_587,
        [448, 64, 4_640, 128, 18_496, 256, 2_097_184, 2_162_688, 36_928, 256, 18_464, 128, 4_624, 64, 435],
    ),
}
NETWORKS = ["conv-pooling", "conv-strided", "conv-strided-deep", "dense-deep", "latent-plane"]
OTHER_SHAPES = [Shape(1, 28, 28), Shape(3, 24, 40), Shape(2, 8, 64)]


def fill(rng: np.random.Generator, layer: str, shapes: list[list[int]]) -> list[np.ndarray]:
    """The weights that the fixtures were made with; the same function as in tools/make_keras_fixtures.py."""
    draws = [rng.random(shape) * 2 - 1 for shape in shapes]
    if layer == "BatchNormalization":
        gamma, beta, mean, variance = draws
        weights = [1 + 0.3 * gamma, 0.2 * beta, 0.2 * mean, 1 + 0.5 * variance]
    else:
        kernel, bias = draws
        field = int(np.prod(kernel.shape[:-2]))
        weights = [kernel * np.sqrt(6 / (field * sum(kernel.shape[-2:]))), 0.1 * bias]
    return [weight.astype(np.float32) for weight in weights]


def make(case: dict[str, Any]) -> tuple[Autoencoder, torch.Tensor]:
    """Our network with Keras's weights, and the images that Keras was given, NCHW."""
    height, width, channels = case["shape"]
    model = build(case["model"], Shape(channels, height, width), case["options"])
    rng = np.random.default_rng(case["seed"])
    weights = [array for layer in case["layers"] for array in fill(rng, layer["layer"], layer["shapes"])]
    checksum = sum(float(np.abs(weight).sum(dtype=np.float64)) for weight in weights)
    assert checksum == pytest.approx(case["checksum"], rel=1e-9)
    load_keras_weights(model, weights)
    images = rng.random((case["count"], *case["shape"])).astype(np.float32)
    return model.eval(), torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@pytest.mark.parametrize("name", CASES)
def test_equals_keras(name: str) -> None:
    """With Keras's weights, latent and reconstruction are Keras's within 1e-5."""
    model, images = make(CASES[name])
    step = CASES[name]["step"]
    with torch.no_grad():
        latent = model.encode(images)
        output = model.decode(latent).permute(0, 2, 3, 1)[:, ::step, ::step]
    np.testing.assert_allclose(latent.numpy(), ARRAYS[f"{name}/latent"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(output.numpy(), ARRAYS[f"{name}/output"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_layers_equal_keras(name: str) -> None:
    """The layers with weights are Keras's, in its order, with its parameter counts."""
    case = CASES[name]
    height, width, channels = case["shape"]
    model = build(case["model"], Shape(channels, height, width), case["options"])
    assert keras_layers(model) == [(layer["layer"], layer["parameters"]) for layer in case["layers"]]
    assert keras_parameters(model) == case["parameters"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_are_the_published_ones(name: str) -> None:
    """Encoder, decoder and each layer have as many parameters as the systems' tables say."""
    case, (encoder, decoder, layers) = CASES[name], PUBLISHED[name]
    height, width, channels = case["shape"]
    model = build(case["model"], Shape(channels, height, width), case["options"])
    assert keras_parameters(model.get_submodule("encoder")) == encoder
    assert keras_parameters(model.get_submodule("decoder")) == decoder
    assert [count for _, count in keras_layers(model)] == layers


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("dense", "autoencoder"),
        ("dense-deep", "deep_autoencoder"),
        ("conv-pooling", "convolutional_autoencoder"),
        ("latent-plane", "latent_plane"),
        ("conv-strided", "contaminated_ones"),
        ("conv-strided-deep", "deepweeds"),
    ],
)
def test_defaults_are_the_published_ones(name: str, published: str) -> None:
    """Built without options, a model is the published network, wherever its weights start."""
    case = CASES[published]
    assert case["model"] == name
    options = {key: value for key, value in get_spec(name).options.items() if key != "start"}
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()} == case[
        "options"
    ]


def test_pooling_starts_from_the_mean_and_learns_where_the_original_draws_black() -> None:
    """Before training it draws each channel's mean; after it, less is left over than of a drawing that is black."""
    rng = np.random.default_rng(0)
    images = np.zeros((256, 16, 16, 3), np.uint8)
    for image, row, column in zip(images, *rng.integers(2, 10, (2, 256)), strict=True):
        image[row : row + 4, column : column + 3] = (255, 200, 90)
    losses = {}
    for start in ("mean", "gray"):
        detector = Detector(
            model="conv-pooling",
            options={"start": start},
            epochs=30,
            target_fpr=0.1,
            random_state=0,
            baseline_check=False,
        ).fit(images)
        losses[start] = detector.scorer_.model.info["training"]["history"][-1]["validation_loss"]
    black = float(np.square(images / 255).mean())
    assert losses["mean"] < 0.5 * min(black, losses["gray"])
    model = build("conv-pooling", Shape(3, 16, 16)).eval()
    batch = Batch(torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2), torch.ones(256, 1, 16, 16))
    with torch.no_grad():
        model.begin(lambda: iter([batch]))
        drawn = model(torch.zeros(1, 3, 16, 16))
    torch.testing.assert_close(drawn.mean((0, 2, 3)), batch.images.mean((0, 2, 3)).clamp(min=0.02))
    with pytest.raises(ParameterError, match="start must be mean or gray"):
        build("conv-pooling", Shape(3, 16, 16), {"start": "black"})


@pytest.mark.parametrize("shape", OTHER_SHAPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_other_sizes_and_gradients(name: str, shape: Shape) -> None:
    """Any size of the right multiple and any depth comes back in its shape, with a finite gradient for every weight."""
    if shape.height % get_spec(name).stride or shape.width % get_spec(name).stride:
        shape = Shape(shape.channels, 32, 32)
    torch.manual_seed(0)
    model = build(name, shape).train()
    images = torch.rand(4, shape.channels, shape.height, shape.width)
    assert model(images).shape == images.shape
    assert model.encode(images).ndim == 2
    mask = torch.ones(4, 1, shape.height, shape.width)
    model.loss(Batch(images, mask), torch.Generator()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients.values())
    assert any(bool(gradient.abs().sum() > 0) for gradient in gradients.values())


@pytest.mark.parametrize("shape", [Shape(1, 28, 28), Shape(3, 32, 48)])
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_agrees(name: str, shape: Shape) -> None:
    """ONNX Runtime gives what torch gives, for batches of other sizes than the exported one."""
    if shape.height % get_spec(name).stride:
        shape = Shape(shape.channels, 32, 32)
    torch.manual_seed(0)
    graph = ScoringGraph(build(name, shape), shape).eval()
    images = torch.rand(5, shape.channels, shape.height, shape.width)
    valid = torch.tensor([[0, 0, shape.height, shape.width]] * 4 + [[4, 2, shape.height - 3, shape.width]])
    with torch.no_grad():
        expected = graph(images, valid)
    session = onnxruntime.InferenceSession(export(graph), providers=["CPUExecutionProvider"])
    for given, reference in zip(
        session.run(None, {"images": images.numpy(), "valid": valid.numpy()}), expected, strict=True
    ):
        np.testing.assert_allclose(given, reference.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["conv-pooling", "conv-strided", "latent-plane"])
def test_start_is_glorots(name: str) -> None:
    """Kernels start uniform within Glorot's limit for Keras's fans, biases at zero, batch statistics at 0 and 1."""
    torch.manual_seed(0)
    for array in keras_weights(build(name, Shape(1, 28, 28))):
        if array.ndim == 1:
            assert set(np.unique(array)) <= {0.0, 1.0}
            continue
        fans = int(np.prod(array.shape[:-2])) * (array.shape[-2] + array.shape[-1])
        limit = np.sqrt(6 / fans)
        assert np.abs(array).max() <= limit
        assert array.std() == pytest.approx(limit / np.sqrt(3), rel=0.15)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("conv-pooling", {}, "multiples of 4"),
        ("conv-strided", {}, "multiples of 4"),
        ("conv-strided-deep", {}, "multiples of 8"),
        ("latent-plane", {}, "multiples of 4"),
    ],
)
def test_bad_sizes_say_which_are_good(name: str, options: dict[str, Any], message: str) -> None:
    """A size that cannot come back from halving is refused, with the multiple that it must be of."""
    with pytest.raises(ParameterError, match=message):
        build(name, Shape(1, 30, 30), options)


def test_more_filters_need_a_larger_multiple() -> None:
    """Four stages on 28×28 are refused by name of the rule, with the next size that works."""
    with pytest.raises(ParameterError, match=r"multiples of 16; got 28×28\. Set size=\(32, 32\)"):
        build("conv-strided", Shape(1, 28, 28), {"filters": (4, 4, 4, 4)})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conv-strided", {"filters": ()}),
        ("conv-strided", {"filters": (8, 0), "latent_dim": 0}),
        ("conv-pooling", {"filters": ()}),
        ("latent-plane", {"latent_dim": -1}),
    ],
)
def test_bad_widths_are_refused(name: str, options: dict[str, Any]) -> None:
    """Layers without channels are refused; all mistakes in one message."""
    with pytest.raises(ParameterError) as caught:
        build(name, Shape(1, 16, 16), options)
    assert all(option in str(caught.value) for option in options)


def test_one_filter_may_be_a_number() -> None:
    """The command line gives `filters=8` as a number."""
    assert build("conv-strided", Shape(1, 16, 16), {"filters": 8})(torch.rand(2, 1, 16, 16)).shape == (2, 1, 16, 16)


def test_weights_go_out_as_they_came_in() -> None:
    """What `load_keras_weights` copies in, `keras_weights` gives back."""
    model = build("conv-strided", Shape(3, 16, 16), {"filters": (4, 6), "latent_dim": 3})
    rng = np.random.default_rng(0)
    weights = [rng.random(array.shape).astype(np.float32) for array in keras_weights(model)]
    load_keras_weights(model, weights)
    for given, back in zip(weights, keras_weights(model), strict=True):
        np.testing.assert_array_equal(given, back)


def test_weights_of_another_model_are_refused() -> None:
    """Wrong number or shapes of arrays change nothing and name what is wrong."""
    model = build("dense", Shape(1, 4, 4), {"hidden": (3,)})
    before = keras_weights(model)
    with pytest.raises(ParameterError, match="4 arrays of weights and weights=3"):
        load_keras_weights(model, before[:3])
    with pytest.raises(ParameterError, match=r"weights\[0\] must have shape \(16, 3\); got \(3, 16\)"):
        load_keras_weights(model, [before[0].T, *before[1:]])
    assert all(np.array_equal(one, two) for one, two in zip(before, keras_weights(model), strict=True))
