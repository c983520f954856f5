"""Checkpoints: what a stopped training goes on from. One safetensors file, no pickle, replaced atomically."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load, save

from oddment.artifact import write_atomically
from oddment.errors import CheckpointError
from oddment.training.loop import Epoch, TrainingState

if TYPE_CHECKING:
    from pathlib import Path

    import torch

__all__ = ["Checkpoint"]

_VERSION = 1


class Checkpoint:
    """A checkpoint file.

    Args:
        path: where it lies.
        fingerprint: identifies images and settings; a checkpoint of another fingerprint is refused.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self.fingerprint = fingerprint

    def save(self, state: TrainingState) -> None:
        """Replace the file with this state."""
        tensors: dict[str, torch.Tensor] = {}
        for part in ("weights", "best", "optimizer"):
            for name, tensor in getattr(state, part).items():
                tensors[f"{part}/{name}"] = tensor.contiguous().clone()
        about = {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "history": [asdict(epoch) for epoch in state.history],
            "seconds": state.seconds,
        }
        write_atomically(self.path, save(tensors, metadata={"oddment": json.dumps(about)}))

    def load(self) -> TrainingState:
        """Return the state in the file.

        Raises:
            CheckpointError: if the file is missing, damaged, or belongs to other images or settings.
        """
        try:
            data = self.path.read_bytes()
            about = dict(json.loads(_metadata(data)["oddment"]))
            tensors = load(data)
        except FileNotFoundError as error:
            msg = f"{self.path}: there is no checkpoint to resume from. Run again without --resume."
            raise CheckpointError(msg) from error
        except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
            msg = f"{self.path}: the checkpoint is damaged ({error}). Delete it and run again without --resume."
            raise CheckpointError(msg) from error
        if about.get("version") != _VERSION or about.get("fingerprint") != self.fingerprint:
            msg = (
                f"{self.path}: the checkpoint belongs to other images or settings. Repeat the command that was "
                "interrupted, or delete the checkpoint and run without --resume."
            )
            raise CheckpointError(msg)
        parts: dict[str, dict[str, torch.Tensor]] = {"weights": {}, "best": {}, "optimizer": {}}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = tensor
        history = tuple(Epoch(**epoch) for epoch in about["history"])
        return TrainingState(history, parts["weights"], parts["best"], parts["optimizer"], float(about["seconds"]))

    def delete(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its header is JSON behind an 8-byte length."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length].decode())
    metadata: dict[str, str] = header["__metadata__"]
    return metadata
