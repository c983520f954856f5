"""Optimisers, schedules and losses against Keras: the same weights after the same ten steps.

`tests/fixtures/keras/training.npz` was made by `tools/make_keras_fixtures.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment.errors import ParameterError
from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.models import Autoencoder, Batch, Shape, build, keras_weights, load_keras_weights
from oddment.progress import Progress
from oddment.training.checkpoint import Checkpoint
from oddment.training.direct_adam import DirectAdam
from oddment.training.loop import Plan, TrainingState, train
from oddment.training.losses import binary_cross_entropy, training_loss, validation_loss
from oddment.training.optimizers import (
    LEARNING_RATES,
    descend,
    flatten_state,
    make_optimizer,
    rate_at,
    restore_state,
    set_rate,
)
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from collections.abc import Iterator

FIXTURE = Path(__file__).parents[2] / "fixtures/keras/training.npz"
with np.load(FIXTURE, allow_pickle=False) as archive:
    ARRAYS = {name: archive[name] for name in archive.files}
ABOUT: dict[str, Any] = json.loads(str(ARRAYS["about"]))
CASES = list(enumerate(ABOUT["optimizers"]))


def arrays(prefix: str) -> list[np.ndarray]:
    """The weights stored under a prefix, in order."""
    return [ARRAYS[f"{prefix}/{i}"] for i in range(sum(name.startswith(f"{prefix}/") for name in ARRAYS))]


def steps(model: Autoencoder, images: torch.Tensor, case: dict[str, Any]) -> Iterator[float]:
    """Descend one step a batch as the training loop does; yields each step's loss."""
    schedule = "inverse-time" if case["decay"] else "constant"
    optimizer = make_optimizer(case.get("optimizer", "adam"), model.parameters(), case["rate"])
    for step, batch in enumerate(images):
        set_rate(optimizer, rate_at(schedule, case["rate"], fraction=0.0, step=step, decay=case["decay"]), step)
        real = torch.ones_like(batch[:, :1])
        loss = training_loss(model, Batch(batch, real), torch.Generator(), case.get("loss", "mse"))
        optimizer.zero_grad()
        loss.backward()
        descend(optimizer)
        yield loss.item()


@pytest.mark.parametrize(
    ("number", "case"), CASES, ids=[f"{case['optimizer']}-{case['loss']}-{case['decay']}" for _, case in CASES]
)
def test_ten_steps_equal_keras(number: int, case: dict[str, Any]) -> None:
    """Ten steps of each optimiser, loss and schedule end at Keras's weights within 1e-5, through the same losses."""
    model = build("dense", Shape(1, 3, 4), {"hidden": (5,)})
    load_keras_weights(model, arrays("start"))
    losses = list(steps(model, torch.from_numpy(ARRAYS["batches"]).view(10, 4, 1, 3, 4), case))
    np.testing.assert_allclose(losses, case["losses"], rtol=0, atol=1e-5)
    moved = 0.0
    for start, ours, keras in zip(arrays("start"), keras_weights(model), arrays(str(number)), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=0, atol=1e-5)
        moved = max(moved, float(np.abs(ours - start).max()))
    assert moved > 1e-3


