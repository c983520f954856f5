"""The images in array files: .npy, .npz and IDX, gzipped too, read one at a time; nothing is unpickled.

Headers are checked against the file's size before anything is read: they say how many images are reported.
"""

from __future__ import annotations

import gzip
import os
import zipfile
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np
from numpy.lib import format as npy

from oddment.errors import ImageError
from oddment.images.references import MAX_MEMBER_BYTES, ImageRef, damaged, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

__all__ = ["Stack", "array_stacks"]

_IDX_DTYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_IDX_LABELS: Final = 1
_DEFLATE_RATIO: Final = 1032
"""Deflate cannot shrink further than this: a header that promises more lies."""


@dataclass(frozen=True, slots=True)
class Stack:
    """The images of one array.

    Args:
        name: of the array in results.
        count: how many images; what the header promises.
        is_stack: images are numbered; False for an array that is one image.
        dtype: as stored.
        read: the images from the first to the last, as stored; may be called again.
    """

    name: str
    count: int
    is_stack: bool
    dtype: np.dtype[Any]
    read: Callable[[], Iterator[NDArray[Any]]]

    def references(self) -> Iterator[ImageRef]:
        """One reference an image; where the data break off, each image that is missing comes with the reason."""
        dtype, at = self._shared_dtype(), 0
        try:
            for at, image in enumerate(self.read(), start=1):
                yield ImageRef(self._name_of(at - 1), image.astype(dtype, copy=False))
            lost = ImageError("truncated: the array ends before this image (re-copy it)")
        except Exception as error:  # noqa: BLE001  gzip, zipfile and zlib raise what they stumble over
            lost = damaged("array file", error)
        for missing in range(at, self.count):
            yield ImageRef(self._name_of(missing), lost)

    def names(self) -> Iterator[str]:
        """The paths of those references; nothing is read."""
        return (self._name_of(index) for index in range(self.count))

    def _name_of(self, index: int) -> str:
        return f"{self.name}[{index}]" if self.is_stack else self.name

    def _shared_dtype(self) -> np.dtype[Any]:
        """One dtype for all images: chosen image by image, a dark one would get another scale than its neighbours."""
        if self.dtype.kind not in "iu" or (self.dtype.kind == "u" and self.dtype.itemsize <= 2):
            return self.dtype
        low, high = 0, 0
        try:
            for image in self.read():
                low, high = min(low, int(image.min())), max(high, int(image.max()))
        except Exception:  # noqa: BLE001, S110  reported where the images are read
            pass
        if low < 0:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if high < 1 << 8 else np.uint16 if high < 1 << 16 else np.float32)


def array_stacks(kind: str, path: str) -> Iterator[Stack | ImageRef]:
    """The arrays in one file; what cannot be used as a reference with its reason."""
    try:
        yield from {"npy": _npy_stacks, "npz": _npz_stacks, "idx": _idx_stacks}[kind](path)
    except ImageError as error:
        yield ImageRef(printable(path), error)
    except Exception as error:  # noqa: BLE001  as above
        yield ImageRef(printable(path), damaged("array file", error))


def _npy_stacks(path: str) -> Iterator[Stack | ImageRef]:
    with open(path, "rb") as stream:  # noqa: PTH123
        shape, _, dtype = _npy_header(stream)
        _, is_stack, count = _layout(shape, dtype)
        available = os.fstat(stream.fileno()).st_size - stream.tell()
    _check_promise(prod(shape) * dtype.itemsize, available)
    # A plain array over the map: slicing np.memmap itself is ten times slower.
    mapped = np.asarray(npy.open_memmap(path, mode="r"))
    yield Stack(printable(path), count, is_stack, dtype, lambda: iter(_split(mapped, is_stack)))


def _split(array: NDArray[Any], is_stack: bool) -> Iterable[NDArray[Any]]:  # noqa: FBT001
    return array if is_stack else (array,)


def _npz_stacks(path: str) -> Iterator[Stack | ImageRef]:
    file_size = os.path.getsize(path)  # noqa: PTH202
    with zipfile.ZipFile(path) as archive:  # open while its stacks are read: opening costs time for every member
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = f"{printable(path)}!/{printable(info.filename.removesuffix('.npy'))}"
            try:
                yield _npz_stack(archive, info, name, file_size)
            except ImageError as error:
                yield ImageRef(name, error)
            except Exception as error:  # noqa: BLE001  as above
                yield ImageRef(name, damaged("array", error))


