"""Which images a list of paths means, though it was written in another folder, or the images have moved since."""

from __future__ import annotations

import filecmp
import os
import posixpath
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Matched", "match_paths"]

_SAMPLE = 64
# An absolute path of Windows, wherever it is read.
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


@dataclass(frozen=True, slots=True)
class Matched:
    """What the paths mean.

    Args:
        images: names of the images that are meant.
        missing: paths that name none of the images.
        guessed: path and image, where the ends of their paths agree and nothing else could be compared.
    """

    images: frozenset[str]
    missing: tuple[str, ...] = ()
    guessed: tuple[tuple[str, str], ...] = ()


def match_paths(
    paths: Sequence[str], images: Iterable[str], *, among: Sequence[str] = (), near: Path | None = None
) -> Matched:
    """Return which images these paths mean.

    A path means the image that lies where it says. Where that is, for a relative one, is seen from the folder that the
    list lies in, or one above it, or the current one: the first in which most of the listed files exist. A path whose
    file is not among the images, or is not there at all, means the image whose own path ends with it; where both files
    exist, only if their contents are equal. Of an absolute path the folder that all of the list lies in, and what is
    below it, is compared: `/old/photos/a.png` may be `/new/photos/a.png`.

    Args:
        paths: as a search wrote them: `dir/a.png`, `archive.zip!/member.png`, `digits.npy[12]`.
        images: names of all images, in the same form.
        among: all paths of the list, where `paths` are some of them.
        near: the list itself, if it is a file.

    Raises:
        ParameterError: if a path may mean several images, or none of the paths means any.
    """
    _real.cache_clear()
    names = _by_place(images)
    among = list(among) or list(paths)
    base = _base(among, near)
    root = _root(among)
    found: dict[str, list[str]] = {}
    for path in paths:
        for spelling in dict.fromkeys((path, path.strip(), path.replace("\\", "/"))):
            at = _stated_place(spelling, base)
            if at in names:
                found[path] = names[at]
                break
    left = {path: _tail(path, root) for path in paths if path not in found}
    candidates = _by_ending(left.values(), names)
    guessed = []
    for path, tail in left.items():
        places = [at for at in candidates.get(tail, ()) if _may_be(path, base, at)]
        if len(places) > 1:
            shown = " or ".join(names[at][0] for at in places[:3])
            msg = f"{path} may mean {shown}. Run the command where the search was run, or write the path in full."
            raise ParameterError(msg)
        if places:
            found[path] = names[places[0]]
            if _original(path, base) is None:
                guessed.append((path, names[places[0]][0]))
    missing = tuple(path for path in paths if path not in found)
    if paths and not found:
        msg = (
            f"none of its {len(paths):,} paths names an image here; the first is {paths[0]}. Run the command in the "
            "folder where the search was run, and give the folder that was searched."
        )
        raise ParameterError(msg)
    return Matched(frozenset(name for same in found.values() for name in same), missing, tuple(guessed))


def _by_place(images: Iterable[str]) -> dict[str, list[str]]:
    """The images' names by where they lie; one image may have been named twice."""
    names: dict[str, list[str]] = {}
    for name in images:
        same = names.setdefault(_place(name, Path()), [])
        if name not in same:
            same.append(name)
    return names


def _place(path: str, base: Path) -> str:
    """Where it lies: absolute, with forward slashes, folders without links, letters composed."""
    whole = os.path.abspath(os.path.join(base, path))  # noqa: PTH100, PTH118 - called once a name; Path is slower
    folder, name = os.path.split(whole)
    return unicodedata.normalize("NFC", posixpath.join(_real(folder), os.path.normcase(name)))


@lru_cache(maxsize=65_536)
def _real(folder: str) -> str:
    return os.path.normcase(os.path.realpath(folder)).replace(os.sep, "/")


def _is_absolute(path: str) -> bool:
    return os.path.isabs(path) or bool(_DRIVE.match(path))  # noqa: PTH117 - as above


def _stated_place(path: str, base: Path | None) -> str | None:
    """Where the path says that the image lies; None if it is relative and nobody knows to what."""
    return _place(path, base or Path()) if base or _is_absolute(path) else None


def _original(path: str, base: Path | None) -> str | None:
    at = _stated_place(path, base)
    return None if at is None else _file(at)


def _file(path: str) -> str | None:
    """The file that holds the image, if it exists: the archive of a member, the array file of an element."""
    whole = path.partition("!/")[0]
    for name in (whole, whole.rpartition("[")[0] if whole.endswith("]") else ""):
        if name and Path(name).is_file():
            return name
    return None


def _base(paths: Sequence[str], near: Path | None) -> Path | None:
    """The folder that relative paths start from; None if there is none where most of them exist."""
    relative = [path for path in paths if not _is_absolute(path)]
    sample = relative[:: max(1, len(relative) // _SAMPLE)]
    above = near.absolute().parents if near else ()
    for folder in (*above, Path.cwd()):
        if 2 * sum(_file(_place(path, folder)) is not None for path in sample) > len(sample):
            return folder
    return Path.cwd() if not relative else None


def _root(paths: Sequence[str]) -> str:
    """What is cut off an absolute path before its end is compared: all in front of the folder that the list lies in."""
    folders = [posixpath.dirname(_slashed(path)) for path in paths if _is_absolute(path)]
    try:
        return posixpath.dirname(posixpath.commonpath(folders))
    except ValueError:  # there are none, or some of Windows and some of others
        return ""


def _slashed(path: str) -> str:
    return unicodedata.normalize("NFC", os.path.normcase(path.strip()).replace("\\", "/"))


def _tail(path: str, root: str) -> tuple[str, ...]:
    """The parts by which it is recognised in another place."""
    shown = _slashed(path)
    if root and _is_absolute(path):
        shown = posixpath.relpath(shown, root)
    return tuple(part for part in posixpath.normpath(shown).split("/") if part not in ("", ".."))


def _by_ending(tails: Iterable[tuple[str, ...]], places: Iterable[str]) -> dict[tuple[str, ...], list[str]]:
    wanted = set(tails)
    depths = sorted({len(tail) for tail in wanted})
    found: dict[tuple[str, ...], list[str]] = {}
    if wanted:
        for at in places:
            parts = tuple(at.split("/"))
            for end in (parts[-depth:] for depth in depths):
                if end in wanted:
                    found.setdefault(end, []).append(at)
    return found


def _may_be(path: str, base: Path | None, at: str) -> bool:
    """Whether nothing speaks against this image being the one that is meant."""
    original = _original(path, base)
    copy = _file(at)
    return original is None or copy is None or filecmp.cmp(original, copy, shallow=False)
