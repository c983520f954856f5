"""Make the pictures of docs/quality.md from MNIST and Fashion-MNIST: `python tools/make_quality_pictures.py`.

Curves of several models on two hard classes, and the images that the default judges worst.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import Detector
from oddment.data.catalog import load_arrays
from oddment.plot import heat_maps, roc, save

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent.parent / "docs" / "images"
CASES = {"mnist": (3, "threes"), "fashion-mnist": (6, "shirts")}
MODELS: dict[str, dict[str, Any]] = {
    "gradient-memory": {},
    "conv-small, best score": {"model": "conv-small", "score_mode": "best", "epochs": 12},
    "conv-small": {"model": "conv-small", "epochs": 12},
    "pca": {"model": "pca"},
}
SHOWN = 6


def main() -> None:
    """Fit, score, draw."""
    for name, (normal, called) in CASES.items():
        train, test = (load_arrays(name, part) for part in ("train", "test"))
        kept = train.images[np.asarray(train.labels).astype(int) == normal]
        labels = np.asarray(test.labels).astype(int)
        odd = labels != normal
        scores: dict[str, NDArray[np.float32]] = {}
        for model, options in MODELS.items():
            detector = Detector(random_state=0, baseline_check=False, thumbnails=False, **options).fit(kept)
            scores[model] = detector.anomaly_score(test.images)
            if not options:
                worst(name, called, detector, test.images, labels, odd, scores[model])
        save(roc(scores, odd, heading=f"{called} of {name} are normal"), FOLDER / f"quality-roc-{name}.png")


def worst(
    name: str,
    called: str,
    detector: Detector,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    odd: NDArray[np.bool_],
    scores: NDArray[np.float32],
) -> None:
    """Draw normal images that score highest and others that score lowest."""
    normal, other = np.flatnonzero(~odd), np.flatnonzero(odd)
    alarms = normal[np.argsort(-scores[normal])[:SHOWN]]
    missed = other[np.argsort(scores[other])[:SHOWN]]
    chosen = [*alarms, *missed]
    scorer = detector.scorer_
    captions = [f"{'normal' if not odd[index] else f'class {labels[index]}'}\n{scores[index]:.2f}" for index in chosen]
    figure = heat_maps(
        list(images[chosen]),
        list(np.asarray(scorer.anomaly_map(images[chosen]))),
        map_range=scorer.model.map_range,
        labels=captions,
        heading=f"{called}: the {SHOWN} normal ones with the highest scores, the {SHOWN} others with the lowest",
    )
    save(figure, FOLDER / f"quality-worst-{name}.png")


if __name__ == "__main__":
    main()
