"""What an audit has worked out so far, on disk: an interrupted one goes on from there."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Partial"]


class Partial:
    """Scores and graphs of the models fitted so far, in a folder that is deleted at the end.

    Args:
        folder: where.
        about: what identifies the audit; another audit's folder is not gone on with.
        resume: go on with what is there.
        overwrite: throw away what is there.

    Raises:
        DataError: if there is an interrupted audit and neither was asked for, or it is of other images or settings.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        self._folder = folder
        known = folder / "about.json"
        text = json.dumps(about, sort_keys=True)
        if folder.exists() and not (resume or overwrite):
            msg = (
                f"{folder.parent} holds an interrupted audit. Add --resume to finish it, or --overwrite to begin anew."
            )
            raise DataError(msg)
        if resume and folder.exists():
            if not known.is_file() or known.read_text(encoding="utf-8") != text:
                msg = (
                    f"{folder.parent} holds an interrupted audit of other images or with other options. Repeat its "
                    "command with --resume, or start anew with --overwrite."
                )
                raise DataError(msg)
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        known.write_text(text, encoding="utf-8")

    def load(self, key: str) -> tuple[NDArray[np.float32], bytes] | None:
        """Return scores and graph that were kept under a key, None if none were or they are damaged."""
        scores, graph = self._folder / f"{key}.npy", self._folder / f"{key}.onnx"
        if not scores.is_file():
            return None
        try:
            return np.load(scores, allow_pickle=False), graph.read_bytes()
        except (OSError, ValueError):
            return None

    def keep(self, key: str, scores: NDArray[np.float32], graph: bytes) -> None:
        """Keep scores and graph; the scores come last and whole, so that they stand for both."""
        (self._folder / f"{key}.onnx").write_bytes(graph)
        temporary = self._folder / f".{key}.npy"
        np.save(temporary, scores, allow_pickle=False)
        temporary.replace(self._folder / f"{key}.npy")

    def discard(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