def _npz_stack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, file_size: int) -> Stack:
    if not info.filename.endswith(".npy"):
        raise ImageError("not an array")
    with archive.open(info) as stream:
        shape, fortran_order, dtype = _npy_header(stream)
    item, is_stack, count = _layout(shape, dtype)
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
    _check_promise(prod(shape) * dtype.itemsize, min(info.file_size, ratio * min(info.compress_size, file_size)))
    _check_item(shape if fortran_order else item, dtype)

    def read() -> Iterator[NDArray[Any]]:
        with archive.open(info) as stream:
            _npy_header(stream)
            if not fortran_order:
                yield from _records(stream, item, dtype, count)
            else:  # the images lie interleaved: all or none
                for whole in _records(stream, shape[::-1], dtype, 1):
                    yield from _split(whole.T, is_stack)

    return Stack(name, count, is_stack, dtype, read)


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; leaves the stream at the first value."""
    version = npy.read_magic(stream)
    reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = reader(stream)
    return shape, fortran_order, dtype


def _idx_stacks(path: str) -> Iterator[Stack | ImageRef]:
    file_size = os.path.getsize(path)  # noqa: PTH202
    with _open_idx(path) as stream:
        shape, dtype = _idx_header(stream)
    if shape is None:
        yield ImageRef(printable(path), Path(path))  # only named like one: decode says what it is not
        return
    if len(shape) == _IDX_LABELS:
        raise ImageError("IDX labels, not images")
    # The IDX format leaves no doubt about three axes: always (N, H, W).
    item, is_stack, count = (shape[1:], True, shape[0]) if len(shape) == 3 else _layout(shape, dtype)
    _check_item(item, dtype)
    ratio = _DEFLATE_RATIO if path.lower().endswith(".gz") else 1
    _check_promise(prod(shape) * dtype.itemsize, ratio * file_size)

    def read() -> Iterator[NDArray[Any]]:
        with _open_idx(path) as stream:
            stream.read(4 + 4 * len(shape))
            yield from _records(stream, item, dtype, count)

    yield Stack(printable(path), count, is_stack, dtype, read)


def _open_idx(path: str) -> IO[bytes]:
    return gzip.open(path) if path.lower().endswith(".gz") else open(path, "rb")  # type: ignore[return-value]  # noqa: PTH123


def _idx_header(stream: IO[bytes]) -> tuple[tuple[int, ...] | None, np.dtype[Any]]:
    """Shape and dtype; no shape if this is not an IDX file."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES or not magic[3]:
        return None, np.dtype("u1")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ImageError("truncated: the file ends within its header (re-copy it)")
    return tuple(int(size) for size in np.frombuffer(sizes, ">u4")), np.dtype(_IDX_DTYPES[magic[2]])


def _records(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], count: int) -> Iterator[NDArray[Any]]:
    """Up to `count` arrays of one shape, as far as the stream goes."""
    size = prod(shape) * dtype.itemsize
    for _ in range(count):
        content = stream.read(size)
        if len(content) < size:
            return
        yield np.frombuffer(content, dtype).reshape(shape)


def _layout(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[tuple[int, ...], bool, int]:
    """The shape of one image, whether the array is a stack of them, and of how many."""
    if dtype.hasobject or dtype.kind not in "buif":
        raise ImageError(f"dtype {dtype} is not numbers; save integers or floats")
    if any(side < 1 for side in shape):
        raise ImageError(f"shape {shape} holds no pixels")
    match shape:
        case (_, _) | (_, _, 1 | 3 | 4):
            return shape, False, 1
        case (count, _, _) | (count, _, _, 1 | 3 | 4):
            return shape[1:], True, count
        case (_, 1 | 3 | 4, _, _):
            raise ImageError(f"shape {shape} has its channels first; transpose it to (N, H, W, C)")
    raise ImageError(f"shape {shape} is not images: (H, W), (N, H, W) or (N, H, W, C) with C of 1, 3 or 4")


def _check_item(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    size = prod(shape) * dtype.itemsize
    if size > MAX_MEMBER_BYTES:
        raise ImageError(f"{size:,} bytes to read at once exceed the limit of {MAX_MEMBER_BYTES:,}; save it as .npy")


def _check_promise(expected: int, available: int) -> None:
    """A header may not promise more than the file can hold: it says how many images are reported."""
    if expected > available:
        raise ImageError(f"truncated: {expected:,} bytes promised, room for {available:,} (re-copy it)")
