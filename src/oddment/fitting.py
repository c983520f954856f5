"""From a folder of normal images to a model file: survey, collect, split, train, export, calibrate."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save as save_tensors

from oddment.allocator import kept_pages
from oddment.artifact import ModelFile
from oddment.calibration import Calibration, ThresholdRule
from oddment.errors import DataError, ParameterError, TrainingError
from oddment.images.fingerprint import join_groups
from oddment.images.survey import survey
from oddment.models import Batch, Shape, build
from oddment.models._baseline import Baseline
from oddment.progress import Progress
from oddment.scorer import Scorer
from oddment.scoring import ScoringGraph, export
from oddment.training.calibrating import calibrate
from oddment.training.challenge import Untried, challenge
from oddment.training.choosing import choose
from oddment.training.collect import Collection, collect
from oddment.training.describing import caveats_of, describe_fit
from oddment.training.examples import keep_examples
from oddment.training.feed import Feed
from oddment.training.loop import Plan, TrainingState, pick_device, plan_epochs, train
from oddment.training.optimizers import LEARNING_RATES
from oddment.training.precision import pick_precision
from oddment.training.scores import choose_score, wants_choice
from oddment.training.settings import NOTHING_HELD_OUT, Settings, needs_held_out
from oddment.training.split import Split, all_training, split_images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from oddment.images.files import ImageRef
    from oddment.images.prepare import Preparation
    from oddment.images.survey import Survey
    from oddment.models import Autoencoder, ModelSpec
    from oddment.results import Rejection
    from oddment.reviewing import Exclusion
    from oddment.training.challenge import Challenge
    from oddment.training.choosing import Choice
    from oddment.training.feed import KnownInputs
    from oddment.training.loop import Keeper

__all__ = ["Fitted", "Settings", "fit_graph", "fit_images"]

# Largest difference between torch and ONNX Runtime that is still rounding, relative to the scores.
_PARITY = 1e-3
# Pictures that are compared: fewer of photographs, where torch takes as long for one as for a hundred small ones.
_COMPARED_PIXELS, _FEWEST_COMPARED, _MOST_COMPARED = 6_000_000, 16, 256
_AT_ONCE = 32
# Pictures that the parts of a combined score are standardised on.
_MOST_STANDARDISING = 512
# Names of rejected files and of duplicates that the model file keeps; the counts are complete.
_LISTED = 500


@dataclass(frozen=True, slots=True)
class Fitted:
    """What fitting gives back.

    Args:
        model: contents of the model file.
        scores: float32 (N,), the anomaly score of every usable image, in order.
        rejections: images that could not be used.
        duplicates: names of images that are equal to the last pixel, a list for each such set.
        caveats: what weakens the result, in sentences.
    """

    model: ModelFile
    scores: NDArray[np.float32]
    rejections: tuple[Rejection, ...]
    duplicates: tuple[tuple[str, ...], ...]
    caveats: tuple[str, ...]


def fit_images(
    refs: Callable[[], Iterable[ImageRef]],
    count: int,
    settings: Settings,
    *,
    groups: Callable[[list[str]], NDArray[np.int64]] | None = None,
    split: Split | None = None,
    exclusion: Exclusion | None = None,
    checkpoint: Callable[[str], Keeper] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Fitted:
    """Fit a model to normal images.

    Args:
        refs: returns a fresh pass over all images each time it is called.
        count: how many there are.
        settings: what was asked for.
        groups: gives a group number for each of the usable paths; images of one group stay on one side of every split.
        split: which images train, are watched and calibrate; chosen from the rule when None. Every file must be usable.
        exclusion: which images `refs` leaves out already, for the model file.
        checkpoint: makes the checkpoint for a fingerprint of images and settings.
        resume: go on from the checkpoint.
        progress: told of stages.

    Raises:
        DataError: if no image can be used, or one cannot and `strict` is set.
        TooFewImagesError: if there are too few for the threshold rule.
        TrainingError: if training diverges.
    """
    settings.check()
    progress = progress or Progress()
    looked = survey(refs(), count, max_pixels=settings.max_pixels)
    if not looked.n_usable:
        raise DataError(_nothing_usable(count, looked))
    choice = choose(settings, looked)
    spec, preparation = choice.spec, choice.preparation
    if settings.model == "auto":
        progress.say(f"{spec.name}, {choice.reason}.")
    collection = collect(
        refs(),
        count,
        preparation,
        max_pixels=settings.max_pixels,
        seed=settings.seed,
        progress=progress,
        exposure=settings.standardise_exposure,
    )
    collection.check(strict=settings.strict)
    grouping = _group(collection, settings, groups)
    split = _split(grouping, settings, count, split)
    autoencoder, plan, state, device = _train(
        spec, preparation, collection, split, settings, checkpoint=checkpoint, resume=resume, progress=progress
    )
    if autoencoder.choices:
        progress.say(f"{spec.name}, {'; '.join(autoencoder.choices)}.")
    compared = None
    if wants_choice(settings, spec):
        watched = _pictures_of(collection, split.validation)
        compared = choose_score(autoencoder, collection.store, watched, pool=settings.pool, seed=settings.seed)
    if compared:
        settings = replace(settings, score=compared.score, pool=compared.pool)
        progress.say(f"{spec.name}, {compared.describe()}")
    graph = _graph(autoencoder, collection, split, settings)
    model = ModelFile(
        graph=export(graph),
        weights=save_tensors({name: tensor.contiguous() for name, tensor in autoencoder.state_dict().items()}),
        preparation=preparation,
        calibration=Calibration.of(*(np.zeros(1, np.float32),) * 3, ThresholdRule("fixed", 0.0)),
        scoring_batch=choice.scored_at_once,
        map_range=(0.0, 1.0),
        info={},
    )
    model, scores = calibrate(model, collection, split, settings, refs, progress)
    parity = _parity(model, collection, split, graph)
    sizes = {
        "usable": len(collection),
        "rejected": len(collection.rejections),
        "training": len(split.training),
        "validation": len(split.validation),
        "calibration": len(split.calibration),
        "calibration_groups": split.n_groups,
        "groups": int(grouping.max()) + 1,
        "exact_duplicates": sum(len(names) - 1 for names in collection.duplicates()),
        "median_size": [looked.width, looked.height],
        "colour": looked.is_colour,
        "fingerprint": collection.fingerprint(),
        "rejections": [[item.path, item.reason] for item in collection.rejections[:_LISTED]],
        "duplicates": collection.duplicates()[:_LISTED],
    }
    if exclusion:
        sizes["excluded"] = exclusion.as_dict()
    info = describe_fit(choice, settings, autoencoder, plan, state, device) | {"data": sizes, "parity": parity}
    if compared:
        info["model"]["scores_tried"] = compared.as_dict()
    tried = _challenge(model, autoencoder, collection, split, settings, spec.name, progress)
    info["training"]["baselines"] = tried.as_dict()
    if settings.thumbnails:
        examples = keep_examples(collection, split.training, refs, max_pixels=settings.max_pixels, seed=settings.seed)
        model = replace(model, examples=examples)
    model = replace(model, info=info)
    return Fitted(
        model,
        scores,
        tuple(collection.rejections),
        tuple(tuple(names) for names in collection.duplicates()),
        (*caveats_of(model, spec, plan, state, settings, tried.caveat()), *(exclusion.caveats if exclusion else ())),
    )


def fit_graph(
    choice: Choice,
    collection: Collection,
    split: Split,
    settings: Settings,
    *,
    known: KnownInputs | None = None,
    progress: Progress | None = None,
) -> ScoringGraph:
    """Return the scoring graph of a model fitted to images that were collected before; nothing is calibrated.

    Args:
        choice: model and preparation, as `oddment.training.choosing.choose` returns them.
        collection: the images.
        split: which of them train and are watched.
        settings: what was asked for.
        known: what earlier models of the kind computed of these images once and for all; more is kept there.
        progress: told of stages.

    Raises:
        TrainingError: if training diverges.
    """
    spec, made, progress = choice.spec, choice.preparation, progress or Progress()
    autoencoder, *_ = _train(
        spec, made, collection, split, settings, checkpoint=None, resume=False, progress=progress, known=known
    )
    return _graph(autoencoder, collection, split, settings).eval()


# --- splitting


def _group(
    collection: Collection, settings: Settings, groups: Callable[[list[str]], NDArray[np.int64]] | None
) -> NDArray[np.int64]:
    labels = [np.arange(len(collection))]
    if settings.find_duplicates:
        labels.append(collection.near_groups())
    if groups:
        labels.append(groups(collection.paths))
    return join_groups(*labels)


def _split(grouping: NDArray[np.int64], settings: Settings, count: int, given: Split | None) -> Split:
    """The split that was given, or the one that the settings ask for."""
    if given is None:
        return split_images(grouping, settings.rule, seed=settings.seed) if settings.hold_out else all_training(count)
    if len(grouping) != count:
        msg = f"a split is given for {count:,} images and {count - len(grouping):,} of them cannot be used."
        raise DataError(msg)
    if not given.calibration.size and needs_held_out(settings.rule):
        raise ParameterError(NOTHING_HELD_OUT)
    return given


def _nothing_usable(count: int, looked: Survey) -> str:
    if not count:
        return "there are no images in what was given. Name a folder, archive or array that holds some."
    reasons = "; ".join(f"{number} × {reason}" for reason, number in list(looked.reasons.items())[:3])
    return f"none of the {count:,} files can be used: {reasons}."


# --- training


def _train(
    spec: ModelSpec,
    preparation: Preparation,
    collection: Collection,
    split: Split,
    settings: Settings,
    *,
    checkpoint: Callable[[str], Keeper] | None,
    resume: bool,
    progress: Progress,
    known: KnownInputs | None = None,
) -> tuple[Autoencoder, Plan, TrainingState, torch.device]:
    pictures = {name: _pictures_of(collection, getattr(split, name)) for name in ("training", "validation")}
    count = len(pictures["training"])
    # Small sets still deserve several steps an epoch, or batch statistics would be all that is learnt.
    batch = settings.batch_size or min(spec.batch_size, max(4, count // 8))
    epochs = (settings.epochs or plan_epochs(count, batch, spec.steps, spec.epochs)) if spec.trains else 0
    device = pick_device(settings.device if spec.trains else "cpu")
    plan = Plan(
        epochs=epochs,
        batch_size=batch,
        learning_rate=settings.learning_rate or _learning_rate(spec, settings),
        patience=max(5, epochs // 5) if settings.early_stopping else epochs,
        budget=settings.budget,
        seed=settings.seed,
        optimizer=settings.optimizer,
        schedule=settings.schedule,
        decay=settings.decay,
        loss=settings.loss,
        keep=settings.keep,
        partial_batches=settings.partial_batches,
        precision=pick_precision(settings.precision, device, gains=spec.gains_from_bfloat16),
    )
    # Weights start from the global generator; the caller's own random numbers must not change for it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        shape = Shape(preparation.channels, preparation.height, preparation.width)
        autoencoder = build(spec.name, shape, settings.options)
    keeper = (
        checkpoint(_fingerprint(collection, split, spec, preparation, plan, settings))
        if checkpoint and spec.trains
        else None
    )
    state = keeper.load() if keeper and resume else None
    started = time.perf_counter()
    if spec.trains:
        progress.start(f"Training {spec.name} on {len(split.training):,} images", 1.0)
        state = train(
            autoencoder,
            collection.store,
            pictures["training"],
            pictures["validation"],
            plan,
            device=device,
            progress=progress,
            keeper=keeper,
            state=state,
            known=known,
        )
    else:
        progress.start(f"Fitting {spec.name} on {len(split.training) + len(split.validation):,} images")
    autoencoder.to("cpu")

    def passes(chosen: NDArray[np.int64]) -> Iterator[Batch]:
        if known is not None:
            return Feed(autoencoder, collection.store, torch.device("cpu"), known).passes(chosen, plan.batch_size)
        return collection.store.passes(chosen, plan.batch_size, torch.device("cpu"))

    # Where nothing is held out, the images that are watched train as well; no image counts twice.
    watched = np.setdiff1d(pictures["validation"], pictures["training"])
    with torch.no_grad():
        autoencoder.settle(*(partial(passes, part) for part in (pictures["training"], watched) if part.size))
    progress.finish()
    return autoencoder.eval(), plan, state or TrainingState(seconds=time.perf_counter() - started), device


def _learning_rate(spec: ModelSpec, settings: Settings) -> float:
    """The model's own rate is meant for Adam; the other optimisers have Keras's."""
    return spec.learning_rate if settings.optimizer == "adam" else LEARNING_RATES[settings.optimizer]


def _pictures_of(collection: Collection, images: NDArray[np.int64]) -> NDArray[np.int64]:
    """The pictures in the store that belong to these images."""
    chosen = np.zeros(len(collection), dtype=bool)
    chosen[images] = True
    return np.flatnonzero(chosen[collection.store.owners])


def _fingerprint(
    collection: Collection, split: Split, spec: ModelSpec, preparation: Preparation, plan: Plan, settings: Settings
) -> str:
    about = {
        "images": collection.fingerprint(),
        "calibration": hashlib.sha256(split.calibration.tobytes()).hexdigest(),
        "model": [spec.name, settings.options],
        "preparation": [preparation.as_dict(), settings.standardise_exposure],
        "plan": asdict(replace(plan, budget=None)),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _graph(autoencoder: Autoencoder, collection: Collection, split: Split, settings: Settings) -> ScoringGraph:
    """The scoring graph; parts of a combined score are standardised on images that stop the training, not calibrate."""
    store = collection.store
    made = store.preparation
    shape = Shape(made.channels, made.height, made.width)
    graph = ScoringGraph(autoencoder, shape, settings.score, settings.pool, exposure=store.exposure)
    if len(graph.scores) > 1:
        watched = _pictures_of(collection, split.validation if split.validation.size else split.training)
        chosen, valid = watched[:: -(-len(watched) // _MOST_STANDARDISING)], store.valid
        graph.eval().standardise(
            (torch.from_numpy(made.scale(store.pixels[part])), torch.from_numpy(valid[part]))
            for part in np.array_split(chosen, -(-len(chosen) // 32))
        )
    return graph


# --- checking


def _parity(model: ModelFile, collection: Collection, split: Split, graph: ScoringGraph) -> dict[str, Any]:
    """Compare torch with ONNX Runtime; the largest difference goes into the model file.

    On calibration images, or on training images where none calibrates.

    Raises:
        TrainingError: if they differ by more than rounding.
    """
    chosen = split.calibration if split.calibration.size else split.training
    pixels = model.preparation.height * model.preparation.width
    most = min(_MOST_COMPARED, max(_FEWEST_COMPARED, _COMPARED_PIXELS // pixels))
    pictures = _pictures_of(collection, chosen)[:most]
    images = model.preparation.scale(collection.store.pixels[pictures])
    valid = collection.store.valid[pictures]
    runtime = Scorer(model).runtime.run(images, valid, ("anomaly_score",))["anomaly_score"]
    graph.eval()
    # A few at a time, in the same memory: clearing pages for maps of all of them takes longer than drawing these.
    with torch.no_grad(), kept_pages():
        parts = (slice(start, start + _AT_ONCE) for start in range(0, len(images), _AT_ONCE))
        scores = [graph(torch.from_numpy(images[part]), torch.from_numpy(valid[part]))[0] for part in parts]
    reference = torch.cat(scores).numpy()
    difference = float(np.abs(runtime - reference).max())
    relative = difference / max(float(np.abs(reference).max()), 1e-12)
    if not relative <= _PARITY:
        msg = f"ONNX Runtime and torch disagree by {difference:.3g} on the calibration images; the model is not saved."
        raise TrainingError(msg)
    return {"images": len(pictures), "max_abs_difference": difference, "max_relative_difference": relative}


def _challenge(
    model: ModelFile,
    autoencoder: Autoencoder,
    collection: Collection,
    split: Split,
    settings: Settings,
    name: str,
    progress: Progress,
) -> Challenge | Untried:
    """How plain baselines do beside the model, or why that was not tried."""
    if not settings.baseline_check:
        return Untried("switched off")
    if isinstance(autoencoder, Baseline):
        return Untried(f"{name} is a baseline itself")
    runtime = Scorer(model).runtime
    training, held_out = (_pictures_of(collection, part) for part in (split.training, split.calibration))
    progress.start("Trying plain baselines beside it")
    tried = challenge(
        name,
        lambda images, valid: runtime.run(images, valid, ("anomaly_score",))["anomaly_score"],
        collection.store,
        training,
        held_out,
        seed=settings.seed,
    )
    progress.finish()
    return tried
