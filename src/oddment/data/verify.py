"""Checks a data set's files: the SHA-256 of their content, and whether they hold as many images as they should."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

from oddment.data.catalog import file_in
from oddment.data.deepweeds import COUNTS, SPECIES, open_deepweeds
from oddment.data.folders import mask_of, subfolders
from oddment.data.idx import parse_idx
from oddment.errors import DataError
from oddment.images.files import iter_images

if TYPE_CHECKING:
    from pathlib import Path

    from oddment.data.catalog import DataFile, DataSet

__all__ = ["Check", "Content", "content_of", "verify", "verify_mvtec"]

_CHUNK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked; `note` says what was found."""

    name: str
    ok: bool
    note: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds once unpacked.

    Args:
        sha256: of the content; empty if it is not to be had.
        n_bytes: of the content, as far as it was read.
        compressed: whether the file is gzip.
        start: the first bytes of the content.
        damage: why it could not be read to its end.
    """

    sha256: str
    n_bytes: int
    compressed: bool
    start: bytes
    damage: str = ""

    def words(self) -> str:
        """What was found, for a message."""
        if self.damage:
            return self.damage
        is_page = self.start.lstrip()[:1] == b"<"
        return f"{'a web page, ' if is_page else ''}{self.n_bytes:,} bytes with SHA-256 {self.sha256}"


def content_of(path: Path, most: int) -> Content:
    """Return what a file holds, gzip unpacked; no more than `most` bytes are read, for gzip may swell without end."""
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not is_gzip:
            return _summed(raw, most, compressed=False)
        with gzip.open(raw) as unpacked:
            return _summed(unpacked, most, compressed=True)  # type: ignore[arg-type]  # binary, as IO[bytes] is


def _summed(stream: IO[bytes], most: int, *, compressed: bool) -> Content:
    digest, size, start = hashlib.sha256(), 0, b""
    try:
        while chunk := stream.read(_CHUNK):
            start = start or chunk[:64]
            digest.update(chunk)
            size += len(chunk)
            if size > most:
                return Content("", size, compressed, start, f"more than {most:,} bytes: not this file")
    except (OSError, EOFError, zlib.error) as error:
        return Content("", size, compressed, start, f"damaged gzip ({error})")
    return Content(digest.hexdigest(), size, compressed, start)


def verify(wanted: DataSet, folder: Path) -> tuple[Check, ...]:
    """Return what is right and what is wrong with the data set in this folder."""
    checks = [_check_file(folder, file) for file in wanted.files if not _is_unpacked(folder, file)]
    if wanted.kind == "deepweeds":
        checks += _check_deepweeds(folder)
    return tuple(checks)


def _is_unpacked(folder: Path, file: DataFile) -> bool:
    return file.name.endswith(".zip") and (folder / file.name.removesuffix(".zip")).is_dir()


def _check_file(folder: Path, file: DataFile) -> Check:
    path = file_in(folder, file)
    if path is None:
        return Check(file.name, ok=False, note="missing")
    content = content_of(path, file.n_bytes)
    if content.sha256 not in file.sha256:
        return Check(path.name, ok=False, note=f"{content.words()}; expected SHA-256 {' or '.join(file.sha256)}")
    if not file.shape:
        return Check(path.name, ok=True, note=f"{content.n_bytes:,} bytes, SHA-256 right")
    try:
        shape = parse_idx(path.read_bytes(), path.name).shape
    except DataError as error:
        return Check(path.name, ok=False, note=str(error))
    what = " × ".join(f"{side:,}" for side in shape)
    return Check(path.name, ok=shape == file.shape, note=f"{what}, SHA-256 right")


def _check_deepweeds(folder: Path) -> list[Check]:
    try:
        found = open_deepweeds(folder)
    except DataError as error:
        return [Check("images", ok=False, note=str(error))]
    counts = Counter(row.label for row in found.rows)
    wrong = [
        f"{SPECIES[label]} {counts[label]:,} instead of {count:,}"
        for label, count in enumerate(COUNTS)
        if counts[label] != count
    ]
    missing = len(found.missing)
    note = f"{len(found.rows) - missing:,} of {len(found.rows):,} there"
    if missing:
        note += f"; missing: {', '.join(found.missing[:3])}{' …' if missing > 3 else ''}"
    return [
        Check(
            "classes", ok=not wrong, note=", ".join(wrong) or f"{len(COUNTS)} classes, {sum(COUNTS):,} images listed"
        ),
        Check("images", ok=not missing, note=note),
    ]


def verify_mvtec(folder: Path) -> tuple[Check, ...]:
    """Return what is right and what is wrong with a folder in MVTec's layout: images of every kind, a mask for each."""
    good = sum(1 for _ in iter_images([folder / "train" / "good"]))
    checks = [Check("train/good", ok=good > 0, note=f"{good:,} images")]
    kinds = subfolders(folder / "test")
    if not any(kind.name != "good" for kind in kinds):
        checks.append(Check("test", ok=False, note="no folder of a defect beside good/: nothing abnormal to test with"))
    return (*checks, *(_check_kind(folder, kind) for kind in kinds))


def _check_kind(folder: Path, kind: Path) -> Check:
    refs = list(iter_images([kind]))
    masks = folder / "ground_truth" / kind.name
    name, count = f"test/{kind.name}", f"{len(refs):,} images"
    if kind.name == "good" or not masks.is_dir():
        return Check(name, ok=bool(refs), note=count if kind.name == "good" else f"{count}, no masks")
    found = [mask_of(masks, ref) for ref in refs]
    lacking = [ref.path for ref, mask in zip(refs, found, strict=True) if mask is None]
    unused = sorted(path.name for path in set(masks.glob("*.png")) - set(found))
    note = f"{count}, {len(refs) - len(lacking):,} masks"
    note += f"; no mask for {_first(lacking)}" if lacking else ""
    note += f"; no image for the mask {_first(unused)}" if unused else ""
    return Check(name, ok=bool(refs) and not lacking and not unused, note=note)


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
