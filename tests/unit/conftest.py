"""A small fitted detector and its model file, made once a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment import Detector

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="session")
def tiny_images() -> NDArray[np.uint8]:
    """Sixty 8×8 pictures of noise."""
    rng = np.random.default_rng(0)
    return (rng.random((60, 8, 8)) * 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_detector(tiny_images: NDArray[np.uint8]) -> Any:
    """A detector fitted to them for one epoch."""
    return Detector(model="conv-small", target_fpr=0.1, epochs=1).fit(tiny_images)


@pytest.fixture(scope="session")
def tiny_model(tiny_detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model file; not to be written to."""
    path = tmp_path_factory.mktemp("model") / "tiny.oddment"
    tiny_detector.save(path)
    return path
