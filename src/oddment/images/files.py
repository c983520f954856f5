"""Finds the images in files, folders, globs, archives and array files, one after the other and without decoding any.

What comes out, and in which order:

- Sources in the order they are given; what two sources both reach comes twice.
- A folder with all its subfolders, files and subfolders in one natural order of their names (`img2` before `img10`);
  a glob likewise. The members of an archive in the archive's own order, the images of an array in theirs.
- Left out: files and folders whose name starts with a dot, `__MACOSX`, `Thumbs.db`, `desktop.ini` (unless named as a
  source or spelled out in a glob), and what `exclude` names. Nothing else is: a file that is no image comes too, and
  `decode` gives its reason; what cannot even be listed comes with its reason as payload.
- Symlinked folders are followed, except into a folder that they lie in themselves.
- Array files hold images as (N, H, W) or (N, H, W, C) with C of 1, 3 or 4; (H, W) is one image, and so is (H, W, C):
  a last axis of 1, 3 or 4 is colour and never the width of very narrow images. Integers of more than 16 bits, and
  signed ones, become uint8 or uint16 where every image of the array fits, else float32, so that all images of one
  array share one scale.
- Archives and array files are recognised by name and opened where they lie in folders, but not inside archives.

Memory holds the names of one folder on each level and one image; nothing is extracted to disk or unpickled.
"""

from __future__ import annotations

import fnmatch
import os
import re
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Self

from oddment.errors import DataError, ImageError, ParameterError
from oddment.images.arrays import array_stacks
from oddment.images.references import MAX_MEMBER_BYTES, ImageRef, damaged, printable
from oddment.natural import sort_naturally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["MAX_MEMBER_BYTES", "ImageRef", "count_images", "image_names", "iter_images", "require_images"]

_JUNK: Final = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
_CONTAINERS: Final = {".zip": "zip", ".npz": "npz", ".npy": "npy", ".tar": "tar", ".tgz": "tar", ".tbz2": "tar"}
_COMPRESSED_TARS: Final = (".tar.gz", ".tar.bz2", ".tar.xz", ".txz")
_IDX_NAME: Final = re.compile(r"[-._]idx\d?(-[a-z]+)?(\.gz)?$")


def iter_images(sources: Sequence[str | Path], *, exclude: Sequence[str | Path] = ()) -> Iterator[ImageRef]:
    """Every image of the sources, lazily. What cannot be read comes as a reference with its reason, never raises.

    Args:
        sources: files, folders, globs (`**` spans folders), archives (zip, tar, tar.gz, tar.bz2, tar.xz), .npy, .npz
            and IDX files (gzipped too). A path that exists is taken literally even if it looks like a glob.
        exclude: files and folders to leave out, such as an output folder inside an input folder; they need not exist.

    Raises:
        ParameterError: at once, if a source does not exist or a glob matches no file.
    """
    walk = _Walk(exclude, in_order=True)
    return _references(walk, _checked(sources, walk))


def count_images(sources: Sequence[str | Path], *, exclude: Sequence[str | Path] = ()) -> int:
    """How many references `iter_images` gives for the same arguments, without opening any image.

    Folders are only listed; of archives and array files the headers are read.

    Raises:
        ParameterError: as `iter_images` does.
    """
    walk = _Walk(exclude, in_order=False)
    return sum(_size_of(found) for start in _checked(sources, walk) for found in walk.from_start(start))


def image_names(sources: Sequence[str | Path], *, exclude: Sequence[str | Path] = ()) -> Iterator[str]:
    """The paths of the references that `iter_images` gives for the same arguments, without opening any image.

    Raises:
        ParameterError: as `iter_images` does.
    """
    walk = _Walk(exclude, in_order=True)
    return (name for start in _checked(sources, walk) for found in walk.from_start(start) for name in _names_in(found))


def require_images(sources: Sequence[str | Path], *, exclude: Sequence[str | Path] = ()) -> int:
    """How many references `iter_images` gives, at least one.

    Raises:
        DataError: if there is none; the message names the sources.
        ParameterError: as `iter_images` does.
    """
    count = count_images(sources, exclude=exclude)
    if not count:
        names = ", ".join(map(str, sources[:3])) + (", …" if len(sources) > 3 else "")
        msg = f"there are no images in {names}. Name files, or a folder that holds some."
        raise DataError(msg)
    return count


def _references(walk: _Walk, starts: Iterable[_Start]) -> Iterator[ImageRef]:
    for start in starts:
        for found in walk.from_start(start):
            kind = None if found.error else _container(found.path)
            if kind is None:
                yield ImageRef(printable(found.path), found.error or Path(found.path))
            elif kind in _ARCHIVES:
                yield from _ARCHIVES[kind](found.path, read=True)
            else:
                for item in array_stacks(kind, found.path):
                    yield from (item,) if isinstance(item, ImageRef) else item.references()


