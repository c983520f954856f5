"""Which residual says most about these pictures: by synthetic defects in held-out normal ones, never by labels.

A model that redraws pixels leaves the choice open how image and reconstruction are compared, and how much of the map
counts. Pictures that stop the training, which no weight descended on, are scored beside copies of themselves with a
defect drawn in; another score than the model's own is taken where it tells the two apart better, beyond the interval of
the paired difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from oddment.metrics import auroc
from oddment.models import Shape
from oddment.scoring import BEST, MODEL, ScoringGraph
from oddment.training.challenge import LEAST_IMAGES, paired_ahead
from oddment.training.synthetic import LEAST_SIDE, make_defects

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.models import Autoencoder, ModelSpec
    from oddment.training.settings import Settings
    from oddment.training.store import PixelStore

__all__ = ["CANDIDATES", "POOLS", "ChosenScore", "choose_score", "wants_choice"]

CANDIDATES = (MODEL, "ssim", "mse,ssim", "msgms", "mse,msgms")
"""What is tried: errors of single pixels, of structure, and both."""
POOLS = (MODEL, "top=0.1")
"""How maps are pooled, each of the scores both ways, where no pooling was asked for."""

_MOST_IMAGES = 200
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class ChosenScore:
    """How the scores that were tried did.

    Args:
        score: the one that is taken.
        pool: likewise.
        auroc: of each score and pool, normal pictures against their damaged copies; the model's own first.
        images: normal pictures; as many copies.
    """

    score: str
    pool: str
    auroc: dict[tuple[str, str], float]
    images: int

    def as_dict(self) -> dict[str, Any]:
        """What the model file keeps, JSON-ready."""
        return {"auroc": {_named(*pair): round(value, 5) for pair, value in self.auroc.items()}, "images": self.images}

    def describe(self) -> str:
        """The choice and why, for people."""
        own, taken = next(iter(self.auroc.values())), self.auroc[self.score, self.pool]
        tried = f"on {self.images:,} held-out images and copies with a defect drawn in"
        if taken == own:
            return f"scored in its own way: none of {len(self.auroc) - 1} others did better {tried}."
        return f"scored by {_named(self.score, self.pool)}: AUROC {taken:.3f} instead of {own:.3f} {tried}."


def _named(score: str, pool: str) -> str:
    return score if pool == MODEL else f"{score}, {pool}"


def wants_choice(settings: Settings, spec: ModelSpec) -> bool:
    """Return whether the score is left to be chosen, of a model that leaves a choice."""
    asked = settings.score == BEST or (settings.score == MODEL and settings.model == "auto")
    return asked and spec.draws and spec.trains


def choose_score(
    autoencoder: Autoencoder, store: PixelStore, watched: NDArray[np.int64], *, pool: str, seed: int
) -> ChosenScore | None:
    """Return the score to take, or None where these pictures cannot tell.

    Args:
        autoencoder: trained, in evaluation mode, on the CPU.
        store: all pictures.
        watched: normal pictures that no weight descended on and that do not calibrate.
        pool: as the settings give it.
        seed: fixes sample and defects.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(watched)[:_MOST_IMAGES])
    valid = store.valid[chosen]
    if len(chosen) < LEAST_IMAGES or int((valid[:, 2:] - valid[:, :2]).min()) < LEAST_SIDE:
        return None
    made = make_defects(store.pixels[chosen], valid, seed=seed)
    pixels, where = np.concatenate([store.pixels[chosen], made.pixels]), np.concatenate([valid, valid])
    truth = np.arange(len(pixels)) >= len(chosen)
    pairs = [(name, way) for way in ((pool,) if pool != MODEL else POOLS) for name in CANDIDATES]
    scores = {pair: _scores(autoencoder, store, pair, pixels, where) for pair in pairs}
    values = {pair: auroc(row, truth) for pair, row in scores.items()}
    best = max(pairs, key=lambda pair: values[pair])
    taken = best if paired_ahead(scores[best], scores[pairs[0]]).low > 0 else pairs[0]
    return ChosenScore(*taken, values, len(chosen))


def _scores(
    autoencoder: Autoencoder,
    store: PixelStore,
    pair: tuple[str, str],
    pixels: NDArray[Any],
    valid: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Scores (2N,) of normal pictures and of their copies, parts standardised on the normal ones."""
    made = store.preparation
    graph = ScoringGraph(autoencoder, Shape(made.channels, made.height, made.width), *pair, exposure=store.exposure)
    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(pixels), _AT_ONCE)]
    batches = [(torch.from_numpy(made.scale(pixels[part])), torch.from_numpy(valid[part])) for part in parts]
    if len(graph.scores) > 1:
        graph.standardise(batches[: len(batches) // 2])
    with torch.no_grad():
        return np.concatenate([graph(*batch)[0].numpy() for batch in batches])
