"""Oddment's own side, and its loop written by hand in plain torch: the same model, data, steps and precision."""

from __future__ import annotations

import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from _worker import Clock, answer, ask, serve

import oddment
from oddment.images.decode import decode
from oddment.images.files import iter_images
from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.models import Shape, build, get_spec
from oddment.models._base import Batch
from oddment.progress import Progress
from oddment.training.loop import Plan, TrainingState
from oddment.training.loop import train as run_training
from oddment.training.precision import pick_precision
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

CPU = torch.device("cpu")


def store_of(images: NDArray[np.uint8]) -> PixelStore:
    """Return the store that fitting would have made of images (N, H, W[, C])."""
    images = images.reshape(*images.shape[:3], -1)
    _, height, width, channels = images.shape
    store = PixelStore(Preparation(height, width, channels), len(images))
    place = (Placement((0, 0, height, width), (0, 0, width, height)),)
    for index, image in enumerate(images):
        store.append(Prepared(image[None], place, (width, height)), index)
    return store


def prepare(name: str, images: str, count: int, held: str) -> tuple[torch.nn.Module, PixelStore, int]:
    """Return a new model, a store of training and validation pictures, and how many of these train."""
    training, validation = np.load(images)[:count], np.load(held)[: max(1, count // 6)]
    store = store_of(np.concatenate([training, validation]))
    shape = Shape(store.pixels.shape[3], *store.pixels.shape[1:3])
    torch.manual_seed(0)
    return build(name, shape), store, len(training)


class Stepper:
    """A keeper that waits after each epoch until the next is asked for."""

    def __init__(self, images: int, watched: int, epochs: int) -> None:
        self.images, self.watched, self.epochs = images, watched, epochs
        self.result: dict[str, Any] = {}
        ask()
        self.clock = Clock()

    def load(self) -> TrainingState | None:
        """There is nothing to resume."""

    def save(self, state: TrainingState) -> None:
        """Answer; then wait for the next request unless this was the last epoch."""
        loss, taken = state.history[-1].validation_loss, self.clock.read()
        self.result = {"images": self.images, "watched": self.watched, "loss": loss, **taken}
        if len(state.history) < self.epochs:
            answer(**self.result)
            ask()
            self.clock = Clock()


def train(
    name: str,
    images: str,
    count: int,
    held: str,
    epochs: int,
    batch: int,
    precision: str = "auto",
    *,
    own_rate: bool = False,
) -> dict[str, Any]:
    """Train epoch by epoch, each when it is asked for; at Keras's constant rate, or as `fit` does."""
    model, store, number = prepare(name, images, count, held)
    spec = get_spec(name)
    chosen = pick_precision(precision, CPU, gains=spec.gains_from_bfloat16)
    plan = Plan(
        epochs=epochs,
        batch_size=batch,
        learning_rate=spec.learning_rate if own_rate else 1e-3,
        patience=epochs,
        schedule="cosine" if own_rate else "constant",
        partial_batches=True,
        precision=chosen,
    )
    answer(ready=True)
    keeper = Stepper(number, len(store) - number, epochs)
    everything = np.arange(len(store))
    run_training(
        model, store, everything[:number], everything[number:], plan, device=CPU, progress=Progress(), keeper=keeper
    )
    return {**keeper.result, "precision": chosen}


def by_hand(
    name: str, images: str, count: int, held: str, epochs: int, batch: int, precision: str = "float32"
) -> dict[str, Any]:
    """Train as a careful person would write it: float32 images in memory, torch's own optimiser, nothing else."""
    model, store, number = prepare(name, images, count, held)
    model = model.to(memory_format=torch.channels_last)
    everything = torch.from_numpy(store.preparation.scale(store.pixels))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, eps=1e-7)
    answer(ready=True)
    for epoch in range(epochs):
        ask()
        clock = Clock()
        model.train()
        order = torch.randperm(number)
        for start in range(0, number, batch):
            chosen = everything[order[start : start + batch]]
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                loss = (model(chosen) - chosen).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            parts = everything[number:].split(batch)
            watched = sum(float((model(part) - part).square().mean()) * len(part) for part in parts)
        result = {"images": number, "loss": watched / (len(everything) - number), **clock.read()}
        if epoch + 1 < epochs:
            answer(**result)
    return result


def make_model(name: str, images: str, path: str, size: int | None = None) -> dict[str, Any]:
    """Fit briefly to an array or a folder, write the model file, and say how many pictures it scores at once."""
    if not Path(path).exists():
        detector = oddment.Detector(
            model=name, size=size, epochs=3, target_fpr=0.05, random_state=0, baseline_check=False
        )
        detector.fit(np.load(images)[:400] if images.endswith(".npy") else images)
        detector.save(path)
    return {"batch": oddment.load(path).model.scoring_batch}


_scorers: dict[str, oddment.Scorer] = {}


def score(path: str, images: str, count: int) -> dict[str, Any]:
    """Score arrays of uint8."""
    scorer = _scorers.setdefault(path, oddment.load(path))
    raw = np.load(images)[:count]
    clock = Clock()
    scores = scorer.anomaly_score(raw)
    return {"images": len(raw), "mean": float(scores.mean()), **clock.read()}


def decode_only(path: str, folder: str, count: int) -> dict[str, Any]:
    """Decode and prepare files of a folder, in two threads, with nothing behind it."""
    preparation = oddment.load(path).model.preparation
    refs = [ref for ref, _ in zip(iter_images([folder]), range(count), strict=False)]

    def work(payload: Any) -> None:  # noqa: ANN401
        preparation.prepare(decode(payload, at_least=preparation.at_least))

    clock = Clock()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(work, [ref.payload for ref in refs], chunksize=64):
            pass
    return {"images": len(refs), **clock.read()}


def score_only(path: str, folder: str, count: int) -> dict[str, Any]:
    """Run the graph over pictures that are ready, in as many threads as a search does, which is what decoding gets."""
    scorer = oddment.load(path)
    preparation, batch = scorer.model.preparation, scorer.model.scoring_batch
    refs = [ref for ref, _ in zip(iter_images([folder]), range(batch), strict=False)]
    ready = [preparation.prepare(decode(ref.payload, at_least=preparation.at_least)) for ref in refs]
    ready = [ready[index % len(ready)] for index in range(batch)]
    scorer.score_prepared(ready)
    clock = Clock()
    with ThreadPoolExecutor(scorer.runtime.at_once if batch > 1 else 1) as pool:
        for _ in pool.map(scorer.score_prepared, [ready] * max(1, count // batch)):
            pass
    return {"images": max(1, count // batch) * batch, **clock.read()}


def ceilings() -> dict[str, Any]:
    """Measure the matrix product in float32 and bfloat16, GFLOP/s, and copying memory, GB/s read and written."""
    found = {}
    for name, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        side = 2048
        left, right = (torch.randn(side, side).to(kind) for _ in range(2))
        best = min(_seconds(lambda: torch.mm(left, right)) for _ in range(8))  # noqa: B023 - called at once
        found[name] = 2 * side**3 / best / 1e9
    block = torch.zeros(64 * 2**20)
    target = torch.empty_like(block)
    best = min(_seconds(lambda: target.copy_(block)) for _ in range(6))
    found["bandwidth"] = 2 * block.numel() * 4 / best / 1e9
    return found


def _seconds(work: Any) -> float:  # noqa: ANN401
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def flops(name: str, side: int, channels: int) -> dict[str, Any]:
    """Count the floating-point operations of one image forward, as the layers are written down."""
    from torch.utils.flop_counter import FlopCounterMode

    model = build(name, Shape(channels, side, side)).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.leftover(Batch(torch.zeros(1, channels, side, side), torch.ones(1, 1, side, side)))
    return {"flops": counter.get_total_flops()}


def versions() -> dict[str, Any]:
    """Return what this is."""
    text = f"oddment {oddment.__version__}, torch {torch.__version__}, onnxruntime {onnxruntime.__version__}"
    return {"versions": f"{text}, numpy {np.__version__}", "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


serve(
    by_hand=by_hand,
    ceilings=ceilings,
    decode_only=decode_only,
    flops=flops,
    make_model=make_model,
    score=score,
    score_only=score_only,
    train=train,
    versions=versions,
)