def _size_of(found: _Found) -> int:
    kind = None if found.error else _container(found.path)
    if kind is None:
        return 1
    if kind in _ARCHIVES:
        return sum(1 for _ in _ARCHIVES[kind](found.path, read=False))
    return sum(1 if isinstance(item, ImageRef) else item.count for item in array_stacks(kind, found.path))


def _names_in(found: _Found) -> Iterator[str]:
    kind = None if found.error else _container(found.path)
    if kind is None:
        yield printable(found.path)
    elif kind in _ARCHIVES:
        yield from (ref.path for ref in _ARCHIVES[kind](found.path, read=False))
    else:
        for item in array_stacks(kind, found.path):
            yield from (item.path,) if isinstance(item, ImageRef) else item.names()


def _container(path: str) -> str | None:
    """Which kind of archive or array file this is, by its name alone; None for a file that is one image."""
    name = path.rpartition(os.sep)[2].lower()
    kind = _CONTAINERS.get(os.path.splitext(name)[1])  # noqa: PTH122  called once a file; Path is ten times slower
    if kind is None and name.endswith(_COMPRESSED_TARS):
        return "tar"
    if kind is None and "idx" in name and _IDX_NAME.search(name):
        return "idx"
    return kind


# --- folders and globs -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """A file, or a folder that could not be listed."""

    path: str
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Start:
    """A source that exists: a file, a folder, or the folder a glob starts in with the parts of the glob."""

    path: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Level:
    """One folder on the way down; `states` are the glob parts that may match next, None where everything is taken."""

    prefix: str
    key: tuple[int, int]
    names: Iterator[str]
    folders: frozenset[str]
    states: frozenset[int] | None


class _Walk:
    """Goes through folders, one at a time: the memory used is the names in the folders on the way down."""

    def __init__(self, exclude: Iterable[str | Path], *, in_order: bool) -> None:
        self._excluded = frozenset(os.path.realpath(path) for path in exclude)
        self._excluded_names = frozenset(os.path.basename(path) for path in self._excluded)  # noqa: PTH119
        self._in_order = in_order

    def from_start(self, start: _Start) -> Iterator[_Found]:
        if self._is_excluded(start.path or "."):
            return
        if start.parts:
            yield from self._descend(start, _closure(start.parts, {0}))
        elif os.path.isdir(start.path or "."):  # noqa: PTH112
            yield from self._descend(start, None)
        else:
            yield _Found(start.path)

    def _descend(self, start: _Start, states: frozenset[int] | None) -> Iterator[_Found]:
        # A stack of our own: folders may be nested deeper than Python may recurse.
        trail: list[_Level] = []
        entering: tuple[str, frozenset[int] | None] | None = (start.path, states)
        while entering is not None or trail:
            if entering is not None:
                try:
                    level = self._list(*entering, start.parts)
                except OSError as error:
                    yield _Found(entering[0] or ".", _unlistable(error))
                else:
                    if all(level.key != above.key for above in trail):  # else a symlink has led back up
                        trail.append(level)
                entering = None
                continue
            level = trail[-1]
            name = next(level.names, None)
            if name is None:
                trail.pop()
                continue
            is_folder = name in level.folders
            after = None if level.states is None else _advance(start.parts, level.states, name)
            is_match = after is None or len(start.parts) in after
            if is_folder and (is_match or after):
                entering = (level.prefix + name, None if is_match else after)
            elif is_match and not is_folder:
                yield _Found(level.prefix + name)

    def _list(self, folder: str, states: frozenset[int] | None, parts: tuple[str, ...]) -> _Level:
        """The entries of a folder that are not left out, and which of them are folders."""
        prefix = folder if not folder or folder.endswith(os.sep) else folder + os.sep
        spelled_out = {parts[state] for state in states or () if state < len(parts)}
        names, folders = [], []
        with os.scandir(folder or ".") as entries:
            for entry in entries:
                name = entry.name
                if _is_hidden(name) and not any(_may_show(part, name) for part in spelled_out):
                    continue
                is_candidate = name in self._excluded_names or entry.is_symlink()
                if is_candidate and self._is_excluded(prefix + name):
                    continue
                names.append(name)
                if entry.is_dir():
                    folders.append(name)
        if self._in_order:
            sort_naturally(names)
        status = os.stat(folder or ".")  # noqa: PTH116
        return _Level(prefix, (status.st_dev, status.st_ino), iter(names), frozenset(folders), states)

    def _is_excluded(self, path: str) -> bool:
        if not self._excluded:
            return False
        real = Path(os.path.realpath(path))
        return any(str(parent) in self._excluded for parent in (real, *real.parents))


def _checked(sources: Sequence[str | Path], walk: _Walk) -> list[_Start]:
    """Where to start for each source; every mistake is reported at once."""
    starts, mistakes = [], []
    for source in [sources] if isinstance(sources, (str, Path)) else sources:
        text = str(Path(source))
        if os.path.exists(source):  # noqa: PTH110
            starts.append(_Start("" if text == "." else text))
            continue
        start = _glob_start(text)
        if start is None:
            mistakes.append(f"{str(source)!r} does not exist. Check the spelling, and from which folder it is named.")
        elif next(walk.from_start(start), None) is None:
            mistakes.append(f"{str(source)!r} matches no file. Check the pattern; ** spans folders, * does not.")
        else:
            starts.append(start)
    if mistakes:
        raise ParameterError("\n".join(mistakes))
    return starts


