"""How well anomalies are told from normal images: areas, rates and their intervals, for images and for pixels.

Needs the learning half: SciPy and scikit-learn do what they have.
"""

from oddment.metrics.bootstrap import Resampled, resample
from oddment.metrics.pixels import PixelResult, PixelTally
from oddment.metrics.ranking import auroc, average_precision, best_f1
from oddment.metrics.rates import Interval, Outcome, rate

__all__ = [
    "Interval",
    "Outcome",
    "PixelResult",
    "PixelTally",
    "Resampled",
    "auroc",
    "average_precision",
    "best_f1",
    "rate",
    "resample",
]
