"""Training in its fast form ends where the slow, plain form does, which is written out here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.models import Autoencoder, Batch, Shape, build, published
from oddment.models._base import is_whole, whole_mask
from oddment.models._keras import SameConvTranspose2d
from oddment.progress import Progress
from oddment.scoring import ScoringGraph
from oddment.training.checkpoint import Checkpoint
from oddment.training.loop import Plan, TrainingState, train
from oddment.training.optimizers import rate_at, set_rate
from oddment.training.store import PixelStore
from oddment.training.threads import gains_from_threads, threads_for
from oddment.training.written_out import WrittenOut

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CPU = torch.device("cpu")
SHAPE = Shape(1, 28, 28)
VALIDATION = 24
PLAN = Plan(epochs=4, batch_size=16, learning_rate=2e-3, patience=9, partial_batches=True, keep="last")


@pytest.fixture(scope="module")
def pixels(digits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A few digits; the last ones are watched. Their number leaves a partial batch."""
    return digits[:125]


def fast(name: str, pixels: NDArray[np.uint8], plan: Plan = PLAN, **more: Any) -> tuple[Autoencoder, TrainingState]:
    """Train as `fit` does."""
    store = PixelStore(Preparation(28, 28, 1), len(pixels))
    for index, image in enumerate(pixels):
        store.append(Prepared(image[None, :, :, None], (Placement((0, 0, 28, 28), (0, 0, 28, 28)),), (28, 28)), index)
    torch.manual_seed(0)
    model = build(name, SHAPE)
    indices = np.arange(len(pixels))
    split = len(pixels) - VALIDATION
    state = train(model, store, indices[:split], indices[split:], plan, device=CPU, progress=Progress(), **more)
    return model, state


