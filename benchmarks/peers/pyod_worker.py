"""PyOD's AutoEncoder with the layers of reference system 1's `autoencoder`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pyod
import torch
from _worker import Clock, serve
from pyod.models.auto_encoder import AutoEncoder

warnings.simplefilter("ignore")
_models: dict[str, Any] = {}


def read(path: str, count: int) -> Any:  # noqa: ANN401
    """Return float32 rows."""
    images = np.load(path)[:count].astype(np.float32) / 255
    return images.reshape(len(images), -1)


def epoch(images: str, count: int, batch: int) -> dict[str, Any]:
    """Fit a new model for one epoch; PyOD scores its training data as a part of it."""
    rows = read(images, count)
    model = AutoEncoder(hidden_neuron_list=[64], epoch_num=1, batch_size=batch, verbose=0, random_state=0)
    clock = Clock()
    model.fit(rows)
    _models["dense"] = model
    return {"images": len(rows), **clock.read()}


def score(images: str, count: int) -> dict[str, Any]:
    """Score arrays of uint8."""
    if not _models:
        epoch(images, 2000, 64)
    raw = np.load(images)[:count]
    clock = Clock()
    scores = _models["dense"].decision_function((raw.astype(np.float32) / 255).reshape(len(raw), -1))
    return {"images": len(raw), "mean": float(np.mean(scores)), **clock.read()}


def versions() -> dict[str, Any]:
    """Return what this is."""
    return {"versions": f"pyod {pyod.__version__}, torch {torch.__version__}, numpy {np.__version__}"}


serve(epoch=epoch, score=score, versions=versions)
