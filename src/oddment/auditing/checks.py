"""What is wrong with a folder that no model is needed for: duplicates, leaks, odd sizes, exposure, focus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from oddment.images.fingerprint import NEAR_BITS, group_near_duplicates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from oddment.images.measure import Measures
    from oddment.training.collect import Collection

__all__ = ["Duplicates", "Leak", "Oddity", "alike", "find_duplicates", "find_leaks", "find_oddities"]

# Quartiles and three of their distances: of a Gaussian, two in a million lie beyond (Tukey's "far out").
_FENCE = 3.0
_LEAST_IMAGES = 20
_LEAST_SIDE = 64
# What at least this share of the images have in common is the rule, and the others are worth a look.
_RULE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Oddity:
    """A plain fact about one image that sets it apart from the others.

    Args:
        path: the image.
        check: "size", "colour", "depth", "blank", "brightness", "contrast" or "sharpness".
        value: what it has.
        usual: what the others have.
    """

    path: str
    check: str
    value: str
    usual: str


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images that show the same.

    Args:
        exact: equal to the last pixel; else they look alike to a perceptual hash.
        paths: their names, two or more.
    """

    exact: bool
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Leak:
    """An image of the audited folder that occurs in another one too.

    Args:
        path: the image.
        other: the image of the other folder.
        exact: equal to the last pixel.
        bits: bits of 256 in which the perceptual hashes differ.
    """

    path: str
    other: str
    exact: bool
    bits: int


def _is_hashable(collection: Collection) -> bool:
    """Return whether pictures are large enough for a perceptual hash: two drawings of one digit look alike to it."""
    sides = [max(item.width, item.height) for item in collection.measures]
    return bool(sides) and float(np.median(sides)) >= _LEAST_SIDE


def alike(collection: Collection) -> NDArray[np.int64]:
    """Return a number for each image, int64 (n,), that near and exact duplicates share.

    Of small pictures only exact duplicates do: most drawings of one digit look alike to a perceptual hash.
    """
    return collection.near_groups() if _is_hashable(collection) else _exact(collection.digests)


def find_duplicates(collection: Collection, groups: NDArray[np.int64]) -> list[Duplicates]:
    """Return sets of equal images, then sets of images that look alike, the largest first; a set is listed once.

    Args:
        collection: the images.
        groups: int64 (n,), as `alike` gives them.
    """
    exact = [Duplicates(exact=True, paths=tuple(names)) for names in collection.duplicates()]
    near = [
        Duplicates(exact=False, paths=tuple(collection.paths[index] for index in members))
        for members in _groups(groups)
        if len({collection.digests[index] for index in members}) > 1
    ]
    return sorted(exact, key=lambda item: -len(item.paths)) + sorted(near, key=lambda item: -len(item.paths))


def find_leaks(collection: Collection, other: Collection) -> list[Leak]:
    """Return which images of the collection occur in the other, exactly or nearly; each with its nearest there."""
    hashes = np.concatenate([collection.hashes, other.hashes])
    count, leaks = len(collection), {}
    exact = _exact([*collection.digests, *other.digests])
    hashed = _is_hashable(collection)
    for labels in (exact, group_near_duplicates(hashes)) if hashed else (exact,):
        for members in _groups(labels):
            here, there = members[members < count], members[members >= count]
            if not here.size or not there.size:
                continue
            bits = np.bitwise_count(hashes[here][:, None] ^ hashes[there][None]).sum(axis=2, dtype=np.int64)
            for row, index in enumerate(here.tolist()):
                nearest = int(np.argmin(bits[row]))
                same = np.flatnonzero(exact[there] == exact[index])
                nearest = int(same[0]) if same.size else nearest
                if index not in leaks and (same.size or (hashed and bits[row, nearest] <= NEAR_BITS)):
                    match = other.paths[int(there[nearest]) - count]
                    leaks[index] = Leak(collection.paths[index], match, bool(same.size), int(bits[row, nearest]))
    return [leaks[index] for index in sorted(leaks, key=lambda index: (not leaks[index].exact, index))]


def find_oddities(paths: Sequence[str], measures: Sequence[Measures]) -> list[Oddity]:
    """Return what sets single images apart by size, colour, depth, brightness, contrast or sharpness.

    Args:
        paths: of the images.
        measures: as many.
    """
    if not paths:
        return []
    found = [
        *_unlike("depth", [item.kind for item in measures]),
        *_unlike("colour", ["colour" if item.colour else "gray" for item in measures]),
        *_sizes(measures),
    ]
    blank = [index for index, item in enumerate(measures) if not item.contrast]
    if len(blank) < (1 - _RULE_SHARE) * len(measures):
        found += [(index, "blank", "one colour", "a picture") for index in blank]
    rest = [index for index, item in enumerate(measures) if item.contrast]
    for name, floor in (("brightness", 0.02), ("contrast", 0.02), ("sharpness", 0.1)):
        values = np.array([getattr(measures[index], name) for index in rest])
        found += [(rest[index], name, value, usual) for index, value, usual in _beyond(values, floor)]
    return [Oddity(paths[index], check, value, usual) for index, check, value, usual in found]


def _exact(digests: Sequence[bytes]) -> NDArray[np.int64]:
    return np.unique(np.array(digests, dtype="S16"), return_inverse=True)[1].astype(np.int64)


def _groups(labels: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The members of each label that more than one index bears."""
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        if len(members) > 1:
            yield members


def _unlike(check: str, values: Sequence[str]) -> Iterator[tuple[int, str, str, str]]:
    """Those that differ from what nearly all have."""
    names, counts = np.unique(values, return_counts=True)
    usual, share = str(names[counts.argmax()]), counts.max() / counts.sum()
    if share >= _RULE_SHARE:
        told = f"{usual} ({share:.1%} of the images)"
        yield from ((index, check, value, told) for index, value in enumerate(values) if value != usual)


def _sizes(measures: Sequence[Measures]) -> Iterator[tuple[int, str, str, str]]:
    texts = [f"{item.width}x{item.height}" for item in measures]
    _, counts = np.unique(texts, return_counts=True)
    if counts.max() >= _RULE_SHARE * len(texts):
        yield from _unlike("size", texts)
        return
    sides = np.log2(np.array([(item.width, item.height) for item in measures], dtype=np.float64))
    area, aspect = np.exp2(sides.sum(axis=1)), np.exp2(sides[:, 0] - sides[:, 1])

    def pixels(value: float) -> str:
        return f"{2**value / 1e6:.3g} Mpx"

    seen: set[int] = set()
    for values, floor, show in (
        (np.log2(area), 0.2, pixels),
        (np.log2(aspect), 0.1, lambda value: f"{2**value:.2f} wide for 1 high"),
    ):
        for index, _, usual in _beyond(values, floor, show):
            if index not in seen:
                seen.add(index)
                yield index, "size", texts[index], usual


def _beyond(
    values: NDArray[np.float64], floor: float, show: Callable[[float], str] = "{:.3g}".format
) -> Iterator[tuple[int, str, str]]:
    """Index, value and the usual range of those beyond the fences."""
    if len(values) < _LEAST_IMAGES:
        return
    low, high = np.quantile(values, (0.25, 0.75))
    reach = _FENCE * max(float(high - low), floor)
    usual = f"{show(float(low - reach))} to {show(float(high + reach))}"
    for index in np.flatnonzero((values < low - reach) | (values > high + reach)).tolist():
        yield index, show(float(values[index])), usual