def _glob_start(text: str) -> _Start | None:
    """The folder in front of the first wildcard, and the parts from there on; None if there is no such folder."""
    parts = Path(text).parts
    first = next((at for at, part in enumerate(parts) if any(char in part for char in "*?[")), None)
    if first is None:
        return None
    folder = os.path.join(*parts[:first]) if first else ""  # noqa: PTH118
    return _Start(folder, parts[first:]) if os.path.isdir(folder or ".") else None  # noqa: PTH112


def _advance(parts: tuple[str, ...], states: frozenset[int], name: str) -> frozenset[int]:
    """Which parts of a glob may match below an entry of this name; len(parts) among them if it matches itself."""
    after = set()
    for state in states:
        if state == len(parts):
            continue
        part = parts[state]
        if _is_hidden(name) and not _may_show(part, name):
            continue
        if part == "**":
            after.add(state)
        elif fnmatch.fnmatch(name, part):
            after.add(state + 1)
    return _closure(parts, after)


def _closure(parts: tuple[str, ...], states: set[int]) -> frozenset[int]:
    """With the parts that follow a `**`, which may also stand for no folder at all."""
    reached = set(states)
    for state in range(len(parts)):
        if state in reached and parts[state] == "**":
            reached.add(state + 1)
    return frozenset(reached)


def _is_hidden(name: str) -> bool:
    return (name.startswith(".") and name not in {".", ".."}) or name in _JUNK


def _may_show(part: str, name: str) -> bool:
    return part == name or (part.startswith(".") and name.startswith("."))


def _unlistable(error: OSError) -> ImageError:
    cause = "permission denied" if isinstance(error, PermissionError) else error.strerror or "unreadable"
    return ImageError(f"{cause}: the folder cannot be listed")


# --- archives ----------------------------------------------------------------------------------------------------


def _zip_members(path: str, *, read: bool) -> Iterator[ImageRef]:
    shown = printable(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or _is_hidden_member(info.filename):
                    continue
                refusal = ImageError("encrypted; extract it first") if info.flag_bits & 1 else None
                refusal = refusal or _refusal(info.filename, info.file_size)
                name = f"{shown}!/{printable(info.filename)}"
                yield ImageRef(name, refusal or (_content(archive.open, info) if read else b""))
    except Exception as error:  # noqa: BLE001  zipfile raises whatever its parser stumbles over
        yield ImageRef(shown, damaged("zip archive", error))


def _tar_members(path: str, *, read: bool) -> Iterator[ImageRef]:
    shown = printable(path)
    try:
        with tarfile.open(path, "r:*", tarinfo=_StrictHeader) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else every header ever read is kept
                if member.isdir() or _is_hidden_member(member.name):
                    continue
                refusal = None if member.isreg() else ImageError("a link or device in an archive, not a file")
                refusal = refusal or _refusal(member.name, member.size)
                name = f"{shown}!/{printable(member.name)}"
                yield ImageRef(name, refusal or (_content(archive.extractfile, member) if read else b""))
    except Exception as error:  # noqa: BLE001  as above
        yield ImageRef(shown, damaged("tar archive", error))


_ARCHIVES: Final = {"zip": _zip_members, "tar": _tar_members}


class _StrictHeader(tarfile.TarInfo):
    """A header that reports where the archive breaks off; tarfile would end there in silence."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # public, but not in typeshed
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _refusal(name: str, size: int) -> ImageError | None:
    """Why a member is not even read."""
    kind = _container(name.replace("/", os.sep))
    if kind in _ARCHIVES:
        return ImageError("an archive inside an archive; extract it first")
    if kind is not None:
        return ImageError("an array file inside an archive; extract it first")
    if size > MAX_MEMBER_BYTES:
        return ImageError(f"{size:,} bytes exceed the limit of {MAX_MEMBER_BYTES:,} in an archive; extract it first")
    return None


def _content(open_member: Callable[[Any], IO[bytes] | None], member: object) -> bytes | ImageError:
    """The bytes of one member: never more than it declares, which has been checked, plus one."""
    try:
        with open_member(member) as stream:  # type: ignore[union-attr]  # None only for what is not a regular file
            content = stream.read(MAX_MEMBER_BYTES + 1)
    except Exception as error:  # noqa: BLE001  as above
        return damaged("member of the archive", error)
    if len(content) > MAX_MEMBER_BYTES:
        return ImageError(f"expands to more than the limit of {MAX_MEMBER_BYTES:,} bytes; extract it first")
    return content


def _is_hidden_member(name: str) -> bool:
    return any(_is_hidden(part) for part in name.replace("\\", "/").split("/"))
