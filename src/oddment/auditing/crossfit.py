"""Scores of images by models that have never seen them: cross-fitting, robust to what should not be among them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from oddment.auditing.core import COMPANY, KIND, Looks, appearances, far_distances, highest
from oddment.auditing.opinion import opinion
from oddment.errors import TooFewImagesError
from oddment.fitting import fit_graph
from oddment.images.stream import ahead
from oddment.runtime import Runtime
from oddment.scoring import export
from oddment.training.choosing import SMALL_SIDE
from oddment.training.feed import Feed, KnownInputs
from oddment.training.split import Split

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from oddment.auditing.partial import Partial
    from oddment.scoring import ScoringGraph
    from oddment.training.choosing import Choice
    from oddment.training.collect import Collection
    from oddment.training.settings import Settings

__all__ = ["Crossed", "Part", "assign_parts", "by_appearance", "cross_fit", "fits", "score_store", "usual_trim"]

_LEAST_TRAINING = 5
_VALIDATION_SHARE = 0.1
_MOST_VALIDATION = 2_000
# Fewer scores than this say too little about their own location and spread.
_LEAST_TO_ALIGN = 20
_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Part:
    """One model of a cross-fit.

    Args:
        graph: the ONNX graph.
        location: median score of the images it was fitted without.
        spread: distance of the quartiles of the same.
    """

    graph: bytes
    location: float
    spread: float


@dataclass(frozen=True, slots=True)
class Crossed:
    """Scores of all members, each by a model that has not seen it.

    Args:
        scores: float32 (m,), brought to one location and spread over the parts.
        parts: int64 (m,), the model that scored each.
        trimmed: bool (m,), what the models did not train on because it looked odd.
        models: the final models.
        location: what scores of every part were brought to.
        spread: likewise.
        looks: what the members look like, where that is asked as well; else None.
    """

    scores: NDArray[np.float32]
    parts: NDArray[np.int64]
    trimmed: NDArray[np.bool_]
    models: tuple[Part, ...]
    location: float
    spread: float
    looks: Looks | None = None

    def align(self, scores: NDArray[np.float32], part: int) -> NDArray[np.float32]:
        """Return scores (n,) that the model of this part gave, in the unit of `scores`."""
        model = self.models[part]
        return _aligned(scores, model.location, model.spread, self.location, self.spread)


def assign_parts(groups: NDArray[np.int64], parts: int, *, seed: int) -> NDArray[np.int64]:
    """Return a part for each image, int64 (n,): whole groups, parts as equal as they allow.

    Args:
        groups: int64 (n,), the group of each image: near duplicates share one.
        parts: how many.
        seed: fixes which.
    """
    rng = np.random.default_rng(seed)
    names, sizes = np.unique(groups, return_counts=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, chosen = np.zeros(parts, dtype=np.int64), np.empty(int(names.max(initial=0)) + 1, dtype=np.int64)
    for index in order.tolist():
        least = int(np.argmin(filled))
        chosen[names[index]] = least
        filled[least] += sizes[index]
    return chosen[groups]


def cross_fit(
    collection: Collection,
    members: NDArray[np.int64],
    groups: NDArray[np.int64],
    choice: Choice,
    settings: Settings,
    *,
    parts: int,
    trim: float,
    partial: Partial | None = None,
    name: str = "all",
    told: Callable[[str], None],
) -> Crossed:
    """Score each member by a model fitted to the other parts, without the share of images that look oddest.

    Of small pictures, whose whole counts, the oddest are found by what they look like; where their model was chosen and
    not asked for, they are found anew by that and the scores of a first round of models. Of photographs, whose details
    count, they are found by the scores of a first round of models, fitted to all of them.

    Args:
        collection: all images.
        members: int64 (m,), the images to fit to and to score.
        groups: int64 (m,), their groups: near duplicates never lie on both sides.
        choice: model and preparation.
        settings: of fitting.
        parts: how many parts the members are cut into.
        trim: share of the images that is left out of training.
        partial: where what was worked out is kept, and was by an interrupted audit.
        name: of these members there.
        told: called with a phrase before each fit; `fits` says how often at most.

    Raises:
        TooFewImagesError: if a part has too few others to train on.
    """
    assigned, inputs = assign_parts(groups, parts, seed=settings.seed), KnownInputs()
    twice = fits(choice, parts=parts, trim=trim, model=settings.model) > parts
    rounds = ("first round, ", "second round, ") if twice else ("", "")

    def fit(part: int, number: int, trimmed: NDArray[np.bool_]) -> tuple[NDArray[np.float32], bytes]:
        key = f"{name}-{number}-{part}"
        told(f"{rounds[number - 1]}model {part + 1} of {parts}" + (", without the oddest" if trimmed.any() else ""))
        known = partial.load(key) if partial else None
        if known is not None:
            return known
        split = _split(members[(assigned != part) & ~trimmed], settings.seed)
        fitted = fit_graph(choice, collection, split, settings, known=inputs)
        graph, own = export(fitted), members[assigned == part]
        if inputs.tensors:
            scores = _score_known(fitted, collection, own, inputs)
        else:
            scores = score_store(graph, choice, collection, own)
        if partial:
            partial.keep(key, scores, graph)
        return scores, graph

    trimmed, looks = np.zeros(len(members), dtype=bool), None
    if trim and by_appearance(choice):
        points = appearances(collection, members)
        far, company = far_distances(points, seed=settings.seed, shares=(KIND, COMPANY))
        trimmed = highest(far, trim)
        looks = Looks(points, company, assigned, settings.seed) if settings.model == "auto" else None
    if twice:
        first = _combine([fit(part, 1, trimmed) for part in range(parts)], assigned, trimmed)
        trimmed = highest(first.scores if looks is None else opinion(first.scores, looks)[0], trim)
    return replace(_combine([fit(part, 2, trimmed) for part in range(parts)], assigned, trimmed), looks=looks)


def by_appearance(choice: Choice) -> bool:
    """Return whether the whole of a picture counts and not its details: whether it is small."""
    return max(choice.preparation.height, choice.preparation.width) <= SMALL_SIDE


def usual_trim(choice: Choice) -> float:
    """Return the share that is left out of training where none was asked for: a fifth, and of photographs none.

    A memory of photographs looks at places, of which an odd photograph has mostly normal ones; what looks oddest are
    rare normal photographs as often as not, and their like are then missed (docs/audit.md).
    """
    return 0.0 if choice.spec.remembers and not by_appearance(choice) else 0.2


def fits(choice: Choice, *, parts: int, trim: float, model: str) -> int:
    """Return how many models `cross_fit` fits: two rounds, but one of a model of small pictures that was asked for."""
    return 2 * parts if trim and (model == "auto" or not by_appearance(choice)) else parts


def _combine(
    fitted: Sequence[tuple[NDArray[np.float32], bytes]], assigned: NDArray[np.int64], trimmed: NDArray[np.bool_]
) -> Crossed:
    """The scores of all parts in one unit: each part's middle and spread, without the trimmed, become those of all."""
    raw = np.empty(len(assigned), dtype=np.float32)
    for part, (scores, _) in enumerate(fitted):
        raw[assigned == part] = scores
    location, spread = _middle(raw[~trimmed])
    models, aligned = [], raw.copy()
    for part, (_, graph) in enumerate(fitted):
        inside = assigned == part
        own = raw[inside & ~trimmed]
        where, width = _middle(own) if len(own) >= _LEAST_TO_ALIGN else (location, spread)
        models.append(Part(graph, where, width))
        aligned[inside] = _aligned(raw[inside], where, width, location, spread)
    return Crossed(aligned, assigned, trimmed, tuple(models), location, spread)


