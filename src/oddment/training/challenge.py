"""Is the model worth its training? Plain baselines beside it, on held-out normal pictures and synthetic defects.

No label is needed and none is used. `knn` and `pca` are fitted to the same training pictures, brought to the size at
which baselines work. Calibration pictures, which nothing was fitted to, are the normal ones; a copy of each with a
defect in it is the other kind. What is asked is whether the model tells the two apart better than the best baseline
does, beyond the interval of the paired difference. Every score is a `ScoringGraph`'s: the model's as ONNX Runtime runs
it, the baselines', which are thrown away, in torch.

It is a hint. Real anomalies may be of another kind, where the order is another: `compare` measures on those.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.metrics import Interval, auroc, resample
from oddment.metrics.bootstrap import percentiles
from oddment.models import Batch, Shape, build, get_spec, valid_mask
from oddment.scoring.graph import ScoringGraph
from oddment.training.synthetic import LEAST_SIDE, make_defects

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from oddment.training.store import PixelStore

    Scores: TypeAlias = Callable[[NDArray[np.float32], NDArray[np.int64]], NDArray[np.float32]]

__all__ = ["LEAST_IMAGES", "RIVALS", "Challenge", "Untried", "challenge", "paired_ahead"]

RIVALS = ("knn", "pca")
LEAST_IMAGES = 20
"""Held-out images below which the interval would hold any difference."""

# Pictures of either kind; fewer of photographs, where scoring one takes as long as a hundred small ones.
_MOST_IMAGES = 200
_MOST_PIXELS = 6_000_000
_FEWEST_OF_LARGE = 60
# Numbers in the training pictures that a baseline is given, and how many pictures these may be.
_MOST_NUMBERS = 4_000_000
_REFERENCES = (500, 5000)
_RESAMPLES = 300
_AT_ONCE = 32
# Below this AUROC, nothing was told apart: 0.5 is chance.
_HARDLY = 0.55


@dataclass(frozen=True, slots=True)
class Challenge:
    """How a model and plain baselines did on the same synthetic defects.

    Args:
        model: its name.
        rival: the name of the best baseline.
        auroc: of the model and of each baseline, by name.
        ahead: the model's AUROC minus the rival's, paired.
        images: held-out normal images; as many defects.
        references: training pictures that the baselines know.
        seconds: that it took.
    """

    model: str
    rival: str
    auroc: dict[str, float]
    ahead: Interval
    images: int
    references: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """What the model file keeps, JSON-ready."""
        return {
            "auroc": {name: round(value, 5) for name, value in self.auroc.items()},
            "best": self.rival,
            "ahead": self.ahead.as_dict(),
            "images": self.images,
            "references": self.references,
            "seconds": round(self.seconds, 3),
        }

    def caveat(self) -> str | None:
        """What a user should know where the model is not ahead beyond the interval, else None."""
        if self.ahead.low > 0:
            return None
        plain, own = self.auroc[self.rival], self.auroc[self.model]
        made = f"on {self.images:,} of your own held-out images and copies of them with a small defect drawn in"
        if max(plain, own) < _HARDLY:
            return (
                f"neither {self.model} nor a plain {self.rival} tells synthetic defects from normal images (AUROC "
                f"{own:.3f} and {plain:.3f}, {made}): run `oddment compare` on labelled images before trusting either."
            )
        how = "better than" if self.ahead.high < 0 else "as well as"
        return (
            f"a plain {self.rival} tells synthetic defects from normal images {how} {self.model} does (AUROC "
            f"{plain:.3f} against {own:.3f}, {made}). Real anomalies may be of another kind: run `oddment compare` on "
            f"labelled images, or try --model {self.rival}."
        )


@dataclass(frozen=True, slots=True)
class Untried:
    """Why a model was not tried beside baselines.

    Args:
        reason: a phrase.
    """

    reason: str

    def as_dict(self) -> dict[str, Any]:
        """What the model file keeps, JSON-ready."""
        return {"skipped": self.reason}

    def caveat(self) -> None:
        """Nothing was seen, so that nothing is said."""


class _Pictures(NamedTuple):
    """Prepared pictures (N, C, H, W) with their real pixels (N, 4)."""

    images: Tensor
    valid: Tensor


def challenge(
    name: str,
    score: Scores,
    store: PixelStore,
    training: NDArray[np.int64],
    held_out: NDArray[np.int64],
    *,
    seed: int,
) -> Challenge | Untried:
    """Return how the model and the baselines did, or why these images cannot tell.

    Args:
        name: of the model.
        score: the model's anomaly scores (N,) of prepared images (N, C, H, W) and their real pixels int64 (N, 4).
        store: all pictures.
        training: pictures that the model descended on; the baselines are fitted to a sample of them.
        held_out: pictures that nothing was fitted to.
        seed: fixes sample, defects and baselines.
    """
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    valid = store.valid
    normal = _one_each(held_out, store.owners, rng, _most(store))
    if len(normal) < LEAST_IMAGES:
        return Untried(f"{len(normal):,} held-out images are too few; it takes {LEAST_IMAGES:,}")
    side = int((valid[normal, 2:] - valid[normal, :2]).min())
    if side < LEAST_SIDE:
        return Untried(f"pictures of {side} pixels are too small; it takes {LEAST_SIDE:,}")
    made = make_defects(store.pixels[normal], valid[normal], seed=seed)
    shape = _small_shape(store)
    own, trials = _scored(score, store, np.concatenate([store.pixels[normal], made.pixels]), valid[normal], shape)
    known = _known(store, training, shape, rng)
    scores = {name: own} | {rival: _rival(rival, shape, known, trials, seed) for rival in RIVALS}
    if not all(np.isfinite(row).all() for row in scores.values()):
        return Untried("some scores were not finite")
    references = sum(len(batch.images) for batch in known)
    return _verdict(name, scores, references, started)


def _verdict(name: str, scores: dict[str, NDArray[np.float32]], references: int, started: float) -> Challenge:
    """What scores (2N,) of normal pictures and of their copies come to."""
    count = len(scores[name]) // 2
    truth = np.arange(2 * count) >= count
    values = {each: auroc(row, truth) for each, row in scores.items()}
    best = max(RIVALS, key=lambda each: values[each])
    ahead = paired_ahead(scores[name], scores[best])
    return Challenge(name, best, values, ahead, count, references, time.perf_counter() - started)


def paired_ahead(scores: NDArray[np.float32], others: NDArray[np.float32]) -> Interval:
    """Return by how much the AUROC of scores is above that of other ones, with a 95 % interval.

    Args:
        scores: (2N,) of N normal pictures and then of their damaged copies, in the same order.
        others: likewise.
    """
    count = len(scores) // 2
    truth = np.arange(2 * count) >= count
    # A picture and its damaged copy are drawn together: they are one piece of evidence.
    pairs = np.tile(np.arange(count), 2)
    drawn = resample(np.stack([scores, others]), truth, resamples=_RESAMPLES, groups=pairs).auroc
    return percentiles(auroc(scores, truth) - auroc(others, truth), drawn[:, 0] - drawn[:, 1])


def _most(store: PixelStore) -> int:
    """How many held-out pictures to take: fewer where they are large."""
    pixels = store.preparation.height * store.preparation.width
    return int(np.clip(_MOST_PIXELS // pixels, _FEWEST_OF_LARGE, _MOST_IMAGES))


def _one_each(
    pictures: NDArray[np.int64], owners: NDArray[np.int64], rng: np.random.Generator, most: int
) -> NDArray[np.int64]:
    """One picture of each image, drawn at random, of at most so many images; in order."""
    shuffled = rng.permutation(pictures)
    _, first = np.unique(owners[shuffled], return_index=True)
    chosen = shuffled[first]
    return np.sort(rng.permutation(chosen)[:most])


# --- the baselines


def _small_shape(store: PixelStore) -> Shape:
    """The shape at which baselines look at pictures: no larger than they would choose themselves."""
    made = store.preparation
    scale = min(1.0, max(get_spec(rival).side for rival in RIVALS) / max(made.height, made.width))
    return Shape(made.channels, max(1, round(made.height * scale)), max(1, round(made.width * scale)))


def _scored(
    score: Scores, store: PixelStore, pixels: NDArray[Any], valid: NDArray[np.int64], shape: Shape
) -> tuple[NDArray[np.float32], list[_Pictures]]:
    """The model's scores of normal pictures and of their copies (2N, H, W, C), and all of them at that shape."""
    scores, small, where = [], [], np.concatenate([valid, valid])
    for start in range(0, len(pixels), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        images = store.preparation.scale(pixels[part])
        scores.append(score(images, where[part]))
        small.append(_brought(images, where[part], shape))
    return np.concatenate(scores), small


def _brought(images: NDArray[np.float32], valid: NDArray[np.int64], shape: Shape) -> _Pictures:
    """Images (N, C, H, W) and their real pixels at that shape."""
    size, pictures = (shape.height, shape.width), torch.from_numpy(images)
    if pictures.shape[2:] == size:
        return _Pictures(pictures, torch.from_numpy(valid))
    scale = np.tile(np.divide(size, pictures.shape[2:]), 2)
    where = np.rint(valid * scale).astype(np.int64)
    # A sliver may have been rounded away.
    where[:, :2] = np.minimum(where[:, :2], np.array(size) - 1)
    where[:, 2:] = np.maximum(where[:, 2:], where[:, :2] + 1)
    small = F.interpolate(pictures, size, mode="bilinear", antialias=True, align_corners=False)
    return _Pictures(small, torch.from_numpy(where))


def _known(store: PixelStore, training: NDArray[np.int64], shape: Shape, rng: np.random.Generator) -> list[Batch]:
    """A sample of the training pictures, at that shape."""
    most = int(np.clip(_MOST_NUMBERS // shape.pixels, *_REFERENCES))
    chosen = training if len(training) <= most else np.sort(rng.choice(training, most, replace=False))
    valid = store.valid
    parts = (chosen[start : start + _AT_ONCE] for start in range(0, len(chosen), _AT_ONCE))
    pictures = (_brought(store.preparation.scale(store.pixels[part]), valid[part], shape) for part in parts)
    return [Batch(part.images, valid_mask(part.valid, shape.height, shape.width)) for part in pictures]


@torch.no_grad()
def _rival(name: str, shape: Shape, known: list[Batch], trials: list[_Pictures], seed: int) -> NDArray[np.float32]:
    """The scores (N,) of `trials` by a baseline that knows these pictures."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(name, shape)
    model.settle(lambda: iter(known))
    graph = ScoringGraph(model.eval(), shape)
    return np.concatenate([graph(part.images, part.valid)[0].numpy() for part in trials])
