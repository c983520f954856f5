"""The IDX format of MNIST: whole arrays, with or without gzip.

Source: the format as published with MNIST, LeCun, Cortes and Burges. `oddment.images` streams the same files image by
    image.
"""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np

from oddment.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["pack_idx", "parse_idx"]

_UBYTE = 8


def parse_idx(data: bytes, name: str = "IDX data") -> NDArray[np.uint8]:
    """Return the array in IDX bytes, gzip or not: (N, H, W) images or (N,) labels, uint8.

    Raises:
        DataError: if the bytes are not IDX of unsigned bytes, or do not hold what their header promises.
    """
    try:
        raw = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        msg = f"{name}: damaged gzip ({error}). Download it again."
        raise DataError(msg) from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UBYTE or not raw[3]:
        msg = f"{name}: not an IDX file of unsigned bytes."
        raise DataError(msg)
    start = 4 + 4 * raw[3]
    shape = tuple(np.frombuffer(raw[4:start], dtype=">u4").astype(int).tolist())
    if len(shape) != raw[3] or len(raw) - start != int(np.prod(shape)):
        msg = f"{name}: the header promises {shape} and {len(raw) - start:,} bytes follow. Download it again."
        raise DataError(msg)
    return np.frombuffer(raw, dtype=np.uint8, offset=start).reshape(shape)


def pack_idx(array: NDArray[np.uint8]) -> bytes:
    """Return gzip IDX bytes of a uint8 array; equal arrays give equal bytes."""
    header = bytes([0, 0, _UBYTE, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return gzip.compress(header + array.tobytes(), 9, mtime=0)
