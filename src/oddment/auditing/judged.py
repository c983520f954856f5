"""Images judged by each other: what their models say, what they look like, and what is usual of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.auditing.core import appearances
from oddment.auditing.crossfit import score_store
from oddment.auditing.opinion import opinion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.auditing.crossfit import Crossed
    from oddment.auditing.null import EmpiricalNull
    from oddment.training.choosing import Choice
    from oddment.training.collect import Collection

__all__ = ["Judged"]


@dataclass(frozen=True, slots=True)
class Judged:
    """Images that were judged by each other: all of them, or those of one class.

    Args:
        name: of the class; "" where all are together.
        members: int64 (m,), which images.
        crossed: what the models say of them, and the models.
        scores: float64 (m,), deviations above the middle of the normal images, see `oddment.auditing.opinion`.
        nulls: what normal images have, as found there.
    """

    name: str
    members: NDArray[np.int64]
    crossed: Crossed
    scores: NDArray[np.float64]
    nulls: tuple[EmpiricalNull, ...]

    @classmethod
    def of(cls, name: str, members: NDArray[np.int64], crossed: Crossed) -> Judged:
        """Return the images with their scores.

        Raises:
            TooFewImagesError: if there are fewer than 20.
        """
        scores, nulls = opinion(crossed.scores, crossed.looks)
        return cls(name, members, crossed, scores, nulls)

    def judge(
        self, choice: Choice, collection: Collection, images: NDArray[np.int64]
    ) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield each part, and what it would make of other images, float64 (n,), in the unit of `scores`.

        Args:
            choice: the model, and what it sees.
            collection: where the images are.
            images: int64 (n,), which.
        """
        looks = self.crossed.looks
        points = None if looks is None else appearances(collection, images)
        for part, model in enumerate(self.crossed.models):
            found = score_store(model.graph, choice, collection, images)
            scores = self.nulls[0].standardise(self.crossed.align(found, part))
            if looks is not None and points is not None:
                apart = self.nulls[1].standardise(looks.apart(points, part))
                scores = self.nulls[2].standardise(np.maximum(scores, apart))
            yield part, scores
