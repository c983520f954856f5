"""Which images of a folder are surely ordinary: the part of it where every image looks like many others.

What spoils training is not the single odd image, which nothing resembles, but several of a kind: each is redrawn by
what was learnt of the others. Seen from afar, by the distance to so many images that no small kind fills them, they are
all odd.

Source: distances to a far neighbour after Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from
large data sets" (2000); leaving out a fixed share after Rousseeuw, "Least median of squares regression", JASA 79
(1984), and Shen and Sanghavi, "Learning with Bad Training Data via Iterative Trimmed Loss Minimization", ICML (2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oddment.examples import describe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.training.collect import Collection

__all__ = ["appearances", "far_distances", "highest"]

# A kind of image that is rarer than this is odd.
_KIND = 0.05
_LEAST_NEIGHBOURS = 5
_MOST_REFERENCES = 20_000
_AT_ONCE = 1_000
_SIDE = 64


def appearances(collection: Collection, images: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a fixed descriptor of each image, float32 (n, D), as `oddment.examples.describe` makes it.

    Args:
        collection: the images.
        images: int64 (n,), which of them.
    """
    store, parts = collection.store, []
    made, valid = store.preparation, store.valid
    for start in range(0, len(images), _AT_ONCE):
        pictures = []
        for index in images[start : start + _AT_ONCE].tolist():
            top, left, bottom, right = valid[index].tolist()
            inside = store.pixels[index][top:bottom, left:right]
            pictures.append(made.displayed(inside, (right - left, bottom - top), _SIDE))
        parts.append(describe(pictures))
    return np.concatenate(parts)


def far_distances(points: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """Return each point's squared distance to its k-th neighbour, float32 (n,), k a twentieth of the points.

    Beyond 20,000 points the neighbours are sought in a random sample of so many.

    Args:
        points: float32 (n, D).
        seed: fixes the sample.
    """
    count = len(points)
    known = points
    if count > _MOST_REFERENCES:
        known = points[np.sort(np.random.default_rng(seed).choice(count, _MOST_REFERENCES, replace=False))]
    k = min(max(_LEAST_NEIGHBOURS, round(_KIND * len(known))), len(known) - 1)
    lengths = np.square(known).sum(axis=1)
    far = np.empty(count, dtype=np.float32)
    for start in range(0, count, _AT_ONCE):
        part = points[start : start + _AT_ONCE]
        squares = lengths[None] - 2 * (part @ known.T) + np.square(part).sum(axis=1)[:, None]
        # The point itself is among the known ones, at distance 0: the k-th neighbour is at place k.
        far[start : start + _AT_ONCE] = np.partition(squares, k, axis=1)[:, k]
    return np.maximum(far, 0)


def highest(values: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """Return which are among the highest `share` of values, bool (n,); equal values share one fate, and stay."""
    count = int(share * len(values))
    if not count:
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values > np.partition(values, len(values) - count - 1)[len(values) - count - 1])
