"""Every figure is made, is a Figure, holds what it should, and leaves matplotlib alone."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from oddment import plot
from oddment.errors import ParameterError
from oddment.metrics import Interval

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
TRUTH = np.arange(60) >= 40
SCORES = RNG.random(60) + TRUTH
LABELS = ["7"] * 40 + ["5"] * 20
IMAGES = [(RNG.random((12, 10)) * 255).astype(np.uint8) for _ in range(5)]
COLOURS = [(RNG.random((12, 10, 3)) * 255).astype(np.uint8) for _ in range(5)]
MAPS = [RNG.random((6, 5)).astype(np.float32) for _ in range(5)]
HISTORY = [{"number": n, "training_loss": 1 / n, "validation_loss": 1.1 / n} for n in range(1, 5)]

FIGURES: dict[str, Any] = {
    "roc": lambda: plot.roc(SCORES, TRUTH, threshold=1.0),
    "roc of several": lambda: plot.roc({"a": SCORES, "b": -SCORES}, TRUTH),
    "precision_recall": lambda: plot.precision_recall(SCORES, TRUTH, threshold=1.0),
    "precision_recall, nothing flagged": lambda: plot.precision_recall(SCORES, TRUTH, threshold=9.0),
    "score_histogram": lambda: plot.score_histogram(
        SCORES[~TRUTH], SCORES[TRUTH], calibration=SCORES[:30], threshold=1.0
    ),
    "score_histogram of one value": lambda: plot.score_histogram([0.0, 0.0]),
    "score_histogram, wide": lambda: plot.score_histogram([0.001, 0.1, 10.0]),
    "error_by_index": lambda: plot.error_by_index(SCORES, LABELS, anomalies=["5"], threshold=1.0, heading="all"),
    "error_by_index, plain": lambda: plot.error_by_index(SCORES),
    "error_by_index, lines": lambda: plot.error_by_index({"a": SCORES, "b": SCORES / 2}, LABELS, anomalies=["5"]),
    "intervals": lambda: plot.intervals({"a": Interval(0.9, 0.8, 0.95), "b": (0.5, 0.4, 0.6)}, x="AUROC"),
    "loss_curves": lambda: plot.loss_curves(HISTORY),
    "loss_curves by name": lambda: plot.loss_curves({"train": [4.0, 0.1], "test": [3.9, 0.2]}),
    "latent_scatter": lambda: plot.latent_scatter(RNG.random((60, 8)), LABELS, anomalies=["5"]),
    "latent_scatter of one dimension": lambda: plot.latent_scatter(RNG.random((60, 1))),
    "latent_scatter of one image": lambda: plot.latent_scatter(RNG.random((1, 4))),
    "reconstructions": lambda: plot.reconstructions(IMAGES, MAPS, scores=range(5), labels="abcde"),
    "reconstructions, stacked": lambda: plot.reconstructions(COLOURS, COLOURS, layout="stack", heading="pairs"),
    "sample_strip": lambda: plot.sample_strip(IMAGES, labels="abcde", heading="strip"),
    "drift_chart": lambda: plot.drift_chart(
        SCORES, np.cumsum(SCORES) / 10 - 1, calibration=SCORES[:40], threshold=1.0, alarm_at=50, onset=40
    ),
    "drift_chart without an alarm": lambda: plot.drift_chart([1.0], [0.0], calibration=[]),
    "heat_maps": lambda: plot.heat_maps(
        IMAGES, MAPS, redrawn=MAPS, masks=[image > 200 for image in IMAGES], scores=range(5)
    ),
    "heat_maps in colour": lambda: plot.heat_maps(COLOURS, MAPS, map_range=(0.0, 1.0)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_draw_on_their_own_canvas(name: str) -> None:
    """Every function returns a Figure with an Agg canvas that becomes a PNG."""
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert isinstance(figure.canvas, FigureCanvasAgg)
    with Image.open(io.BytesIO(plot.as_png(figure, dpi=50))) as image:
        assert min(image.size) > 40


def test_every_public_figure_is_drawn_here() -> None:
    """A new figure without a test is noticed."""
    drawn = {name.split(" ")[0].rstrip(",") for name in FIGURES}
    assert set(plot.__all__) - drawn == {"as_png", "save", "model_diagram"}


def test_pyplot_is_never_imported() -> None:
    """Figures are made without pyplot, whose state would be the user's."""
    code = (
        # Asking for the backend would choose one, and import pyplot for it.
        "import sys, matplotlib as m; look = lambda: {k: m.rcParams[k] for k in m.rcParams if k != 'backend'}\n"
        "before = look()\n"
        "from oddment import plot; plot.as_png(plot.error_by_index([1, 2, 3], threshold=2))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and look() == before and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_classes_lie_side_by_side_with_anomalies_last() -> None:
    """Points are reordered by class: normal classes in natural order, then the anomalies."""
    figure = plot.error_by_index([5.0, 1.0, 10.0, 2.0], ["odd", "2", "10", "1"], anomalies=["odd"])
    points = [line.get_ydata()[0] for line in figure.axes[0].lines]
    assert points == [2.0, 1.0, 10.0, 5.0]


def test_the_threshold_is_a_dashed_line_with_its_value() -> None:
    """The line lies at the threshold and the figure says which value that is."""
    axes = plot.error_by_index(SCORES, threshold=1.25).axes[0]
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [1.25]
    assert any("1.25" in text.get_text() for text in axes.texts)


def test_two_dimensional_latents_are_drawn_as_they_are() -> None:
    """No projection turns a plane that is one already."""
    latent = RNG.random((10, 2))
    axes = plot.latent_scatter(latent).axes[0]
    assert np.array_equal(np.column_stack(axes.lines[0].get_data()), latent)
    assert axes.get_xlabel() == "latent 1"


def test_model_diagram_shows_layers_shapes_and_counts() -> None:
    """The diagram of reference system 1's dense model names its 101,200 parameters and its latent."""
    figure = plot.model_diagram("dense", (1, 28, 28))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert any("50,240 parameters" in text for text in texts)
    assert {"input", "latent", "reconstruction", "dense, sigmoid"} <= set(texts)
    assert "101,200" in figure.get_suptitle()


def test_model_diagram_takes_any_module() -> None:
    """A module without encode and decode is one column, and stays in training mode."""
    from torch import nn

    module = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    figure = plot.model_diagram(module, (3, 16, 16), heading="mine")
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "conv 3×3 stride 2, batch norm, ReLU" in texts
    assert any(text.startswith("4×7×7") and "128 parameters" in text for text in texts)
    assert module.training


def test_figures_are_saved_by_the_name_of_the_file(tmp_path: Path) -> None:
    """A name ending in .svg gives SVG, and .png the same bytes each time."""
    figure = plot.sample_strip(IMAGES)
    for name in ("a.png", "b.png", "c.svg"):
        plot.save(figure, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plot.score_histogram([]), "no scores"),
        (lambda: plot.loss_curves([]), "no epoch"),
        (lambda: plot.intervals({}, x="AUROC"), "no figure"),
        (lambda: plot.error_by_index([1.0], ["a", "b"]), "one each"),
        (lambda: plot.latent_scatter([1.0, 2.0]), "shape"),
        (lambda: plot.sample_strip([]), "between 1 and 64"),
        (lambda: plot.sample_strip([np.zeros((2, 2, 2))]), "must have the shape"),
        (lambda: plot.reconstructions(IMAGES, MAPS[:2]), "redrawn has 2 entries"),
        (lambda: plot.roc([1.0, 2.0], [True, True]), "no normal image"),
        (lambda: plot.model_diagram("densely", (1, 8, 8)), "Did you mean 'dense'"),
    ],
)
def test_mistakes_are_named(call: Any, message: str) -> None:
    """What cannot be drawn is refused with the reason."""
    with pytest.raises(ParameterError, match=message):
        call()