def test_ten_steps_of_system_5_equal_keras_2() -> None:
    """With convolutions, batch statistics and decay as published, weights and moving averages are Keras 2's."""
    about = ABOUT["strided"]
    height, width, channels = about["shape"]
    model = build("conv-strided", Shape(channels, height, width), about["options"]).train()
    load_keras_weights(model, arrays("strided/start"))
    # One bias has no gradient but rounding, since the batch mean takes it away again, and Adam makes steps of rounding:
    # float32 on both sides ends 1.2e-5 to 2.2e-5 apart there, in that one number. In float64 ours has no such noise.
    model = model.double()
    images = torch.from_numpy(ARRAYS["strided/batches"]).permute(0, 1, 4, 2, 3).double()
    losses = list(steps(model, images, about))
    np.testing.assert_allclose(losses, about["losses"], rtol=0, atol=1e-5)
    for ours, keras in zip(keras_weights(model), arrays("strided/end"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=0, atol=1e-5)


def test_default_rates_are_keras() -> None:
    """The default learning rates are those of Keras."""
    assert pytest.approx(ABOUT["defaults"]) == LEARNING_RATES


def test_cross_entropy_equals_keras_where_predictions_touch_0_and_1() -> None:
    """Predictions are kept 1e-7 away from 0 and 1; value and gradient are Keras's."""
    output = torch.from_numpy(ARRAYS["bce/output"]).requires_grad_()
    value = binary_cross_entropy(output, torch.from_numpy(ARRAYS["bce/target"])).mean(1)
    value.sum().backward()
    np.testing.assert_allclose(value.detach().numpy(), ARRAYS["bce/value"], rtol=1e-5)
    assert output.grad is not None
    np.testing.assert_allclose(output.grad.numpy(), ARRAYS["bce/gradient"], rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_padding_is_not_part_of_a_loss(loss: Any) -> None:
    """What lies on padding changes no loss."""
    torch.manual_seed(0)
    model = build("conv-pooling", Shape(1, 8, 8)).eval()
    model.forward = lambda images: torch.full_like(images, 0.25)  # type: ignore[method-assign]
    images, mask = torch.rand(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    mask[..., 5:] = 0
    other = torch.where(mask.bool(), images, torch.rand(2, 1, 8, 8))
    one, two = (validation_loss(model, Batch(batch, mask), loss) for batch in (images, other))
    assert float(one) == float(two)


def test_schedules() -> None:
    """Constant stays, inverse-time is lr / (1 + decay · step), cosine warms up and ends at a hundredth."""
    assert rate_at("constant", 0.1, fraction=0.7, step=70, decay=9.0) == 0.1
    assert rate_at("inverse-time", 0.1, fraction=0.7, step=0, decay=0.5) == 0.1
    assert rate_at("inverse-time", 0.1, fraction=0.7, step=4, decay=0.5) == pytest.approx(0.1 / 3)
    cosine = [rate_at("cosine", 0.1, fraction=fraction, step=0, decay=0.0) for fraction in (0.0, 0.05, 0.5, 1.0)]
    assert cosine == pytest.approx([0.1 / 50, 0.1, 0.0505, 0.001], rel=0.01)


@pytest.mark.parametrize("name", LEARNING_RATES)
def test_state_survives_flattening(name: Any) -> None:
    """A new optimiser with the flattened state takes the very steps that the old one would."""
    torch.manual_seed(0)
    first = [torch.nn.Parameter(torch.rand(3, 2)), torch.nn.Parameter(torch.rand(2))]
    gradients = [torch.rand(4, 3, 2), torch.rand(4, 2)]

    def move(optimizer: torch.optim.Optimizer, parameters: list[Any], first_step: int) -> None:
        for step in (first_step, first_step + 1):
            set_rate(optimizer, 0.1, step)
            for parameter, values in zip(parameters, gradients, strict=True):
                parameter.grad = values[step].clone()
            descend(optimizer)

    optimizer = make_optimizer(name, first, 0.1)
    move(optimizer, first, 0)
    second = [torch.nn.Parameter(parameter.detach().clone()) for parameter in first]
    resumed = make_optimizer(name, second, 0.1)
    restore_state(resumed, flatten_state(optimizer))
    move(optimizer, first, 2)
    move(resumed, second, 2)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("in_place", [False, True])
def test_direct_adam_is_adam(*, in_place: bool) -> None:
    """The same steps as torch's, exact to rounding; it goes on from torch's state, and torch from its."""
    torch.manual_seed(0)
    shapes, steps = [(5, 3), (3,), (2, 5), (1,)], 30
    start = [torch.randn(shape) for shape in shapes]
    gradients = [[torch.randn(shape) * 10.0 ** (step % 4 - 3) for shape in shapes] for step in range(2 * steps)]

    def move(optimizer: torch.optim.Optimizer, parameters: list[Any], first: int) -> None:
        for step in range(first, first + steps):
            set_rate(optimizer, 0.01 / (1 + step), step)
            for parameter, values in zip(parameters, gradients[step], strict=True):
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad.copy_(values)
            descend(optimizer)

    def make(parameters: list[Any], *, direct: bool) -> torch.optim.Optimizer:
        if direct:
            return make_optimizer("adam", parameters, 0.01, in_place=in_place)
        return torch.optim.Adam(parameters, 0.01, eps=1e-7, fused=True)

    ends = []
    for before, after in ((False, False), (True, True), (False, True), (True, False)):
        parameters = [torch.nn.Parameter(values.clone()) for values in start]
        optimizer = make(parameters, direct=before)
        move(optimizer, parameters, 0)
        resumed = make(parameters, direct=after)
        restore_state(resumed, flatten_state(optimizer))
        move(resumed, parameters, steps)
        ends.append([parameter.detach().clone() for parameter in parameters])
        assert isinstance(resumed, DirectAdam) == after
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], rtol=1e-5, atol=1e-6)
    assert max(float((one - two).abs().max()) for one, two in zip(ends[0], start, strict=True)) > 0.01


def test_direct_adam_leaves_what_is_frozen() -> None:
    """Parameters without a gradient stay as they are, and nothing is remembered of frozen ones."""
    frozen, still, learnt = (torch.nn.Parameter(torch.ones(3), requires_grad=index > 0) for index in range(3))
    optimizer = make_optimizer("adam", [frozen, still, learnt], 0.1)
    learnt.sum().backward()
    set_rate(optimizer, 0.1, 0)
    descend(optimizer)
    assert isinstance(optimizer, DirectAdam)
    assert frozen.tolist() == still.tolist() == [1.0] * 3
    assert learnt.tolist() == pytest.approx([0.9] * 3, abs=1e-4)
    assert {key.rpartition(".")[2] for key in flatten_state(optimizer)} == {"1", "2"}


@pytest.fixture
def store() -> PixelStore:
    """Forty pictures of noise, 8×8."""
    store = PixelStore(Preparation(8, 8, 1), 40)
    placement = Placement((0, 0, 8, 8), (0, 0, 8, 8))
    for owner, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8, 1), dtype=np.uint8)):
        store.append(Prepared(pixels, (placement,), (8, 8)), owner)
    return store


