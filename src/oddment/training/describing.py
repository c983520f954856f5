"""What there is to say of a fit: for the model file, and what weakens it, for people."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch

import oddment
from oddment.scoring import parse_scores
from oddment.training.choosing import over_training
from oddment.training.loop import stopped_early

if TYPE_CHECKING:
    from oddment.artifact import ModelFile
    from oddment.models import Autoencoder, ModelSpec
    from oddment.training.choosing import Choice
    from oddment.training.loop import Plan, TrainingState
    from oddment.training.settings import Settings

__all__ = ["caveats_of", "describe_fit"]


def describe_fit(
    choice: Choice,
    settings: Settings,
    autoencoder: Autoencoder,
    plan: Plan,
    state: TrainingState,
    device: torch.device,
) -> dict[str, Any]:
    """Return what the model file keeps of how a model was chosen and trained, JSON-ready."""
    spec = choice.spec
    options = {**spec.options, **settings.options}
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {
            "name": spec.name,
            "summary": spec.summary,
            "chosen": choice.reason,
            "options": options,
            "score": ",".join(parse_scores(settings.score)),
            "pool": settings.pool,
            "standardise_exposure": settings.standardise_exposure,
            # Of a model without parameters, the numbers that fitting has set.
            "parameters": sum(p.numel() for p in [*autoencoder.parameters()] or autoencoder.buffers()),
        },
        "training": {
            **asdict(plan),
            "device": str(device),
            "seconds": round(state.seconds, 3),
            "stopped": _why_stopped(plan, state),
            "notes": list(autoencoder.notes),
            "choices": list(autoencoder.choices),
            "history": [asdict(epoch) for epoch in state.history],
        },
        "versions": {
            "oddment": oddment.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    }


def _why_stopped(plan: Plan, state: TrainingState) -> str:
    if not plan.epochs:
        return "fitted in one pass"
    if len(state.history) >= plan.epochs:
        return "all epochs done"
    if stopped_early(state.history, plan.patience):
        return f"no better validation loss in {plan.patience} epochs"
    return "time budget spent"


def caveats_of(
    model: ModelFile, spec: ModelSpec, plan: Plan, state: TrainingState, settings: Settings, hint: str | None
) -> tuple[str, ...]:
    """Return what weakens a fitted model, in sentences; `hint` is that of the baseline check."""
    caveats = [model.calibration.caveat(), *model.info["training"]["notes"]]
    ignored = [name for name in ("epochs", "batch_size", "learning_rate", "budget") if getattr(settings, name)]
    if not plan.epochs and ignored:
        caveats.append(f"{settings.model} is fitted in one pass: {', '.join(ignored)} had no effect.")
    if spec.remembers and over_training(settings.rule):
        caveats.append(
            f"{spec.name} remembers the images it was fitted to, so that their scores are too low and a threshold over "
            "them flags too much. Use --target-fpr or --quantile, which take held-out images, or a model that trains."
        )
    if _why_stopped(plan, state) == "time budget spent":
        caveats.append("The time budget ended training early; another run may give other scores.")
    caveats.append(hint)
    return tuple(text for text in caveats if text)
