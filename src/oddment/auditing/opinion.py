"""How odd images are: what models say of them, and what they look like, in one unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oddment.auditing.null import fit_null

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.auditing.core import Looks
    from oddment.auditing.null import EmpiricalNull

__all__ = ["opinion"]


def opinion(scores: NDArray[np.float32], looks: Looks | None) -> tuple[NDArray[np.float64], tuple[EmpiricalNull, ...]]:
    """Return how odd images are, float64 (m,), in deviations above the middle of the normal ones.

    Where looks count as well, an image is as odd as the less favourable of the two opinions says, each in deviations of
    its own: what deceives the models and what deceives the eye are seldom the same.

    Args:
        scores: float32 (m,), of models that have not seen the image they score.
        looks: what the same images look like, or None.

    Returns:
        The deviations; and what normal images have: scores, then, with looks, distances and the higher of the two.

    Raises:
        TooFewImagesError: if there are fewer than 20.
    """
    null = fit_null(scores)
    said = null.standardise(scores)
    if looks is None:
        return said, (null,)
    apart = looks.of_members()
    usual = fit_null(apart)
    higher = np.maximum(said, usual.standardise(apart))
    both = fit_null(higher)
    return both.standardise(higher), (null, usual, both)
