"""Everything that fitting can be told, and what is wrong with it before an image is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from oddment.calibration import ThresholdRule
from oddment.errors import ParameterError
from oddment.images.decode import DEFAULT_MAX_PIXELS
from oddment.images.prepare import FITS, Fit
from oddment.models import get_spec
from oddment.scoring import MODEL, parse_pool, parse_scores
from oddment.training.loop import KeepName, pick_device
from oddment.training.losses import LossName
from oddment.training.optimizers import OptimizerName, ScheduleName, check_names
from oddment.training.precision import PrecisionName

__all__ = ["NOTHING_HELD_OUT", "Settings", "needs_held_out"]

NOTHING_HELD_OUT = (
    "no image is held out, and the threshold rule needs held-out scores. Give max_normal, a quantile over the training "
    "scores, or a threshold."
)


def needs_held_out(rule: ThresholdRule) -> bool:
    """Return whether a rule needs scores of images that were held out from training."""
    return rule.kind == "target_fpr" or (rule.kind != "fixed" and rule.over == "calibration")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that `fit` can be told; each None is chosen from the images.

    Args:
        model: a registered name, or "auto".
        options: of the model, such as latent_dim.
        size: (height, width) of the prepared picture.
        fit: "letterbox", "stretch" or "tile".
        channels: 1 (gray) or 3 (colour).
        rule: how the threshold is chosen.
        epochs: passes over the training images, at most.
        batch_size: images a step.
        learning_rate: peak of the schedule.
        budget: seconds that the training loop may take.
        seed: fixes split, start, order and corruption.
        device: "auto", "cpu", "cuda", "mps".
        max_pixels: larger images are rejected before they are decoded.
        strict: an unusable image is an error.
        find_duplicates: keep near duplicates on one side of every split.
        optimizer: "adam", "sgd" or "adagrad".
        schedule: "cosine", "constant" or "inverse-time".
        decay: of the inverse-time schedule, per step.
        loss: "model" for the model's own, or "mse" or "bce" of its reconstruction.
        score: "model" for the model's own, usually the mean squared error; "mse", "mae", "bce", "ssim" or "msgms" of
            its reconstruction; several with commas between them, standardised and summed; or "best", whichever does
            best on synthetic defects in held-out pictures, which model="auto" takes as well.
        pool: how the anomaly map becomes the score: "model" for the model's own way, usually the mean; "mean", "max",
            "top=SHARE", the mean of this share of the largest values, or "quantile=Q".
        keep: the weights that stay: of the "best" epoch, or of the "last".
        early_stopping: stop when the validation loss no longer falls.
        partial_batches: train on the rest of an epoch that fills no batch as well.
        ranges: the values that become 0 and 1, by type, such as {"uint8": (0, 255)}; the type's own, or for floats and
            deep images what was seen, where not given.
        precision: "auto" trains in bfloat16 where model and processor gain from it; or "float32" or "bfloat16".
        hold_out: False trains on every image and holds none out: the rule must then be over training scores, or fixed.
        baseline_check: try plain baselines beside the model, on synthetic defects, and say so where they do as well.
        standardise_exposure: show each image to the model at one mean and one contrast.
        thumbnails: keep small pictures of training images in the model file, to show which normal ones an anomaly is
            most like; False where the images are secret.
    """

    model: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    fit: Fit = "letterbox"
    channels: int | None = None
    rule: ThresholdRule = field(default_factory=ThresholdRule)
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    budget: float | None = None
    seed: int = 0
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS
    strict: bool = False
    find_duplicates: bool = True
    optimizer: OptimizerName = "adam"
    schedule: ScheduleName = "cosine"
    decay: float = 0.0
    loss: LossName = "model"
    score: str = MODEL
    pool: str = MODEL
    keep: KeepName = "best"
    early_stopping: bool = True
    partial_batches: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    precision: PrecisionName = "auto"
    hold_out: bool = True
    baseline_check: bool = True
    standardise_exposure: bool = False
    thumbnails: bool = True

    def check(self) -> None:
        """Check every setting that can be checked before an image is read.

        Raises:
            ParameterError: one message that names all mistakes.
        """
        rules = {
            f"fit must be one of {', '.join(FITS)}; got {self.fit!r}.": self.fit in FITS,
            f"channels must be 1 or 3; got {self.channels}.": self.channels in (None, 1, 3),
            f"size must lie between 1 and 8192; got {self.size}.": not self.size
            or all(1 <= v <= 8192 for v in self.size),
            f"epochs must be at least 1; got {self.epochs}.": self.epochs is None or self.epochs >= 1,
            f"batch_size must be at least 1; got {self.batch_size}.": self.batch_size is None or self.batch_size >= 1,
            f"learning_rate must be positive; got {self.learning_rate}.": self.learning_rate is None
            or 0 < self.learning_rate < float("inf"),
            f"budget must be positive; got {self.budget}.": self.budget is None or self.budget > 0,
            f"max_pixels must be at least 1; got {self.max_pixels}.": self.max_pixels >= 1,
            f"seed must lie between 0 and 2**32 - 1; got {self.seed}.": 0 <= self.seed < 2**32,
            f"decay must be a number of at least 0; got {self.decay}.": 0 <= self.decay < float("inf"),
            f"decay={self.decay} belongs to the inverse-time schedule; got schedule={self.schedule!r}.": not self.decay
            or self.schedule == "inverse-time",
        }
        problems = [text for text, holds in rules.items() if not holds]
        chosen = {
            "optimizer": (self.optimizer, OptimizerName),
            "schedule": (self.schedule, ScheduleName),
            "loss": (self.loss, LossName),
            "keep": (self.keep, KeepName),
            "precision": (self.precision, PrecisionName),
        }
        if self.model != "auto":
            get_spec(self.model)
        for check in (
            partial(check_names, **chosen),
            partial(parse_scores, self.score),
            partial(parse_pool, self.pool),
        ):
            try:
                check()
            except ParameterError as error:
                problems.append(str(error))
        if not self.hold_out and needs_held_out(self.rule):
            problems.append(NOTHING_HELD_OUT)
        if problems:
            raise ParameterError(" ".join(problems))
        _check_device(self.device)


def _check_device(name: str) -> None:
    try:
        device = pick_device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        msg = f"device={name!r} cannot be used here ({str(error).splitlines()[0]}). Use auto or cpu."
        raise ParameterError(msg) from error
