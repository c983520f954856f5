"""Downloads the files of a data set: mirrors in turn, resumed, verified, and in place only when whole and right.

While a file comes it is called `NAME.partial`; `NAME.partial.json` beside it says from where, so that a download that
was cut off goes on at the same mirror and never mixes the containers of two. The SHA-256 of the content decides: gzip
is unpacked while it is summed. A mirror that gives something else is named with what it gave, and the next is tried.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from oddment.data.catalog import cache_folder, file_in, missing_files
from oddment.data.verify import content_of
from oddment.errors import DataError, ParameterError
from oddment.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from oddment.data.catalog import DataFile, DataSet

__all__ = ["fetch", "get", "urls_of"]

_CHUNK: Final = 1 << 18
_RETRIES: Final = 5
"""How often one mirror may break off and be resumed, as long as each time brings something."""
_TIMEOUT: Final = 30.0


class _MirrorError(Exception):
    """One mirror did not give the file; the message says what it did."""


class _WrongFileError(_MirrorError):
    """What a mirror sends cannot be the file; nothing of it is kept."""


class _BrokenOffError(Exception):
    """The transfer ended early; what has come is kept."""


class _NoSuchRangeError(Exception):
    """The mirror's file is shorter than what is already here."""


def get(
    wanted: DataSet,
    folder: Path | None = None,
    *,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    timeout: float = _TIMEOUT,
) -> Path:
    """Download what a folder lacks of a data set, and replace what is wrong; return the folder.

    Args:
        wanted: the data set.
        folder: to download into; the data set's own folder in the user's cache if not given.
        mirrors: addresses of folders that hold the files, used instead of the public mirrors.
        progress: told of every file, with time left.
        timeout: seconds without an answer after which a mirror is given up.

    Raises:
        ParameterError: if a mirror is no http or https address.
        DataError: if no mirror gives a file with the right content; names the files to put there by hand.
    """
    folder = folder or cache_folder() / wanted.name
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for file in wanted.files:
            if file.name not in missing_files(wanted, folder) and _is_right(folder, file):
                continue
            try:
                fetch(file, folder, urls=urls_of(file, mirrors), progress=progress, timeout=timeout)
            except DataError as error:
                msg = f"{error}\n{_by_hand(wanted, folder)}"
                raise DataError(msg) from error
    return folder


def urls_of(file: DataFile, mirrors: Sequence[str] = ()) -> tuple[str, ...]:
    """Return where to fetch a file from: the given mirrors, else the public ones.

    Raises:
        ParameterError: if a mirror is no http or https address.
    """
    for mirror in mirrors:
        if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
            msg = f"mirror {mirror!r} is no http:// or https:// address of a folder."
            raise ParameterError(msg)
    return tuple(f"{mirror.rstrip('/')}/{file.name}" for mirror in mirrors) or file.urls


def _is_right(folder: Path, file: DataFile) -> bool:
    """Whether the file lies there with the right content; images already unpacked are taken as they are."""
    path = file_in(folder, file)
    return path is None or content_of(path, file.n_bytes).sha256 in file.sha256


def _by_hand(wanted: DataSet, folder: Path) -> str:
    names = ", ".join(missing_files(wanted, folder)) or "the files named above"
    return (
        f"Without a network, put {names} into {folder} by hand (or into a folder {wanted.name}/ of the one that "
        f"ODDMENT_DATA names), then run `oddment data verify {wanted.name}`. What came so far is kept: a later "
        "`oddment data get` resumes it. A mirror of your own is named with --mirror."
    )


