"""Which images of a folder are surely ordinary: the part of it where every image looks like many others.

What spoils training is not the single odd image, which nothing resembles, but several of a kind: each is redrawn by
what was learnt of the others. Seen from afar, by the distance to so many images that no small kind fills them, they are
all odd.

Source: distances to a far neighbour after Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from
large data sets" (2000); leaving out a fixed share after Rousseeuw, "Least median of squares regression", JASA 79
(1984), and Shen and Sanghavi, "Learning with Bad Training Data via Iterative Trimmed Loss Minimization", ICML (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.examples import describe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from oddment.training.collect import Collection

__all__ = ["COMPANY", "KIND", "Looks", "appearances", "far_distances", "highest"]

KIND = 0.05
"""A kind of image that is rarer than this share is odd."""
COMPANY = 0.02
"""So many neighbours, as a share of the images, are company."""

# Others whose distances are averaged.
_NEAREST = 5
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


def far_distances(points: NDArray[np.float32], *, seed: int, shares: Sequence[float] = (KIND,)) -> NDArray[np.float32]:
    """Return each point's squared distance to its k-th neighbour, float32 (len(shares), n), k a share of the points.

    Beyond 20,000 points the neighbours are sought in a random sample of so many.

    Args:
        points: float32 (n, D).
        seed: fixes the sample.
        shares: of the points, each in (0, 1).
    """
    known = points[_sample(len(points), seed)]
    places = [min(max(_LEAST_NEIGHBOURS, round(share * len(known))), len(known) - 1) for share in shares]
    far = np.empty((len(shares), len(points)), dtype=np.float32)
    for start, squares in _squares(points, known):
        # The point itself is among the known ones, at distance 0: the k-th neighbour is at place k.
        far[:, start : start + len(squares)] = np.partition(squares, places, axis=1)[:, places].T
    return far


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    """All of so many points, or a random sample where they are too many."""
    if count <= _MOST_REFERENCES:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _MOST_REFERENCES, replace=False))


def _squares(points: NDArray[np.float32], known: NDArray[np.float32]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the number of a first point, and squared distances of some from it on, float32 (·, m), to known ones."""
    lengths = np.square(known).sum(axis=1)
    for start in range(0, len(points), _AT_ONCE):
        part = points[start : start + _AT_ONCE]
        squares = lengths[None] - 2 * (part @ known.T) + np.square(part).sum(axis=1)[:, None]
        yield start, np.maximum(squares, 0, out=squares)


@dataclass(frozen=True, slots=True)
class Looks:
    """What the images of one set look like: the second opinion on small pictures, beside that of the models.

    An image is as odd as it is far from the nearest others, each of which counts for no nearer than it has company of
    its own. A few odd images of a kind then do not vouch for each other, and no image has to be left out for that.

    Source:
        The one-sided form of the mutual reachability distance of Campello, Moulavi and Sander, "Density-Based
        Clustering Based on Hierarchical Density Estimates", PAKDD (2013), definition 4.

    Args:
        points: float32 (m, D), a descriptor of each image, see `appearances`.
        company: float32 (m,), the squared distance of each to its k-th neighbour, k a fiftieth of the set.
        parts: int64 (m,), the part of each: images are compared with those of the other parts.
        seed: fixes which are compared with, of more than 20,000.
    """

    points: NDArray[np.float32]
    company: NDArray[np.float32]
    parts: NDArray[np.int64]
    seed: int

    def apart(self, points: NDArray[np.float32], part: int) -> NDArray[np.float32]:
        """Return how odd images of a part, or others that stand in for such, look, float32 (n,), at least 0.

        Args:
            points: float32 (n, D), their descriptors.
            part: whose images they are not compared with.
        """
        others = np.flatnonzero(self.parts != part)
        others = others[_sample(len(others), self.seed)]
        known, company, count = self.points[others], self.company[others], min(_NEAREST, len(others))
        found = np.empty(len(points), dtype=np.float32)
        for start, squares in _squares(points, known):
            nearest = np.partition(np.maximum(squares, company[None]), count - 1, axis=1)[:, :count]
            found[start : start + len(squares)] = nearest.mean(axis=1)
        return found

    def of_members(self) -> NDArray[np.float32]:
        """Return the same of the images of the set, float32 (m,), each in its own part."""
        found = np.empty(len(self.points), dtype=np.float32)
        for part in np.unique(self.parts).tolist():
            own = self.parts == part
            found[own] = self.apart(self.points[own], part)
        return found


def highest(values: NDArray[np.floating[Any]], share: float) -> NDArray[np.bool_]:
    """Return which are among the highest `share` of values, bool (n,); equal values share one fate, and stay."""
    count = int(share * len(values))
    if not count:
        return np.zeros(len(values), dtype=bool)
    return np.asarray(values > np.partition(values, len(values) - count - 1)[len(values) - count - 1])
