"""Make the pictures of docs/models from the embedded sample and drawn cloth: `python tools/make_model_pictures.py`.

Names of models after it make theirs alone.

Digits: each model learns what threes look like. Cloth: each learns an even weave and sees new pieces, some faulty.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import Detector
from oddment.data.sample import load_sample
from oddment.models import get_spec
from oddment.plot import heat_maps, save

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "docs" / "images"
DIGITS = ("conv-small", "dense", "variational", "gradient-memory", "gradient-autoencoder", "gradient-mixture", "pca")
CLOTH = ("conv-large", "feature-autoencoder", "feature-memory", "photograph-memory")
SIDE = 128


def threes() -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Normal digits, new ones, and what these are."""
    train, test = load_sample("mnist-train"), load_sample("mnist-test")
    chosen = [np.flatnonzero(test.labels == digit)[place] for digit, place in [(3, 0), (3, 1), (3, 2), (3, 3)]]
    odd = [np.flatnonzero(test.labels == digit)[0] for digit in (8, 5, 9, 0, 7, 1)]
    labels = ["normal"] * len(chosen) + ["odd"] * len(odd)
    return train.images[train.labels == 3], test.images[[*chosen, *odd]], labels


def cloth() -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[str]]:
    """Pieces of an even weave, new pieces, and what these are; the last four have a fault each."""
    rng = np.random.default_rng(0)
    pieces = np.stack([_weave(rng) for _ in range(24)])
    new = np.stack([_weave(rng) for _ in range(8)])
    row, column = np.mgrid[:SIDE, :SIDE]
    new[4][(row - 40) ** 2 + (column - 84) ** 2 < 81] *= 0.55  # a stain
    new[5][np.abs(row - 0.6 * column - 20) < 1.5] = 0.9  # a thread that lies on top
    new[6][70:96, 20:52] = new[6][70:96, 20:52].mean()  # a hole
    new[7][:, 60:100] = np.roll(new[7][:, 60:100], 4, axis=0)  # a shifted strip
    labels = ["normal"] * 4 + ["stain", "loose thread", "hole", "shifted strip"]
    return _bytes(pieces), _bytes(new), labels


def _weave(rng: np.random.Generator) -> NDArray[np.float64]:
    row, column = np.mgrid[:SIDE, :SIDE] + rng.uniform(0, 8, (2, 1, 1))
    light = 0.5 + 0.08 * np.sin(rng.uniform(0, 6) + row / 90) + rng.normal(0, 0.02)
    threads = 0.14 * np.sin(row * 2 * np.pi / 8) * np.sin(column * 2 * np.pi / 8)
    return np.asarray(light + threads + 0.05 * np.sin((row + column) * 2 * np.pi / 16) + rng.normal(0, 0.03, row.shape))


def _bytes(pictures: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(255 * pictures.clip(0, 1)), np.uint8)


def draw(name: str) -> None:
    """Fit one model and save its picture."""
    normal, new, labels = threes() if name in DIGITS else cloth()
    # Few images make few epochs' worth of steps; the default is as long as for thousands.
    options: dict[str, Any] = {"epochs": 60 if name in DIGITS else 20} if get_spec(name).trains else {}
    detector = Detector(model=name, quantile=0.99, baseline_check=False, **options).fit(normal)
    scorer = detector.scorer_
    p_values = scorer.p_value(new)
    captions = [f"{label}\np = {value:.2g}" for label, value in zip(labels, p_values, strict=True)]
    figure = heat_maps(
        list(new),
        list(np.asarray(scorer.anomaly_map(new))),
        map_range=scorer.model.map_range,
        redrawn=[drawn[..., 0] if drawn.shape[-1] == 1 else drawn for drawn in np.asarray(scorer.reconstruct(new))],
        labels=captions,
    )
    save(figure, FOLDER / f"model-{name}.png")
    print(name, " ".join(f"{score:.4g}" for score in scorer.anomaly_score(new)), flush=True)


if __name__ == "__main__":
    for asked in sys.argv[1:] or (*DIGITS, *CLOTH):
        draw(asked)
