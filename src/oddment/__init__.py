"""Oddment finds the odd images in a folder: train on normal ones, and see what cannot be redrawn.

>>> from oddment import Detector, load
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oddment.calibration import Calibration, ThresholdRule, p_values
    from oddment.detector import Detector
    from oddment.errors import OddmentError
    from oddment.results import Detection, Region, Rejection
    from oddment.scorer import Scorer, load

__version__ = "0.1.0"

# ONNX Runtime, from 1.29, keeps a device number in the home folder and reports each loaded model to its maker unless
# told not to before it is imported. Images of a production line are nobody's business; who wants it sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "Calibration",
    "Detection",
    "Detector",
    "OddmentError",
    "Region",
    "Rejection",
    "Scorer",
    "ThresholdRule",
    "load",
    "p_values",
]

# Name to module: imported on first use, so that `import oddment` costs nothing and never brings torch.
_HOMES = {
    "Calibration": "oddment.calibration",
    "Detection": "oddment.results",
    "Detector": "oddment.detector",
    "OddmentError": "oddment.errors",
    "Region": "oddment.results",
    "Rejection": "oddment.results",
    "Scorer": "oddment.scorer",
    "ThresholdRule": "oddment.calibration",
    "load": "oddment.scorer",
    "p_values": "oddment.calibration",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any public object
    if name not in _HOMES:
        msg = f"module 'oddment' has no attribute {name!r}"
        raise AttributeError(msg)
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] in ("torch", "sklearn", "scipy"):
            from oddment.errors import MissingExtraError

            msg = f"{name} needs the training half (missing: {error.name}): pip install 'oddment[train]'."
            raise MissingExtraError(msg) from error
        raise


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
