"""Has a stream of scores drifted away from the calibration scores? NumPy only.

For one look: the two-sample statistics of Kolmogorov and Smirnov and of Cramér and von Mises (Anderson, Annals of
Mathematical Statistics 33, 1962), with p-values by permutation: exact at every size and with ties, where the limiting
distributions are neither.

For a look after each image: a conformal test martingale. Source: Vovk, Nouretdinov and Gammerman, "Testing
exchangeability on-line" (ICML 2003); the jumper: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or
not retrain: conformal test martingales for change-point detection" (COPA 2021), algorithm 1. Differs in its bets, which
also know outliers and changes of shape, and in being the mean of jumpers of four rates, so that a long quiet stream
costs little.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import ParameterError, TooFewImagesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

__all__ = ["Comparison", "Gaps", "compare", "gaps", "log10_capital", "online_p_values"]

# Of longer samples, as many drawn at random are compared: a difference that this many cannot show hardly matters.
_MOST_COMPARED = 5_000
# Numbers held at once while permuting, and images that are counted against each other at once.
_PERMUTED_AT_ONCE = 2_000_000
_BLOCK = 1024
# The chance of each unit of money to change its bet after each image; the mean over these is what is watched.
_JUMPS = np.array([1e-2, 1e-3, 1e-4, 1e-5])
_N_BETS = 8


@dataclass(frozen=True, slots=True)
class Gaps:
    """In which way two sets of scores differ.

    Args:
        rose: the largest excess of the share of calibration scores below a value over that of new ones, in [0, 1].
        fell: the same the other way.
        rose_at: the share of calibration scores below the value of `rose`: near 1 where only the highest scores rose.
        above: the chance that a new score lies above a calibration score, ties counted half; 0.5 where they are alike.
    """

    rose: float
    fell: float
    rose_at: float
    above: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two-sample tests of new scores against calibration scores, for one look.

    Args:
        ks: Kolmogorov-Smirnov: the largest difference of the two distribution functions, in [0, 1].
        ks_p: its p-value.
        cvm: Cramér-von Mises: the mean squared difference, times nm / (n + m).
        cvm_p: its p-value.
        gaps: in which way they differ.
        permutations: that the p-values come from; none is below 1 / (permutations + 1).
    """

    ks: float
    ks_p: float
    cvm: float
    cvm_p: float
    gaps: Gaps
    permutations: int


def compare(calibration: ArrayLike, scores: ArrayLike, *, permutations: int = 999, seed: int = 0) -> Comparison:
    """Return how new scores differ from calibration scores, and how surprising that is if they are exchangeable.

    Args:
        calibration: (n,) scores.
        scores: (m,) new scores.
        permutations: more of them make smaller p-values possible.
        seed: of the permutations.

    Raises:
        TooFewImagesError: if either is empty.

    Source:
        Permutation p-values, (1 + number of permutations at least as extreme) / (permutations + 1): Phipson and Smyth,
        "Permutation p-values should never be zero" (2010).

    Example:
        >>> round(compare(range(50), range(25, 75)).ks, 6)
        0.5
    """
    _check_some(calibration, scores)
    rng = np.random.default_rng(seed)
    old, new = (_at_most(values, rng) for values in (calibration, scores))
    pool = np.concatenate([old, new])
    order = np.argsort(pool, kind="stable")
    # Statistics are taken where one value ends and the next begins, so that ties need no order.
    ends = np.flatnonzero(np.append(np.diff(pool[order]) > 0, True))
    labels = (order >= old.size).astype(np.int8)
    ks, cvm = _statistics(labels[None], ends, new.size)
    extreme = np.zeros(2, dtype=np.int64)
    for shuffled in _shuffles(labels, permutations, rng):
        other_ks, other_cvm = _statistics(shuffled, ends, new.size)
        # Equal on paper may differ in the last bit.
        extreme += (other_ks >= ks - 1e-12).sum(), (other_cvm >= cvm - 1e-9).sum()
    ks_p, cvm_p = (1 + extreme) / (permutations + 1)
    return Comparison(float(ks[0]), float(ks_p), float(cvm[0]), float(cvm_p), gaps(calibration, scores), permutations)


def gaps(calibration: ArrayLike, scores: ArrayLike) -> Gaps:
    """Return in which way new scores differ from calibration scores.

    Raises:
        TooFewImagesError: if either is empty.

    Example:
        >>> gaps([1, 2, 3, 4], [3.5, 5, 6, 7]).above
        0.9375
    """
    _check_some(calibration, scores)
    old, new = np.sort(_flat(calibration)), np.sort(_flat(scores))
    values = np.concatenate([old, new])
    below_old = np.searchsorted(old, values, side="right") / old.size
    difference = below_old - np.searchsorted(new, values, side="right") / new.size
    left, right = (np.searchsorted(old, new, side=side) for side in ("left", "right"))
    top = int(np.argmax(difference))
    return Gaps(
        rose=max(0.0, float(difference[top])),
        fell=max(0.0, float(-difference.min())),
        rose_at=float(below_old[top]),
        above=float((left + right).mean() / 2 / old.size),
    )


