"""What every registered model promises: a model is tested by being registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from oddment.errors import ParameterError
from oddment.models import Batch, ModelSpec, Shape, build, get_spec, model_names, register
from oddment.scoring import ScoringGraph, export

if TYPE_CHECKING:
    from oddment.models import Autoencoder

# A multiple of every stride, and no square, so that a confusion of rows and columns shows.
HEIGHT, WIDTH = 32, 64


@pytest.fixture(params=model_names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[name for name in model_names() if get_spec(name).trains])
def trained(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1, 3], ids=["gray", "colour"])
def shape(request: pytest.FixtureRequest) -> Shape:
    return Shape(request.param, HEIGHT, WIDTH)


def make(name: str, shape: Shape, seed: int = 0) -> Autoencoder:
    torch.manual_seed(seed)
    return build(name, shape)


def pictures(shape: Shape, count: int, seed: int = 0) -> Batch:
    """Waves of random phase, the last third of the columns padding."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    phase = rng.uniform(0, 6, (count, shape.channels, 1, 1))
    images = 0.5 + 0.3 * np.sin(row / 3 + phase) * np.cos(column / 4) + rng.normal(0, 0.03, (count, 1, HEIGHT, WIDTH))
    mask = torch.ones(count, 1, HEIGHT, WIDTH)
    mask[..., WIDTH * 2 // 3 :] = 0
    return Batch(torch.from_numpy(images.astype(np.float32)), mask)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_forward_gives_images_and_a_latent_of_rows(name: str, shape: Shape) -> None:
    """Encode gives (N, L), decode and forward give the images' shape, and none of it is NaN."""
    model = make(name, shape).eval()
    batch = pictures(shape, 3)
    with torch.no_grad():
        latent = model.encode(batch.images)
        reconstruction = model.decode(latent)
        forward = model(batch.images)
    assert latent.ndim == 2
    assert len(latent) == 3
    assert reconstruction.shape == batch.images.shape
    assert torch.equal(forward, reconstruction)
    assert torch.isfinite(latent).all()
    assert torch.isfinite(reconstruction).all()


def test_leftover_has_the_shapes_that_scoring_needs(name: str, shape: Shape) -> None:
    """The map is (N, H, W) and not negative, the reconstruction has the images' shape, the latent is encode's."""
    model = make(name, shape).eval()
    batch = pictures(shape, 3)
    with torch.no_grad():
        left = model.leftover(batch)
    assert left.anomaly_map.shape == (3, HEIGHT, WIDTH)
    assert (left.anomaly_map >= 0).all()
    assert left.reconstruction.shape == batch.images.shape
    assert left.latent.shape == model.encode(batch.images).shape
    assert all(torch.isfinite(tensor).all() for tensor in left if tensor is not None)


def test_backward_reaches_every_parameter(trained: str, shape: Shape) -> None:
    """The loss is a finite scalar and every parameter but those of frozen networks gets a finite gradient."""
    model = make(trained, shape).train()
    loss = model.loss(pictures(shape, 4), generator())
    loss.backward()
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    learnt = {key: parameter for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learnt
    for key, parameter in learnt.items():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


def test_loss_falls_on_a_tiny_set(trained: str) -> None:
    """Thirty steps on eight pictures lower training and validation loss."""
    shape = Shape(1, HEIGHT, WIDTH)
    model, batch, chance = make(trained, shape), pictures(shape, 8), generator()
    with torch.no_grad():
        model.begin(lambda: iter([batch]))
    optimizer = torch.optim.Adam(model.parameters(), get_spec(trained).learning_rate)
    losses, watched = [], [float(model.eval().validation_loss(batch).detach())]
    model.train()
    for _ in range(30):
        loss = model.loss(batch, chance)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    watched.append(float(model.eval().validation_loss(batch).detach()))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert watched[1] < watched[0]


def test_chance_comes_from_the_generator_alone(name: str) -> None:
    """Equal generators give equal losses whatever the global state, which stays as it was."""
    shape = Shape(3, HEIGHT, WIDTH)
    model, batch = make(name, shape).train(), pictures(shape, 6)
    torch.manual_seed(1)
    first = model.loss(batch, generator(5))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = model.loss(batch, generator(5))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_validation_loss_has_no_chance_in_it(name: str) -> None:
    """Twice the same number."""
    shape = Shape(1, HEIGHT, WIDTH)
    model, batch = make(name, shape).eval(), pictures(shape, 4)
    assert torch.equal(model.validation_loss(batch), model.validation_loss(batch))


def test_equal_seeds_build_equal_models(name: str) -> None:
    """Weights start from the global generator."""
    shape = Shape(1, HEIGHT, WIDTH)
    first, second = make(name, shape, 3).state_dict(), make(name, shape, 3).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_onnx_runtime_scores_like_torch(name: str, shape: Shape) -> None:
    """The exported graph takes any batch size and agrees with torch to 1e-4, settled model and padding included."""
    model, batch = make(name, shape).eval(), pictures(shape, 12)
    with torch.no_grad():
        model.begin(lambda: iter([batch]))
        model.settle(lambda: iter([batch]))
    graph = ScoringGraph(model, shape).eval()
    session = onnxruntime.InferenceSession(export(graph), providers=["CPUExecutionProvider"])
    valid = torch.tensor([[0, 0, HEIGHT, WIDTH * 2 // 3]] * 12)
    valid[0, 0], valid[1, 3] = 20, WIDTH
    for count in (1, 12):
        with torch.no_grad():
            expected = graph(batch.images[:count], valid[:count])
        found = session.run(None, {"images": batch.images[:count].numpy(), "valid": valid[:count].numpy()})
        for ours, theirs in zip(expected, found, strict=True):
            assert ours.shape == theirs.shape
            assert np.abs(ours.numpy() - theirs).max() <= 1e-4 * max(1e-6, float(ours.abs().max()))


def test_a_score_does_not_depend_on_its_neighbours(name: str, shape: Shape) -> None:
    """A picture alone and among others gets the same score up to rounding."""
    model, batch = make(name, shape).eval(), pictures(shape, 5)
    graph, valid = ScoringGraph(model, shape), torch.tensor([[0, 0, HEIGHT, WIDTH]] * 5)
    with torch.no_grad():
        together = graph(batch.images, valid)[0]
        alone = torch.cat([graph(batch.images[i : i + 1], valid[:1])[0] for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)


def test_padding_is_never_scored(name: str, shape: Shape) -> None:
    """The map is 0 on padding."""
    model, batch = make(name, shape).eval(), pictures(shape, 2)
    with torch.no_grad():
        anomaly_map = ScoringGraph(model, shape)(batch.images, torch.tensor([[4, 8, 30, 40]] * 2))[1]
    inside = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    inside[4:30, 8:40] = True
    assert (anomaly_map[:, ~inside] == 0).all()
    assert (anomaly_map[:, inside] > 0).any()


def test_options_are_taken_and_unknown_ones_refused(name: str) -> None:
    """Every option can be given its own default; one that does not exist is named in the error."""
    spec = get_spec(name)
    build(name, Shape(1, HEIGHT, WIDTH), dict(spec.options))
    with pytest.raises(ParameterError, match="no option depth_of_thought"):
        build(name, Shape(1, HEIGHT, WIDTH), {"depth_of_thought": 3})


@pytest.mark.parametrize("name", [name for name in model_names() if get_spec(name).stride > 1])
def test_a_size_off_the_stride_is_refused(name: str) -> None:
    """The message says which multiples are wanted."""
    stride = get_spec(name).stride
    with pytest.raises(ParameterError, match=f"multiples of {stride}"):
        build(name, Shape(1, HEIGHT + 1, WIDTH))


def test_the_spec_is_complete(name: str) -> None:
    """One line of summary, and numbers that a training can use."""
    spec = get_spec(name)
    assert spec.summary
    assert "\n" not in spec.summary
    assert spec.stride >= 1
    assert spec.side % spec.stride == 0
    assert 0 < spec.learning_rate < 1
    assert min(spec.batch_size, spec.steps, spec.scoring_batch, *spec.epochs) >= 1


def test_unknown_and_taken_names_are_refused() -> None:
    """The nearest name is suggested; a second model of one name is an error."""
    with pytest.raises(ParameterError, match="Did you mean 'conv-large'"):
        get_spec("conv-larg")
    with pytest.raises(ParameterError, match="registered already"):
        register(ModelSpec(name="dense", summary="again", build=get_spec("dense").build))