def score_store(graph: bytes, choice: Choice, collection: Collection, images: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the anomaly scores, float32 (n,), that a graph gives these images of the collection (one picture each)."""
    made, store = choice.preparation, collection.store
    runtime = Runtime(graph, shape=(made.channels, made.height, made.width), batch=choice.scored_at_once)
    valid = store.valid

    def work(start: int) -> NDArray[np.float32]:
        chosen = images[start : start + runtime.piece]
        return runtime.scores(made.scale(store.pixels[chosen]), valid[chosen])

    starts = range(0, len(images), runtime.piece)
    parts = ahead(starts, work, workers=runtime.pieces, waiting=runtime.pieces + 1)
    return np.concatenate([np.empty(0, np.float32), *parts])


@torch.no_grad()
def _score_known(
    graph: ScoringGraph, collection: Collection, images: NDArray[np.int64], inputs: KnownInputs
) -> NDArray[np.float32]:
    """Return the same where the model's inputs are kept: all but them is computed by torch, to rounding alike."""
    feed = Feed(graph.autoencoder, collection.store, torch.device("cpu"), inputs)
    valid, scores = torch.from_numpy(collection.store.valid), []
    for start in range(0, len(images), _AT_ONCE):
        chosen = images[start : start + _AT_ONCE]
        batch = feed.gather(chosen)
        scores.append(graph(batch.images, valid[torch.from_numpy(chosen)], *batch.inputs)[0])
    return torch.cat(scores).numpy()


def _split(training: NDArray[np.int64], seed: int) -> Split:
    """A tenth is watched; near duplicates may lie on both sides here, which only lets training stop a little later."""
    if len(training) < _LEAST_TRAINING:
        msg = (
            f"only {len(training):,} images are left to train on; an audit needs at least {_LEAST_TRAINING + 1:,} in "
            "each folder that it judges by itself. Add images, or audit folders together with --no-classes."
        )
        raise TooFewImagesError(msg)
    shuffled = np.random.default_rng(seed).permutation(training)
    watched = min(max(1, round(_VALIDATION_SHARE * len(training))), _MOST_VALIDATION)
    return Split(np.sort(shuffled[watched:]), np.sort(shuffled[:watched]), training[:0], 0)


def _middle(scores: NDArray[np.float32]) -> tuple[float, float]:
    low, middle, high = np.quantile(scores.astype(np.float64), (0.25, 0.5, 0.75))
    return float(middle), max(float(high - low), 1e-12)


def _aligned(
    scores: NDArray[np.float32], location: float, spread: float, to_location: float, to_spread: float
) -> NDArray[np.float32]:
    return np.asarray((scores.astype(np.float64) - location) * (to_spread / spread) + to_location, dtype=np.float32)
