"""How recipes fit: `fit_images` told to do as Keras does, with the weights after chosen epochs kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.calibration import ThresholdRule
from oddment.fitting import Fitted, Settings, fit_images
from oddment.images.inputs import as_refs
from oddment.models import Shape, build, keras_parameters
from oddment.scorer import Scorer
from oddment.scoring import ScoringGraph, export
from oddment.training.split import Split

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import torch
    from numpy.typing import NDArray

    from oddment.images.files import ImageRef
    from oddment.recipes._base import Call
    from oddment.training.loop import TrainingState

__all__ = ["Trained", "fit_as_keras", "parameters_of", "watched"]

Weights = dict[str, "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model.

    Args:
        fitted: what fitting gave; its scores are of all images that were given, those watched included.
        scorer: after the last epoch.
        history: a row an epoch: training_loss, validation_loss, seconds and others.
        after: epoch → scorer with the weights after it.
    """

    fitted: Fitted
    scorer: Scorer
    history: list[dict[str, Any]]
    after: dict[int, Scorer]


class _Snapshots:
    """Keeps the weights after chosen epochs."""

    def __init__(self, epochs: Collection[int]) -> None:
        self.epochs = epochs
        self.weights: dict[int, Weights] = {}

    def load(self) -> TrainingState | None:
        """There is nothing to go on with."""
        return None

    def save(self, state: TrainingState) -> None:
        """Keep the weights if this is one of the epochs."""
        if len(state.history) in self.epochs:
            self.weights[len(state.history)] = state.weights


def watched(training: int, watching: int) -> Split:
    """Return a split: the first `training` images train, the next ones are only watched, nothing calibrates."""
    first = np.arange(training, dtype=np.int64)
    return Split(first, training + np.arange(watching, dtype=np.int64), first[:0], 0, first)


def fit_as_keras(
    call: Call,
    images: NDArray[np.uint8] | Sequence[ImageRef],
    split: Split,
    model: str,
    *,
    snapshots: Collection[int] = (),
    rule: ThresholdRule | None = None,
    **settings: Any,  # noqa: ANN401 - the fields of Settings
) -> Trained:
    """Train as Keras's `fit` does: all epochs, the last partial batch, the last weights; a constant rate by default.

    Args:
        call: gives the seed and hears of progress.
        images: all images, those that are only watched included.
        split: which are which.
        model: a registered name.
        snapshots: epochs after which the model is kept as well.
        rule: threshold rule; the largest training score when None.
        settings: what else `Settings` takes.
    """
    chosen: dict[str, Any] = {
        "schedule": "constant",
        "keep": "last",
        "early_stopping": False,
        "partial_batches": True,
        # Recipes have baselines of their own, and labels to measure with.
        "baseline_check": False,
    } | settings
    keeper = _Snapshots(snapshots)
    asked = Settings(
        model=model,
        seed=call.seed,
        rule=rule or ThresholdRule("max_normal", 0.0, "training"),
        find_duplicates=False,
        **chosen,
    )
    fitted = fit_images(
        lambda: as_refs(images), len(images), asked, split=split, checkpoint=lambda _: keeper, progress=call.progress
    )
    after = {epoch: _with_weights(fitted, asked, weights) for epoch, weights in keeper.weights.items()}
    return Trained(fitted, Scorer(fitted.model), fitted.model.info["training"]["history"], after)


def _with_weights(fitted: Fitted, settings: Settings, weights: Weights) -> Scorer:
    shape = Shape(*fitted.model.shape)
    autoencoder = build(settings.model, shape, settings.options)
    autoencoder.load_state_dict(weights)
    graph = ScoringGraph(autoencoder.eval(), shape, settings.score, settings.pool)
    return Scorer(replace(fitted.model, graph=export(graph)))


def parameters_of(model: str, shape: tuple[int, int, int], options: dict[str, Any] | None = None) -> tuple[int, int]:
    """Return the parameters of encoder and decoder as Keras counts them."""
    autoencoder = build(model, Shape(*shape), options)
    encoder, decoder = autoencoder.get_submodule("encoder"), autoencoder.get_submodule("decoder")
    return keras_parameters(encoder), keras_parameters(decoder)