def _statistics(
    labels: NDArray[np.int8], ends: NDArray[np.intp], m: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both statistics of each row of labels (rows, n + m), which say of the sorted scores which are new."""
    total = labels.shape[1]
    n = total - m
    new = np.cumsum(labels, axis=1, dtype=np.int32)[:, ends]
    difference = (ends + 1) / n - new * (1 / n + 1 / m)
    ties = np.diff(ends, prepend=-1)
    return np.abs(difference).max(axis=1), (difference**2 @ ties) * (n * m / total**2)


def _shuffles(labels: NDArray[np.int8], count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int8]]:
    step = max(1, _PERMUTED_AT_ONCE // labels.size)
    for start in range(0, count, step):
        yield rng.permuted(np.tile(labels, (min(step, count - start), 1)), axis=1)


# --- after each image


def online_p_values(calibration: ArrayLike, scores: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the smoothed conformal p-value of each score among the calibration scores and all scores before it.

    As long as calibration images and stream are exchangeable, these are independent and uniform on (0, 1), exactly,
    ties included. P-values against the calibration scores alone are not: they all lean on the same n scores, and a test
    that took them for independent would raise false alarms.

    Args:
        calibration: (n,) scores.
        scores: (m,) scores of the stream, in order.
        seed: of the random numbers that break ties; the same stream, grown longer, keeps its p-values.

    Returns:
        float64 (m,); small where a score is high.

    Source:
        Vovk et al. (2003), equation 1.
    """
    base = np.sort(_flat(calibration))
    stream = _flat(scores)
    uniform = 1 - np.random.default_rng(seed).random(stream.size)
    p = np.empty(stream.size)
    for start in range(0, stream.size, _BLOCK):
        block = stream[start : start + _BLOCK]
        left, right = (np.searchsorted(base, block, side=side) for side in ("left", "right"))
        earlier = np.tri(block.size, k=-1, dtype=bool)
        above = base.size - right + (earlier & (block[None] > block[:, None])).sum(axis=1)
        equal = right - left + (earlier & (block[None] == block[:, None])).sum(axis=1) + 1
        seen = base.size + 1 + np.arange(block.size)
        p[start : start + block.size] = (above + uniform[start : start + block.size] * equal) / seen
        base = np.sort(np.concatenate([base, block]), kind="stable")
    return p


def log10_capital(p_values: ArrayLike) -> NDArray[np.float64]:
    """Return the logarithm to base 10 of a test martingale's capital after each p-value.

    It starts at 1 and bets against uniform p-values: that they are small, very small, large, far from one half or near
    to it. Where they are independent and uniform, it ever reaches 1/alpha with probability at most alpha (Ville, 1939).

    Args:
        p_values: (m,) in (0, 1], from `online_p_values`; or (R, m), each row a stream of its own.

    Returns:
        float64 of the same shape.

    Raises:
        ParameterError: if one lies outside of (0, 1].

    Source:
        Vovk et al. (2021), algorithm 1.

    Example:
        >>> bool(log10_capital([0.001] * 20)[-1] > 3)
        True
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.size and not (p.min() > 0 and p.max() <= 1):
        msg = f"p_values must lie in (0, 1]; got {p.min():g} … {p.max():g}."
        raise ParameterError(msg)
    odds = _bets(p.reshape(-1, p.shape[-1]))
    rows, length, _ = odds.shape
    shares = np.full((rows, _JUMPS.size, _N_BETS), 1 / _N_BETS)
    keep, back = 1 - _JUMPS[:, None], _JUMPS[:, None] / _N_BETS
    # Capital of each jumper, relative to their mean, so that nothing overflows however long the stream is.
    capital = np.ones((rows, _JUMPS.size))
    total, path = np.zeros(rows), np.empty((rows, length))
    for index in range(length):
        shares = (keep * shares + back) * odds[:, index, None]
        gains = shares.sum(axis=2)
        shares /= gains[..., None]
        capital *= gains
        mean = capital.mean(axis=1, keepdims=True)
        # A jumper that is ruined for good must not become zero times infinity.
        capital = np.maximum(capital / mean, 1e-300)
        total += np.log10(mean[:, 0])
        path[:, index] = total
    return path.reshape(p.shape)


def _bets(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one unit becomes under each bet, float64 (..., 8): densities on (0, 1): a uniform p gains nothing."""
    bowl = 6 * (p - 0.5) ** 2
    return np.stack(
        [
            np.ones_like(p),
            1.5 - p,  # scores rose
            2 - 2 * p,
            0.5 / np.sqrt(p),  # some rose far
            0.5 + p,  # scores fell
            2 * p,
            0.5 + bowl,  # they spread
            1.5 - bowl,  # they crowd together
        ],
        axis=-1,
    )


def _flat(values: ArrayLike) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32).ravel()


def _at_most(values: ArrayLike, rng: np.random.Generator) -> NDArray[np.float32]:
    flat = _flat(values)
    return flat if flat.size <= _MOST_COMPARED else rng.choice(flat, _MOST_COMPARED, replace=False)


def _check_some(calibration: ArrayLike, scores: ArrayLike) -> None:
    for name, values in (("calibration", calibration), ("new", scores)):
        if not np.size(np.asarray(values)):
            msg = f"there are no {name} scores to compare. Give at least one."
            raise TooFewImagesError(msg)
