"""The training loop: one screen, one step function, the same for every model."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch

from oddment.allocator import kept_pages
from oddment.errors import ParameterError, TrainingError
from oddment.training.denormals import flushed
from oddment.training.feed import Feed, KnownInputs
from oddment.training.losses import LossName, training_loss, validation_loss
from oddment.training.optimizers import (
    OptimizerName,
    ScheduleName,
    check_names,
    descend,
    flatten_state,
    make_optimizer,
    rate_at,
    restore_state,
    set_rate,
)
from oddment.training.precision import Precision, products_in
from oddment.training.threads import threads_for
from oddment.training.written_out import WrittenOut

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.models import Autoencoder, Batch
    from oddment.progress import Progress
    from oddment.training.store import PixelStore

__all__ = ["Epoch", "KeepName", "Keeper", "Plan", "TrainingState", "pick_device", "plan_epochs", "train"]

KeepName = Literal["best", "last"]

# Pictures, about, that a model sees before its first step.
_MOST_TO_BEGIN = 2048
# Of 28×28, 64 at a time take convolutions 87 µs each, 128 take 80, 256 leave the cache and take 88; dense layers, of
# which two threads then share the rows, take 7 µs at 128 and 4 at 1,024. Of larger ones so many fewer.
_MOST_WATCHED, _MOST_ROWS, _NUMBERS_WATCHED = 128, 1024, 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How to train.

    Args:
        epochs: passes over the training images, at most.
        batch_size: images a step.
        learning_rate: peak of the schedule.
        patience: epochs without a better validation loss before training stops.
        budget: seconds that training may take; None for no limit.
        seed: fixes order and corruption.
        optimizer: "adam", "sgd" or "adagrad", as Keras has them.
        schedule: "cosine" with a warm-up, "constant", or "inverse-time": learning_rate / (1 + decay · step).
        decay: of the inverse-time schedule, per step.
        loss: "model" for the model's own, or "mse" or "bce" of its reconstruction.
        keep: the weights that stay: of the "best" epoch by validation loss, or of the "last".
        partial_batches: train on the rest of an epoch that fills no batch as well, as Keras does.
        precision: of convolutions and matrix products in training steps; validation is always float32.

    Raises:
        ParameterError: if a name is not one of those, or decay is negative.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    budget: float | None = None
    seed: int = 0
    optimizer: OptimizerName = "adam"
    schedule: ScheduleName = "cosine"
    decay: float = 0.0
    loss: LossName = "model"
    keep: KeepName = "best"
    partial_batches: bool = False
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        """Check what is chosen by name."""
        check_names(
            optimizer=(self.optimizer, OptimizerName),
            schedule=(self.schedule, ScheduleName),
            loss=(self.loss, LossName),
            keep=(self.keep, KeepName),
            precision=(self.precision, Precision),
        )
        if not 0 <= self.decay < math.inf:
            msg = f"decay must be a number of at least 0; got {self.decay}."
            raise ParameterError(msg)


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave; the history is a list of these."""

    number: int
    training_loss: float
    validation_loss: float
    images_per_second: float
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that a later process needs to go on where this one stopped.

    Args:
        history: epochs done.
        weights: the model's state after the last epoch.
        best: the model's state at the lowest validation loss.
        optimizer: the optimiser's state, flat: "<name>.<index of the parameter>".
        seconds: time spent so far.
    """

    history: tuple[Epoch, ...] = ()
    weights: dict[str, torch.Tensor] = field(default_factory=dict)
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, torch.Tensor] = field(default_factory=dict)
    seconds: float = 0.0


class Keeper(Protocol):
    """Keeps a state safe after each epoch; see `training.checkpoint`."""

    def load(self) -> TrainingState | None:
        """Return what an earlier run kept; None if there was none."""

    def save(self, state: TrainingState) -> None:
        """Write the state so that a kill at any moment leaves the last or the one before."""


def pick_device(name: str) -> torch.device:
    """Return the device: "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def plan_epochs(images: int, batch_size: int, steps: int, bounds: tuple[int, int]) -> int:
    """Return the number of epochs that make about `steps` gradient steps, within `bounds`."""
    return min(max(round(steps / max(1, images // batch_size)), bounds[0]), bounds[1])


class _Run:
    """One training in progress: the model, its optimiser and the clock."""

    def __init__(
        self,
        model: Autoencoder,
        store: PixelStore,
        training: NDArray[np.int64],
        plan: Plan,
        device: torch.device,
        known: KnownInputs | None,
    ) -> None:
        self.model: Autoencoder = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training, self.plan, self.device = training, plan, device
        self.feed = Feed(self.model, store, device, known)
        self.written_out = WrittenOut.of(model, plan, device)
        self.optimizer = make_optimizer(
            plan.optimizer, model.parameters(), plan.learning_rate, in_place=self.written_out is not None
        )
        whole, rest = divmod(len(training), plan.batch_size)
        self.steps = max(1, whole + bool(rest and plan.partial_batches))
        self.state = TrainingState()
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, those before a resume included."""
        return self.state.seconds + time.perf_counter() - self.started

    @property
    def watched_at_once(self) -> int:
        """Pictures that are looked at together without gradients: small ones more than a step takes."""
        most = _MOST_ROWS if self.written_out else _MOST_WATCHED
        numbers = math.prod(self.feed.store.pixels.shape[1:])
        return max(self.plan.batch_size, min(most, most * _NUMBERS_WATCHED // numbers))

    def fraction(self, epoch: int, step: int) -> float:
        """The share of all training done: by epochs, or by the budget where that ends first."""
        done = (epoch * self.steps + step) / (self.plan.epochs * self.steps)
        return min(1.0, max(done, self.seconds / self.plan.budget if self.plan.budget else 0.0))

    @torch.no_grad()
    def begin(self) -> None:
        sample = self.training[:: max(1, len(self.training) // _MOST_TO_BEGIN)]
        self.model.begin(lambda: self.feed.passes(sample, self.plan.batch_size))

    def train_step(self, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        if self.written_out:
            loss = self.written_out.step(batch)
            descend(self.optimizer)
            return loss
        with products_in(self.plan.precision, self.device):
            loss = training_loss(self.model, batch, generator, self.plan.loss)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        descend(self.optimizer)
        return loss.detach()

    def run_epoch(self, epoch: int, progress: Progress) -> tuple[float, float]:
        """One pass in a new order; returns the mean loss and images per second."""
        self.model.train()
        # Seeded by the epoch, so that a resumed run continues with the order it would have had.
        generator = torch.Generator(device="cpu").manual_seed(self.plan.seed * 100_003 + epoch)
        order = self.training[torch.randperm(len(self.training), generator=generator).numpy()]
        total, started, shown, seen = torch.zeros((), device=self.device), time.perf_counter(), 0.0, 0
        size = min(self.plan.batch_size, len(order))
        for step, batch in enumerate(self.feed.passes(order[: self.steps * size], size)):
            fraction = self.fraction(epoch, step)
            self._set_rate(fraction, epoch * self.steps + step)
            # A partial batch weighs what it holds; a whole one weighs 1.
            total += self.train_step(batch, generator) * (len(batch.images) / size)
            now, seen = time.perf_counter(), seen + len(batch.images)
            if now - shown > 0.2:  # seconds; reading the loss is a wait for the device
                shown = now
                progress.update(fraction, self._note(epoch, float(total) * size / seen, seen / (now - started)))
            if self.plan.budget and self.seconds > self.plan.budget:
                break
        return float(total) / (seen / size), seen / (time.perf_counter() - started)

    def _note(self, epoch: int, loss: float, rate: float) -> str:
        watched = f" · validation {self.state.history[-1].validation_loss:.3g}" if self.state.history else ""
        return f"epoch {epoch + 1}/{self.plan.epochs} · loss {loss:.3g}{watched} · {rate:,.0f} images/s"

    def _set_rate(self, fraction: float, step: int) -> None:
        plan = self.plan
        rate = rate_at(plan.schedule, plan.learning_rate, fraction=fraction, step=step, decay=plan.decay)
        set_rate(self.optimizer, rate, step)

    @torch.no_grad()
    def validate(self, indices: NDArray[np.int64]) -> float:
        self.model.eval()
        losses = [
            (float(validation_loss(self.model, batch, self.plan.loss)), len(batch.images))
            for batch in self.feed.passes(indices, self.watched_at_once)
        ]
        return float(np.average([loss for loss, _ in losses], weights=[count for _, count in losses]))


def train(
    model: Autoencoder,
    store: PixelStore,
    training: NDArray[np.int64],
    validation: NDArray[np.int64],
    plan: Plan,
    *,
    device: torch.device,
    progress: Progress,
    keeper: Keeper | None = None,
    state: TrainingState | None = None,
    known: KnownInputs | None = None,
) -> TrainingState:
    """Train `model` in place, stop early, and leave it with the weights of the lowest validation loss, or the last.

    Args:
        model: a new model, or any where `state` is given.
        store: the prepared pictures.
        training: int64, pictures to descend on.
        validation: int64, pictures that stop the training.
        plan: how.
        device: where.
        progress: told how far it is, a few times a second.
        keeper: keeps the state after each epoch.
        state: where an earlier run stopped.
        known: what earlier models of the kind computed of these pictures once and for all.

    Returns:
        The last state; its history is what the model file keeps.

    Raises:
        TrainingError: if the loss is not a number or runs away.
    """
    run = _Run(model, store, training, plan, device, known)
    if state and state.history:
        _restore(run, state)
    else:
        run.begin()
    with kept_pages():
        _descend(run, validation, progress, keeper)
    model.load_state_dict(run.state.best if plan.keep == "best" else run.state.weights)
    model.eval()
    return replace(run.state, seconds=run.seconds)


def _descend(run: _Run, validation: NDArray[np.int64], progress: Progress, keeper: Keeper | None) -> None:
    """Train epoch by epoch until there are enough, or no more gain, or the time is up; the state says how it went."""
    model, plan = run.model, run.plan
    best = min((epoch.validation_loss for epoch in run.state.history), default=math.inf)
    for number in range(len(run.state.history), plan.epochs):
        if stopped_early(run.state.history, plan.patience) or (plan.budget and run.seconds >= plan.budget):
            break
        with flushed(), threads_for(model, plan.batch_size, run.device):
            loss, rate = run.run_epoch(number, progress)
        with flushed(), threads_for(model, run.watched_at_once, run.device):
            watched = run.validate(validation)
        _check_finite(loss, watched, number, plan)
        epoch = Epoch(number + 1, loss, watched, rate, run.seconds)
        improved = watched < best
        best = min(best, watched)
        weights = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        run.state = replace(
            run.state,
            history=(*run.state.history, epoch),
            weights=weights,
            best=weights if improved else run.state.best,
            optimizer=flatten_state(run.optimizer),
        )
        if keeper:
            keeper.save(replace(run.state, seconds=run.seconds))


def stopped_early(history: tuple[Epoch, ...], patience: int) -> bool:
    """Return whether the last `patience` epochs brought no better validation loss."""
    losses = [epoch.validation_loss for epoch in history]
    return len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])


def _check_finite(loss: float, watched: float, number: int, plan: Plan) -> None:
    if math.isfinite(loss) and math.isfinite(watched):
        return
    msg = (
        f"training diverged in epoch {number + 1}: the loss is {loss}, the validation loss {watched}. Lower the "
        f"learning rate (it is {plan.learning_rate:g}; try {plan.learning_rate / 10:g}), or check the images for "
        "extreme values."
    )
    raise TrainingError(msg)


def _restore(run: _Run, state: TrainingState) -> None:
    run.model.load_state_dict(state.weights)
    restore_state(run.optimizer, state.optimizer)
    run.state = state
