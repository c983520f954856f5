"""anomalib's PaDiM with ResNet-18, its quickest on a processor, with random weights: how fast it is, not how good."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from typing import Any

import _vision  # noqa: F401
import numpy as np
import torch
from _worker import Clock, serve
from anomalib.models.image.padim.torch_model import PadimModel

warnings.simplefilter("ignore")
_models: dict[str, Any] = {}
BATCHES = (1, 8)


def made() -> PadimModel:
    """Return a fitted model."""
    if not _models:
        torch.manual_seed(0)
        model = PadimModel(pre_trained=False)
        model.train()
        with torch.no_grad():
            model(torch.rand(8, 3, 256, 256))
        model.fit()
        _models["padim"] = model.eval()
    found: PadimModel = _models["padim"]
    return found


@torch.no_grad()
def score(images: str, count: int) -> dict[str, Any]:
    """Score arrays of uint8 (N, 256, 256, 3), in batches of the size that is quicker."""
    raw, model = np.load(images)[:count], made()
    taken = []
    for size in BATCHES:
        clock, scores = Clock(), []
        for start in range(0, len(raw), size):
            batch = torch.from_numpy(raw[start : start + size]).permute(0, 3, 1, 2).float() / 255
            scores.append(model(batch).pred_score)
        taken.append({"mean": float(torch.cat(scores).mean()), **clock.read()})
    return {"images": len(raw), **min(taken, key=lambda item: item["seconds"])}


def versions() -> dict[str, Any]:
    """Return what this is."""
    return {"versions": f"anomalib {version('anomalib')}, torch {torch.__version__}, numpy {np.__version__}"}


serve(score=score, versions=versions)
