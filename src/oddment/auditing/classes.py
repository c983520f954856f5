"""Folders that are classes: which image belongs to which, and which images look as if they belonged to another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oddment.images.references import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["LEAST_IMAGES", "Suspect", "classes_of", "find_suspects"]

LEAST_IMAGES = 30
"""A class of fewer images is not judged by itself."""

_MOST_CLASSES = 100
# Odd where it is, and at home elsewhere.
_ODD, _AT_HOME = 0.01, 0.05


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image that may bear a wrong label.

    Args:
        path: the image.
        given: the class that it lies in.
        fits: the class that it fits best.
        p_given: estimated share of that class's own images that score at least as high under it.
        p_fits: the same under the class that it fits.
    """

    path: str
    given: str
    fits: str
    p_given: float
    p_fits: float


def classes_of(paths: Sequence[str], sources: Sequence[str | Path]) -> list[str] | None:
    """Return the class of each image: the first folder below the source in which paths differ.

    None if they are no classes: some image lies in no subfolder, there are fewer than two or more than 100 of them,
    or one has fewer than 30 images.

    Args:
        paths: names of the images.
        sources: where they were looked for.
    """
    roots = sorted((printable(str(source)).rstrip("/") for source in sources), key=len, reverse=True)
    folders = [_below(path, roots) for path in paths]
    while folders and all(folders) and len({parts[0] for parts in folders}) == 1:
        folders = [parts[1:] for parts in folders]
    if not folders or not all(folders):
        return None
    names = [parts[0] for parts in folders]
    counts = Counter(names)
    usable = 2 <= len(counts) <= _MOST_CLASSES and min(counts.values()) >= LEAST_IMAGES
    return names if usable else None


def find_suspects(
    paths: Sequence[str], given: Sequence[str], p_given: Sequence[float], elsewhere: Mapping[int, Mapping[str, float]]
) -> list[Suspect]:
    """Return images that are odd in their class and not in another, the clearest first.

    Args:
        paths: names of the images.
        given: the class of each.
        p_given: its p-value there.
        elsewhere: index of an image → class → its p-value there, for the images that were tried.
    """
    suspects = []
    for index, tried in elsewhere.items():
        fits = max(tried, key=lambda name: tried[name])
        if p_given[index] <= _ODD and tried[fits] >= _AT_HOME:
            suspects.append(Suspect(paths[index], given[index], fits, float(p_given[index]), float(tried[fits])))
    return sorted(suspects, key=lambda item: item.p_given / item.p_fits)


def _below(path: str, roots: Sequence[str]) -> list[str]:
    """The folders between the source and the image; of a glob, those of the path."""
    root = next((root for root in roots if path.startswith((f"{root}/", f"{root}!/"))), "")
    return [part for part in path[len(root) :].replace("!/", "/").split("/")[:-1] if part not in ("", ".")]
