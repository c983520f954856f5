"""PyOD's contract around a `Detector`; PyOD itself is not needed.

Source: the interface of `pyod.models.base.BaseDetector`, Zhao, Nasrullah and Li, "PyOD: A Python Toolbox for Scalable
    Outlier
Detection", JMLR 20 (2019).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.detector import Detector

__all__ = ["PyodDetector"]


class PyodDetector:
    """A detector as PyOD's users know it.

    Args:
        detector: the detector; fitted or to be fitted by `fit`.

    Attributes:
        decision_scores_: float64 (N,), anomaly scores of the training images.
        labels_: int64 (N,), 1 where decision_scores_ > threshold_.
        threshold_: the detector's own threshold.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: ANN401 - PyOD's signature
        """Fit to images, presumed mostly normal."""
        self.detector.fit(X)
        return self

    @property
    def decision_scores_(self) -> NDArray[np.float64]:
        """Anomaly scores of the training images, float64 (N,), higher is more anomalous."""
        _ = self.detector.threshold_
        return self.detector.scores_.astype(np.float64)

    @property
    def threshold_(self) -> float:
        """Scores strictly above it are outliers."""
        return self.detector.threshold_

    @property
    def labels_(self) -> NDArray[np.int64]:
        """1 for training images above the threshold, else 0."""
        return (self.decision_scores_ > self.threshold_).astype(np.int64)

    @property
    def contamination(self) -> float:
        """The share of training images above the threshold, in PyOD's sense."""
        return float(self.labels_.mean())

    def decision_function(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401
        """Return float64 (N,) anomaly scores, higher is more anomalous: the opposite sign of scikit-learn's."""
        return self.detector.anomaly_score(X).astype(np.float64)

    def predict(self, X: Any) -> NDArray[np.int64]:  # noqa: ANN401
        """Return int64 (N,): 1 for anomalies, else 0."""
        return (self.decision_function(X) > self.threshold_).astype(np.int64)

    def fit_predict(self, X: Any, y: object = None) -> NDArray[np.int64]:  # noqa: ANN401
        """Fit, and return the labels of the training images."""
        return self.fit(X).labels_

    def predict_proba(self, X: Any, method: str = "linear") -> NDArray[np.float64]:  # noqa: ANN401
        """Return float64 (N, 2): scores brought to 0..1 as PyOD does it, normal first.

        PyOD calls this a probability; it is none. Prefer `Detector.p_value`.

        Args:
            X: images.
            method: "linear", from the range of the training scores, clipped; or "unify", by the error function of
                their mean and spread.

        Raises:
            ParameterError: if `method` is neither.

        Source:
            "unify": Kriegel, Kröger, Schubert and Zimek, "Interpreting and Unifying Outlier Scores" (2011).
        """
        known, scores = self.decision_scores_, self.decision_function(X)
        if method == "linear":
            scaled = (scores - known.min()) / max(float(known.max() - known.min()), 1e-12)
        elif method == "unify":
            standard = (scores - known.mean()) / max(float(known.std()) * math.sqrt(2), 1e-12)
            scaled = np.array([math.erf(value) for value in standard])
        else:
            msg = f"method must be linear or unify; got {method!r}."
            raise ParameterError(msg)
        share = np.clip(scaled, 0, 1)
        return np.column_stack([1 - share, share])
