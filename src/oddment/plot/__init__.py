"""Every figure that Oddment draws, as a function that returns a matplotlib Figure.

Nothing here touches pyplot or matplotlib's settings: figures are made for the Agg canvas, show themselves in a notebook
and are saved with `save`. Colours are Okabe and Ito's, safe for every kind of colour vision; a normal image is a blue
circle, an anomaly an orange-red triangle, everywhere. Needs `pip install 'oddment[plot]'`.
"""

from oddment.errors import MissingExtraError

try:
    import matplotlib as mpl  # noqa: F401 - only whether it is there
except ImportError as error:
    _message = "figures need matplotlib: pip install 'oddment[plot]'."
    raise MissingExtraError(_message) from error

from oddment.plot.curves import loss_curves, precision_recall, roc
from oddment.plot.diagram import model_diagram
from oddment.plot.drift import drift_chart
from oddment.plot.pictures import heat_maps, reconstructions, sample_strip
from oddment.plot.scores import error_by_index, intervals, latent_scatter, score_histogram
from oddment.plot.style import as_png, save

__all__ = [
    "as_png",
    "drift_chart",
    "error_by_index",
    "heat_maps",
    "intervals",
    "latent_scatter",
    "loss_curves",
    "model_diagram",
    "precision_recall",
    "reconstructions",
    "roc",
    "sample_strip",
    "save",
    "score_histogram",
]