def fetch(
    file: DataFile,
    folder: Path,
    *,
    urls: Sequence[str] | None = None,
    progress: Progress | None = None,
    timeout: float = _TIMEOUT,
) -> Path:
    """Download one file from the first mirror that gives the right content; return where it lies.

    Args:
        file: what to download.
        folder: where to, an existing folder.
        urls: addresses of the file, tried in turn; `file.urls` if not given.
        progress: told how far it is.
        timeout: seconds without an answer after which a mirror is given up.

    Raises:
        DataError: if no mirror does; lists each with what happened.
    """
    partial, problems = _Partial(folder / f"{file.name}.partial"), []
    for url in _begun_first(urls or file.urls, partial):
        try:
            return _from_mirror(file, url, partial, progress or Progress(), timeout)
        except _MirrorError as error:
            if isinstance(error, _WrongFileError):
                partial.discard()
            problems.append(f"\n  {url}: {error}")
    msg = f"{file.name} could not be downloaded:{''.join(problems)}"
    raise DataError(msg)


def _begun_first(urls: Sequence[str], partial: _Partial) -> Sequence[str]:
    """A download that was cut off goes on where it began."""
    begun = partial.source()["url"]
    return sorted(urls, key=lambda url: url != begun)


def _from_mirror(file: DataFile, url: str, partial: _Partial, progress: Progress, timeout: float) -> Path:
    resumed = partial.size_of(url) > 0
    _transfer(file, url, partial, progress, timeout)
    content = content_of(partial.path, file.n_bytes)
    if content.sha256 not in file.sha256 and resumed:
        # The mirror may have changed its file in between: once more from the start.
        partial.discard()
        _transfer(file, url, partial, progress, timeout)
        content = content_of(partial.path, file.n_bytes)
    if content.sha256 not in file.sha256:
        expected = " or ".join(file.sha256)
        msg = f"gave {content.words()}; expected SHA-256 {expected}"
        raise _WrongFileError(msg)
    # A mirror may serve it uncompressed; under .gz nobody could open it.
    name = file.name if content.compressed else file.name.removesuffix(".gz")
    return partial.complete(name)


def _transfer(file: DataFile, url: str, partial: _Partial, progress: Progress, timeout: float) -> None:
    """Bring the partial file to its full length, however often the mirror breaks off, as long as it gives more."""
    begun = partial.size_of(url)
    progress.start(file.name, 1.0)
    progress.update(0.0, f"from {urlsplit(url).netloc}" + (f", resumed at {_mb(begun)}" if begun else ""))
    try:
        for attempt in range(_RETRIES + 1):
            before = partial.size_of(url)
            try:
                _receive(file, url, partial, progress, timeout)
            except _BrokenOffError as error:
                if attempt == _RETRIES or partial.size_of(url) <= before:
                    msg = f"broke off after {_mb(partial.size_of(url))} ({error})"
                    raise _MirrorError(msg) from error
            else:
                return
    finally:
        progress.finish()