def plain(name: str, pixels: NDArray[np.uint8], plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Autoencoder:
    """Train with torch's own layers and optimiser, tensor by tensor, on float32 images in memory."""
    torch.manual_seed(0)
    model = build(name, SHAPE)
    with monkeypatch.context() as patch:
        patch.setattr(SameConvTranspose2d, "_descend", _library)
        patch.setattr(published, "run_stages", _one_by_one)
        images = torch.from_numpy(pixels[: len(pixels) - VALIDATION, None].astype(np.float32) / np.float32(255))
        with torch.no_grad():
            model.begin(lambda: iter([Batch(images, torch.ones(len(images), 1, 28, 28))]))
        optimizer = torch.optim.Adam(model.parameters(), plan.learning_rate, eps=1e-7, foreach=False)
        model.train()
        steps = -(-len(images) // plan.batch_size)
        for epoch in range(plan.epochs):
            generator = torch.Generator().manual_seed(plan.seed * 100_003 + epoch)
            order = torch.randperm(len(images), generator=generator)
            for step, chosen in enumerate(order.split(plan.batch_size)):
                done = epoch * steps + step
                fraction = done / (plan.epochs * steps)
                rate = rate_at(plan.schedule, plan.learning_rate, fraction=fraction, step=done, decay=0.0)
                set_rate(optimizer, rate, done)
                batch = Batch(images[chosen], torch.ones(len(chosen), 1, 28, 28))
                optimizer.zero_grad()
                model.loss(batch, generator).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model.eval()


def _library(layer: SameConvTranspose2d, images: torch.Tensor) -> torch.Tensor:
    full = nn.ConvTranspose2d.forward(layer, images)
    return full[..., : -layer.surplus, : -layer.surplus] if layer.surplus else full


def _one_by_one(layers: nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    made: torch.Tensor = layers(images)
    return made


@torch.no_grad()
def scores(model: Autoencoder, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    images = torch.from_numpy(pixels[:, None].astype(np.float32) / np.float32(255))
    found: NDArray[np.float32] = ScoringGraph(model, SHAPE)(images, torch.tensor([[0, 0, 28, 28]] * len(images)))[
        0
    ].numpy()
    return found


# Batch statistics make more of a rounding with every step: one part in a million after one epoch, a hundred times that
# after four, of either path.
@pytest.mark.parametrize(
    ("name", "epochs"),
    [("dense", 4), ("dense-deep", 4), ("conv-pooling", 4), ("conv-strided", 1), ("conv-small", 1)],
)
def test_the_scores_of_the_plain_loop(
    name: str,
    epochs: int,
    pixels: NDArray[np.uint8],
    new_digits: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same seed gives scores within 1e-5 of the plain loop's, which are far from those of an untrained model."""
    plan = replace(PLAN, epochs=epochs)
    found = scores(fast(name, pixels, plan)[0], new_digits)
    expected = scores(plain(name, pixels, plan, monkeypatch), new_digits)
    assert np.abs(found - expected).max() <= 1e-5
    torch.manual_seed(0)
    assert np.abs(scores(build(name, SHAPE).eval(), new_digits) - expected).min() > 1e-3


@pytest.mark.parametrize("kind", ["padded", "ones", "whole"])
def test_written_out_gradients_are_those_of_autograd(kind: str) -> None:
    """Of pictures in colour, with padding and without, known to be without or not."""
    torch.manual_seed(0)
    model = build("dense-deep", Shape(3, 12, 10))
    mask = torch.ones(7, 1, 12, 10)
    if kind == "padded":
        mask[:4, :, :3], mask[2:, :, :, 8:] = 0, 0
    images = torch.rand(7, 3, 12, 10)
    batch = Batch(images, whole_mask(7, 12, 10, CPU) if kind == "whole" else mask)
    assert is_whole(batch.mask) == (kind == "whole")
    expected = model.loss(Batch(images, mask), torch.Generator())
    torch.testing.assert_close(model.loss(batch, torch.Generator()), expected)
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = [parameter.grad.clone() for parameter in model.parameters()]
    step = WrittenOut.of(model, PLAN, CPU)
    for _ in range(2):  # nothing adds up from step to step
        found = step.step(batch)
    torch.testing.assert_close(found, expected.detach())
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "more"), [("conv-small", {}), ("dense", {"loss": "bce"}), ("dense", {"precision": "bfloat16"})]
)
def test_nothing_else_is_written_out(name: str, more: dict[str, Any]) -> None:
    """Other models, losses and precisions descend by autograd."""
    assert WrittenOut.of(build(name, SHAPE), replace(PLAN, **more), CPU) is None


@pytest.mark.parametrize("name", ["dense-deep", "conv-pooling", "conv-strided"])
def test_resume_is_exact_whatever_the_layout(name: str, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    """Convolutions keep their channels last in memory and files do not: a resumed run ends with the same bits."""
    whole = fast(name, pixels)[1]
    checkpoint = Checkpoint(tmp_path / "checkpoint", "fingerprint")

    class Stop(Exception):  # noqa: N818 - no error
        """The kill."""

    class Keeper:
        def load(self) -> None:
            """There is nothing."""

        def save(self, state: TrainingState) -> None:
            checkpoint.save(state)
            if len(state.history) == 2:
                raise Stop

    with pytest.raises(Stop):
        fast(name, pixels, keeper=Keeper())
    resumed = fast(name, pixels, state=checkpoint.load())[1]
    assert all(torch.equal(tensor, resumed.weights[key]) for key, tensor in whole.weights.items())


@pytest.mark.parametrize(
    ("name", "batch", "gains"),
    [("dense", 64, False), ("dense-deep", 64, False), ("dense", 4096, True), ("conv-pooling", 1, True)],
)
def test_one_thread_where_more_would_wait(name: str, batch: int, *, gains: bool) -> None:
    """A small dense step takes one thread, and the number is as before when it is done; the others take all."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = build(name, SHAPE)
        assert gains_from_threads(model, batch) is gains
        with threads_for(model, batch, CPU):
            assert torch.get_num_threads() == (2 if gains else 1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
