"""The journal of a gallery: what it took in, appended to one file, so that a resumed search keeps its pictures.

A file is a sequence of records. A record is `ODPJ`, three little-endian uint32 (bytes of the header, bytes of the
body, CRC-32 of both), the header in UTF-8 JSON and the body. An *entry* holds one image's pictures in its body; a
*floor* record has no body and holds the keys below which the gallery takes nothing. Reading stops at the first record
that is not whole: that is where the writing was interrupted.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from oddment.report.pictures import Pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["Entry", "Floors", "append_record", "read_records", "rewrite_records"]

_MAGIC = b"ODPJ"
_PREFIX = struct.Struct("<4sIII")
# A path is at most some thousand bytes and pictures some ten thousand: larger lengths are damage, not data.
_MAX_HEADER, _MAX_BODY = 1 << 20, 1 << 28


@dataclass(frozen=True, slots=True)
class Entry:
    """One image taken in: its path, its score and its pictures."""

    path: str
    anomaly_score: float
    pictures: Pictures


@dataclass(frozen=True, slots=True)
class Floors:
    """The keys at and beyond which the ranking and the sample take nothing more; None where all is welcome."""

    ranking: tuple[float, str] | None
    sample: tuple[float, str] | None


Record = Entry | Floors


def read_records(path: Path) -> Iterator[Record]:
    """The whole records of a journal; a torn tail is cut off the file, so that appending can go on."""
    good = 0
    with path.open("rb") as file:
        while (read := _read_one(file)) is not None:
            good = file.tell()
            yield read
    if good < path.stat().st_size:
        os.truncate(path, good)


def append_record(file: BinaryIO, record: Record) -> int:
    """Append a record to a journal open for appending, and return the journal's size in bytes.

    It is with the operating system then, and survives the death of this process.
    """
    file.write(_encode(record))
    file.flush()
    return file.tell()


def rewrite_records(path: Path, records: Iterable[Record]) -> int:
    """Replace the journal by one of these records alone, atomically, and return its size in bytes."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        for record in records:
            file.write(_encode(record))
        size = file.tell()
    temporary.replace(path)
    return size


def _encode(record: Record) -> bytes:
    header, body = _encode_entry(record) if isinstance(record, Entry) else (_floors_header(record), b"")
    # Ascii JSON carries any path, lone surrogates of undecodable file names included.
    text = json.dumps(header).encode("ascii")
    return _PREFIX.pack(_MAGIC, len(text), len(body), zlib.crc32(text + body)) + text + body


def _floors_header(floors: Floors) -> dict[str, Any]:
    return {"floors": [floors.ranking, floors.sample]}


def _encode_entry(entry: Entry) -> tuple[dict[str, Any], bytes]:
    pictures = entry.pictures
    blobs = (pictures.original, pictures.reconstruction, pictures.heat_map)
    header = {
        "path": entry.path,
        "anomaly_score": entry.anomaly_score,
        "size": [pictures.width, pictures.height],
        "bytes": [None if blob is None else len(blob) for blob in blobs],
        "similar": pictures.similar,
    }
    return header, b"".join(blob or b"" for blob in blobs)


def _read_one(file: BinaryIO) -> Record | None:
    prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return None
    magic, n_header, n_body, checksum = _PREFIX.unpack(prefix)
    if magic != _MAGIC or n_header > _MAX_HEADER or n_body > _MAX_BODY:
        return None
    content = file.read(n_header + n_body)
    if len(content) < n_header + n_body or zlib.crc32(content) != checksum:
        return None
    try:
        return _decode(json.loads(content[:n_header]), content[n_header:])
    except (ValueError, TypeError, KeyError):
        return None  # whole, but not written by this version: the rest is of no use either


def _decode(header: dict[str, Any], body: bytes) -> Record:
    if "floors" in header:
        ranking, sample = (None if key is None else (float(key[0]), str(key[1])) for key in header["floors"])
        return Floors(ranking, sample)
    blobs: list[bytes | None] = []
    start = 0
    for count in header["bytes"]:
        blobs.append(None if count is None else body[start : start + count])
        start += count or 0
    original, reconstruction, heat_map = blobs
    width, height = header["size"]
    similar = tuple(map(int, header["similar"]))
    pictures = Pictures(original or b"", reconstruction, heat_map, int(width), int(height), similar)
    return Entry(str(header["path"]), float(header["anomaly_score"]), pictures)