def _receive(file: DataFile, url: str, partial: _Partial, progress: Progress, timeout: float) -> None:
    """One request: the whole file, or what is missing of it."""
    at, source = partial.size_of(url), partial.source()
    if at and at == source["total"]:
        return
    headers = {"User-Agent": "oddment", "Accept-Encoding": "identity"}
    if at:
        headers |= {"Range": f"bytes={at}-"} | ({"If-Range": source["validator"]} if source["validator"] else {})
    try:
        response = _open(url, headers, timeout)
    except _NoSuchRangeError:
        partial.discard()
        response = _open(url, {**headers, "Range": "bytes=0-"}, timeout)
    with response:
        at, total = _position(response, at)
        _check_size(file, total)
        partial.begin(url, total, response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
        with partial.path.open("ab" if at else "wb") as stream:
            _copy(response, stream, _Meter(progress, at, total), file)


def _open(url: str, headers: dict[str, str], timeout: float) -> Any:  # noqa: ANN401 - urlopen's answer has no useful type
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http and https only, see urls_of
    try:
        return urllib.request.urlopen(request, timeout=timeout)  # noqa: S310 - as above
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and headers.get("Range") != "bytes=0-":
                raise _NoSuchRangeError from error
            msg = f"answered {error.code} {error.reason}"
            raise _MirrorError(msg) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        msg = f"cannot be reached ({_cause(getattr(error, 'reason', error))})"
        raise _MirrorError(msg) from error


def _position(response: Any, at: int) -> tuple[int, int | None]:  # noqa: ANN401 - urlopen's answer has no useful type
    """Where the answer's bytes begin and how long the whole file is, if the server says so."""
    begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if not (response.status == http.HTTPStatus.PARTIAL_CONTENT and begins and int(begins[1]) == at):
        at = 0  # the server knows no ranges, or its file has changed: all of it comes
    length = response.headers.get("Content-Length", "")
    return at, at + int(length) if length.isdigit() else None


def _copy(response: Any, stream: IO[bytes], meter: _Meter, file: DataFile) -> None:  # noqa: ANN401 - as above
    while chunk := _next_chunk(response):
        stream.write(chunk)
        meter.add(len(chunk))
        _check_size(file, meter.done)
    if meter.total is not None and meter.done < meter.total:
        msg = f"{meter.total - meter.done:,} bytes never came"
        raise _BrokenOffError(msg)


def _next_chunk(response: Any) -> bytes:  # noqa: ANN401 - as above
    try:
        chunk: bytes = response.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:  # of the network: writing has its own errors, which pass
        raise _BrokenOffError(_cause(error)) from error
    return chunk


def _check_size(file: DataFile, size: int | None) -> None:
    # The container of compressed content is never much larger than the content itself.
    limit = file.n_bytes + file.n_bytes // 100 + (1 << 16)
    if size is not None and size > limit:
        msg = f"sends {size:,} bytes or more, and the file has {file.n_bytes:,} at most: not this file"
        raise _WrongFileError(msg)


def _cause(error: object) -> str:
    text = " ".join(str(getattr(error, "strerror", None) or error).split())
    return text[:120] or type(error).__name__


def _mb(size: float) -> str:
    return f"{size / 1e6:,.1f} MB"


class _Meter:
    """Counts what has come and tells how long the rest will take."""

    def __init__(self, progress: Progress, done: int, total: int | None) -> None:
        self.done, self.total = done, total
        self._progress, self._first, self._started = progress, done, time.monotonic()

    def add(self, size: int) -> None:
        self.done += size
        rate = (self.done - self._first) / max(time.monotonic() - self._started, 1e-3)
        if self.total is None:
            self._progress.update(0.0, f"{_mb(self.done)}, {_mb(rate)}/s")
            return
        left = (self.total - self.done) / max(rate, 1.0)
        note = f"{_mb(self.done)} of {_mb(self.total)}, {_mb(rate)}/s, {left:,.0f} s left"
        self._progress.update(self.done / max(self.total, 1), note)


@dataclass(frozen=True, slots=True)
class _Partial:
    """A file on its way, and beside it from where it comes."""

    path: Path

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def source(self) -> dict[str, Any]:
        """The url it comes from, its total length and the mirror's mark of that version; empty if nobody knows."""
        unknown = {"url": "", "total": None, "validator": ""}
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return unknown
        return unknown | note if isinstance(note, dict) else unknown

    def size_of(self, url: str) -> int:
        """How much of it has come from this url."""
        return self.path.stat().st_size if self.source()["url"] == url and self.path.is_file() else 0

    def begin(self, url: str, total: int | None, validator: str) -> None:
        # A weak ETag must not be used with If-Range (RFC 9110, 13.1.5).
        mark = "" if validator.startswith("W/") else validator
        self._note.write_text(json.dumps({"url": url, "total": total, "validator": mark}), encoding="utf-8")

    def discard(self) -> None:
        for path in (self.path, self._note):
            path.unlink(missing_ok=True)

    def complete(self, name: str) -> Path:
        """Give it its name, whole and on the disk."""
        target = self.path.with_name(name)
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())
        self.path.replace(target)
        self._note.unlink(missing_ok=True)
        return target


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One download into a folder at a time: two would write into the same partial file."""
    try:
        import fcntl
    except ImportError:  # Windows refuses to open a file twice for writing by itself
        yield
        return
    # The file stays: removed, a third process could lock a new one while a second still waits on the old.
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"{folder}: another process is downloading into it. Wait until it has finished."
            raise DataError(msg) from error
        yield
