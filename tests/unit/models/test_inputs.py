"""What a model computes once for each picture, and what the training loop does with it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.models import Shape, build
from oddment.progress import Progress
from oddment.training.feed import Feed, KnownInputs
from oddment.training.loop import Plan, TrainingState, train
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from oddment.models import Autoencoder

CPU = torch.device("cpu")
SHAPE = Shape(1, 32, 32)


@pytest.fixture
def store() -> PixelStore:
    """Twelve pictures, of which the last three only calibrate."""
    rng = np.random.default_rng(0)
    store = PixelStore(Preparation(32, 32, 1), 12)
    for owner in range(12):
        valid = (0, 0, 32, 32 - owner)
        pixels = rng.integers(0, 255, (1, 32, 32, 1)).astype(np.uint8)
        store.append(Prepared(pixels, (Placement(valid, valid),), (32, 32)), owner)
    return store


def make(name: str) -> Autoencoder:
    torch.manual_seed(0)
    return build(name, SHAPE, {"filters": (8, 12, 16)} if name == "conv-large" else {})


def test_inputs_come_back_in_the_order_asked_for(store: PixelStore) -> None:
    """First computed or kept from before, they are the model's own to half precision."""
    model = make("conv-large")
    feed = Feed(model, store, CPU)
    for indices in ([3, 1], [1, 2, 3, 0], [2]):
        batch = feed.gather(np.array(indices))
        expected = model.inputs(batch)
        assert len(batch.inputs) == len(expected) == 2
        for kept, fresh in zip(batch.inputs, expected, strict=True):
            assert kept.dtype == torch.float32
            torch.testing.assert_close(kept, fresh, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["dense", "conv-large"])
def test_a_pass_is_the_same_however_many_batches_are_gathered_together(
    store: PixelStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Batches hold what gathering each by itself gives, the last one what is left."""
    order = np.array([7, 0, 3, 11, 2, 5, 8, 1])
    passes = []
    for together in (1, 2, 100):
        monkeypatch.setattr(Feed, "_together", lambda _, size, together=together: together)  # noqa: ARG005
        feed = Feed(make(name), store, CPU)
        passes.append([list(feed.passes(order, 3)) for _ in range(2)][1])
    alone = [feed.gather(order[start : start + 3]) for start in (0, 3, 6)]
    for batches in passes:
        assert [len(batch.images) for batch in batches] == [3, 3, 2]
        for batch, expected in zip(batches, alone, strict=True):
            for found, wanted in zip((*batch[:2], *batch.inputs), (*expected[:2], *expected.inputs), strict=True):
                assert torch.equal(found, wanted)


def test_inputs_are_computed_once(store: PixelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second pass asks the model for nothing."""
    model, asked = make("conv-large"), []
    compute = model.inputs
    monkeypatch.setattr(model, "inputs", lambda batch: asked.append(len(batch.images)) or compute(batch))
    feed = Feed(model, store, CPU)
    for _ in range(2):
        list(feed.passes(np.arange(10), 4))
    assert asked == [4, 4, 2]


def test_models_of_a_kind_share_inputs(store: PixelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one model has computed, another one is not asked for."""
    known, first, second = KnownInputs(), make("conv-large"), make("conv-large")
    expected = Feed(first, store, CPU, known).gather(np.arange(6)).inputs
    monkeypatch.setattr(second, "inputs", lambda _batch: pytest.fail("computed again"))
    for kept, before in zip(Feed(second, store, CPU, known).gather(np.arange(6)).inputs, expected, strict=True):
        assert torch.equal(kept, before)


def test_inputs_beyond_the_limit_are_left_to_the_model(store: PixelStore) -> None:
    """Nothing is kept, and the loss is the same up to half precision."""
    model = make("conv-large")
    kept, bare = (Feed(model, store, CPU, known).gather(np.arange(8)) for known in (None, KnownInputs(limit=100)))
    assert bare.inputs == ()
    with torch.no_grad():
        losses = [float(model.loss(batch, torch.Generator().manual_seed(0))) for batch in (kept, bare)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize("name", ["dense", "conv-small"])
def test_models_without_inputs_get_the_plain_batch(name: str, store: PixelStore) -> None:
    """Images and mask are the store's, and nothing else is in it."""
    feed = Feed(make(name), store, CPU)
    batch, plain = feed.gather(np.array([4, 2])), store.gather(np.array([4, 2]), store.valid, CPU)
    assert batch.inputs == ()
    assert torch.equal(batch.images, plain.images)
    assert torch.equal(batch.mask, plain.mask)


class Recorder:
    """Keeps every state, as a checkpoint would."""

    def __init__(self) -> None:
        self.states: list[TrainingState] = []

    def save(self, state: TrainingState) -> None:
        """Add this state."""
        self.states.append(state)


def run(store: PixelStore, state: TrainingState | None = None) -> tuple[Any, list[TrainingState]]:
    model, recorder = make("conv-large"), Recorder()
    plan = Plan(epochs=4, batch_size=3, learning_rate=1e-3, patience=9, seed=1)
    training, validation = np.arange(6), np.arange(6, 9)
    train(model, store, training, validation, plan, device=CPU, progress=Progress(), keeper=recorder, state=state)
    return model, recorder.states


def test_a_resumed_training_ends_like_an_unbroken_one(store: PixelStore) -> None:
    """All weights and buffers are equal to the last bit, what was measured at the beginning included."""
    whole, states = run(store)
    resumed, _ = run(store, replace(states[1], seconds=0.0))
    expected, found = whole.state_dict(), resumed.state_dict()
    assert float(expected["spread"].std()) > 0
    assert all(torch.equal(expected[key], found[key]) for key in expected)
