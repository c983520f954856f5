"""Fingerprints of images: exact duplicates by digest, near duplicates by perceptual hash.

Source: the hash is the DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010).
Differs in keeping 16×16 coefficients (256 bits), since photographs of one production line differ in detail only.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oddment.images.decode import thumbnail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.images.decode import Decoded

__all__ = ["NEAR_BITS", "digest", "gray_thumb", "group_near_duplicates", "join_groups", "perceptual_hashes"]

NEAR_BITS = 30
"""Two images whose 256-bit hashes differ in at most this many bits are near duplicates of each other."""

_SIDE = 32
_SMALL = 64  # pixels a side up to which there is nothing to shrink first
_KEPT = 16
# Up to here every pair is compared; beyond, neighbours in several sorted orders are.
_EXACT_PAIRS = 8_000
_ORDERS = 24
_WINDOW = 6


def digest(pixels: NDArray[Any]) -> bytes:
    """Return 16 bytes that two images share only if type, shape and every pixel are equal."""
    header = f"{pixels.dtype.str}{pixels.shape}".encode()
    return hashlib.blake2b(header + np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def gray_thumb(decoded: Decoded) -> NDArray[np.uint8]:
    """Return what `perceptual_hashes` is given of an image: gray uint8 (h, w, 1), whatever its aspect ratio.

    It is 32 × 32; a gray image of at most 64 pixels a side comes as it is.
    """
    pixels = decoded.pixels
    if pixels.ndim == 2 and pixels.dtype == np.uint8 and max(pixels.shape) <= _SMALL:
        return pixels[:, :, None]
    small = Image.fromarray(thumbnail(decoded, _SMALL)).convert("L")
    return np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR))[:, :, None]


def perceptual_hashes(pictures: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the 256-bit perceptual hash of each picture.

    Args:
        pictures: (N, H, W, C) of any real type.

    Returns:
        uint64 (N, 4).
    """
    gray = pictures.astype(np.float32).mean(axis=3)
    rows, columns = _shrink_then_dct(gray.shape[1]), _shrink_then_dct(gray.shape[2])
    spectrum = (rows @ gray @ columns.T).reshape(len(gray), -1)
    # The mean brightness says nothing about content.
    spectrum[:, 0] = 0
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


@lru_cache(maxsize=16)
def _shrink_then_dct(length: int) -> NDArray[np.float32]:
    """(16, length): triangle-filtered resampling to 32 samples, then the first 16 rows of the orthonormal DCT-II."""
    scale = length / _SIDE
    support = max(scale, 1.0)
    centres = (np.arange(_SIDE)[:, None] + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(length)[None] + 0.5 - centres) / support, 0, None)
    weights /= weights.sum(axis=1, keepdims=True)
    k, n = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None]
    cosines = np.cos(np.pi * (2 * n + 1) * k / (2 * _SIDE)) * np.sqrt(2 / _SIDE)
    cosines[0] /= np.sqrt(2)
    return np.asarray(cosines @ weights, dtype=np.float32)


def group_near_duplicates(hashes: NDArray[np.uint64], *, max_bits: int = NEAR_BITS) -> NDArray[np.int64]:
    """Return a group number for each image; near duplicates, and near duplicates of those, share one.

    Up to 8,000 images every pair is compared. Beyond, each image is compared with its neighbours in 24 sorted orders of
    the hash, which misses some pairs at the far end of `max_bits` and keeps the cost in proportion to the number.

    Args:
        hashes: uint64 (N, 4) from `perceptual_hashes`.
        max_bits: the largest distance between near duplicates.

    Returns:
        int64 (N,), numbers from 0 in order of first appearance.
    """
    parents = np.arange(len(hashes))
    for left, right in _close(hashes, max_bits):
        for a, b in zip(left.tolist(), right.tolist(), strict=True):
            root_a, root_b = _root(parents, a), _root(parents, b)
            parents[max(root_a, root_b)] = min(root_a, root_b)
    roots = np.array([_root(parents, index) for index in range(len(hashes))], dtype=np.int64)
    _, groups = np.unique(roots, return_inverse=True)
    return groups.astype(np.int64)


def join_groups(*labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the finest grouping, int64 (N,) from 0, that joins whatever any of several groupings of N images joins."""
    parents = np.arange(len(labels[0]))
    for grouping in labels:
        _, first, inverse = np.unique(grouping, return_index=True, return_inverse=True)
        for index, other in enumerate(first[inverse].tolist()):
            root_a, root_b = _root(parents, index), _root(parents, other)
            parents[max(root_a, root_b)] = min(root_a, root_b)
    _, groups = np.unique([_root(parents, index) for index in range(len(parents))], return_inverse=True)
    return groups.astype(np.int64)


def _close(hashes: NDArray[np.uint64], most: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs whose hashes differ in at most so many bits."""
    count = len(hashes)
    if count <= _EXACT_PAIRS:
        words = np.ascontiguousarray(hashes.T)
        for index in range(count - 1):
            found = index + 1 + np.flatnonzero(_bits(words[:, index, None], words[:, index + 1 :]) <= most)
            yield np.full(found.size, index), found
        return
    rng = np.random.default_rng(0)
    bits = np.ascontiguousarray(np.unpackbits(hashes.view(np.uint8).reshape(count, -1), axis=1).T)
    for _ in range(_ORDERS):
        chosen = bits[rng.permutation(len(bits))[:64]]
        keys = np.ascontiguousarray(np.packbits(chosen, axis=0).T).view(">u8")[:, 0]
        order = np.argsort(keys, kind="stable")
        words = np.ascontiguousarray(hashes[order].T)
        for step in range(1, _WINDOW + 1):
            found = np.flatnonzero(_bits(words[:, :-step], words[:, step:]) <= most)
            yield order[found], order[found + step]


def _bits(left: NDArray[np.uint64], right: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """In how many bits hashes (4, n) differ, a word a row, uint16 (n,)."""
    differing = np.bitwise_count(left ^ right)
    return np.asarray(differing.sum(axis=0, dtype=np.uint16))


def _root(parents: NDArray[np.int64], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = int(parents[index])
    return index