def run(store: PixelStore, plan: Plan, **options: Any) -> tuple[Autoencoder, TrainingState]:
    """A small training from a fixed start."""
    torch.manual_seed(0)
    model = build("conv-strided", Shape(1, 8, 8), {"filters": (4, 6), "latent_dim": 3})
    indices = np.arange(40)
    state = train(
        model,
        store,
        indices[:30],
        indices[30:],
        plan,
        device=torch.device("cpu"),
        progress=Progress(),
        **options,
    )
    return model, state


@pytest.mark.parametrize("loss", ["model", "mse", "bce"])
@pytest.mark.parametrize("schedule", ["constant", "inverse-time"])
@pytest.mark.parametrize("optimizer", LEARNING_RATES)
def test_resume_goes_on_exactly(optimizer: Any, schedule: Any, loss: Any, store: PixelStore, tmp_path: Path) -> None:
    """Two epochs, a checkpoint and two more give the weights and losses of four in one go, to the bit."""
    plan = Plan(
        epochs=4,
        batch_size=8,
        learning_rate=0.01,
        patience=9,
        optimizer=optimizer,
        schedule=schedule,
        decay=0.1,
        loss=loss,
    )
    _, whole = run(store, plan)
    checkpoint = Checkpoint(tmp_path / "checkpoint", "fingerprint")

    class Stop(Exception):  # noqa: N818 - no error
        """The kill."""

    class Keeper:
        def save(self, state: TrainingState) -> None:
            checkpoint.save(state)
            if len(state.history) == 2:
                raise Stop

    with pytest.raises(Stop):
        run(store, plan, keeper=Keeper())
    _, resumed = run(store, plan, state=checkpoint.load())
    assert [epoch.training_loss for epoch in resumed.history] == [epoch.training_loss for epoch in whole.history]
    assert whole.history[-1].training_loss < whole.history[0].training_loss
    assert resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(tensor, resumed.weights[name]) for name, tensor in whole.weights.items())


def test_model_loss_is_mse_for_a_plain_model(store: PixelStore) -> None:
    """For a model that corrupts nothing, "model" and "mse" are one loss."""
    base = {"epochs": 2, "batch_size": 8, "learning_rate": 0.01, "patience": 9}
    _, one = run(store, Plan(**base, loss="model"))
    _, two = run(store, Plan(**base, loss="mse"))
    assert [epoch.validation_loss for epoch in one.history] == pytest.approx(
        [epoch.validation_loss for epoch in two.history], rel=1e-6
    )


def test_bad_names_are_refused_together() -> None:
    """Every mistake is named, with what is allowed."""
    with pytest.raises(ParameterError, match=r"optimizer must be one of adam, sgd, adagrad; got 'adamw'.*loss must be"):
        Plan(epochs=1, batch_size=1, learning_rate=1e-3, patience=1, optimizer="adamw", loss="mae")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="decay must be"):
        Plan(epochs=1, batch_size=1, learning_rate=1e-3, patience=1, decay=-1.0)
