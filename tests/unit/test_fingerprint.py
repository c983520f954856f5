"""Near duplicates: what a person calls the same picture shares a group, other pictures do not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from oddment.images import Decoded, thumbnail
from oddment.images.fingerprint import (
    NEAR_BITS,
    digest,
    gray_thumb,
    group_near_duplicates,
    join_groups,
    perceptual_hashes,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


def photo(seed: int, size: tuple[int, int] = (240, 320)) -> np.ndarray:
    """A structured picture: smooth shading, shapes with edges, fine texture; uint8 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    picture = np.zeros((height, width, 3))
    for channel in range(3):
        picture[:, :, channel] = 110 + 50 * np.sin(rng.uniform(2, 9) * x + rng.uniform(2, 9) * y + rng.uniform(0, 6))
    for _ in range(25):
        cy, cx, radius = rng.uniform(0, 0.75), rng.uniform(0, 1), rng.uniform(0.03, 0.15)
        picture[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = rng.uniform(0, 255, 3)
    picture += rng.normal(0, 6, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def hash_of(picture: np.ndarray) -> np.ndarray:
    """The hash as `collect` takes it: of a gray 32×32 thumbnail."""
    thumb = thumbnail(Decoded(picture, picture.shape[1::-1]), 64)
    gray = Image.fromarray(thumb).convert("L").resize((32, 32), Image.Resampling.BILINEAR)
    return perceptual_hashes(np.asarray(gray)[None, :, :, None])


def bits_apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(hash_of(a) ^ hash_of(b)).sum())


def encoded(picture: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


CHANGES = {
    "JPEG 85": lambda p: encoded(p, 85),
    "JPEG 40": lambda p: encoded(p, 40),
    "brighter": lambda p: np.clip(p.astype(int) + 6, 0, 255).astype(np.uint8),
    "darker": lambda p: (p * 0.95).astype(np.uint8),
    "cropped": lambda p: p[1:, 1:],
    "cropped at the end": lambda p: p[:-1, :-1],
    "half the size": lambda p: np.asarray(Image.fromarray(p).resize((160, 120))),
    "gray": lambda p: np.asarray(Image.fromarray(p).convert("L")),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("seed", range(4))
def test_the_same_picture(change: str, seed: int) -> None:
    """A picture that was re-encoded, slightly brightened, cropped by a pixel or scaled is a near duplicate."""
    assert bits_apart(photo(seed), CHANGES[change](photo(seed))) <= NEAR_BITS


def test_other_pictures() -> None:
    """Different pictures of one kind are no near duplicates of each other, by far."""
    hashes = np.concatenate([hash_of(photo(seed)) for seed in range(30)])
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None]).sum(axis=2)
    assert apart[np.triu_indices(30, 1)].min() > 2 * NEAR_BITS


def test_groups_of_pictures() -> None:
    """Pictures and their changed copies are grouped, each with its own, numbered in order of appearance."""
    pictures = [photo(1), photo(2), encoded(photo(1), 80), photo(3), encoded(photo(2), 80), photo(1)]
    groups = group_near_duplicates(np.concatenate([hash_of(picture) for picture in pictures]))
    assert groups.tolist() == [0, 1, 0, 2, 1, 0]
    assert groups.dtype == np.int64


def flipped(row: np.ndarray, bits: np.ndarray) -> np.ndarray:
    unpacked = np.unpackbits(row.view(np.uint8))
    unpacked[bits] ^= 1
    return np.packbits(unpacked).view(np.uint64)


def test_the_limit_is_inclusive() -> None:
    """30 different bits are near, 31 are not; a chain of near ones is one group."""
    base = np.zeros(4, np.uint64)
    near, far = flipped(base, np.arange(NEAR_BITS)), flipped(base, np.arange(NEAR_BITS + 1))
    assert group_near_duplicates(np.stack([base, near])).tolist() == [0, 0]
    assert group_near_duplicates(np.stack([base, far])).tolist() == [0, 1]
    chain = flipped(base, np.arange(2 * NEAR_BITS))
    assert group_near_duplicates(np.stack([base, chain])).tolist() == [0, 1]
    assert group_near_duplicates(np.stack([base, chain, near])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images(count: int) -> None:
    """No image and one image are groups of their own."""
    assert group_near_duplicates(np.zeros((count, 4), np.uint64)).tolist() == list(range(count))


@pytest.mark.parametrize(("bits", "found"), [(0, 1.0), (12, 0.99), (30, 0.95)])
def test_many_images(bits: int, found: float) -> None:
    """Beyond 8,000 images planted near duplicates are still found, and no others."""
    rng = np.random.default_rng(bits)
    hashes = rng.integers(0, 2**64, (9_000, 4), dtype=np.uint64)
    planted = 300
    for index in range(planted):
        hashes[8_999 - index] = flipped(hashes[index], rng.choice(256, bits, replace=False))
    groups = group_near_duplicates(hashes)
    together = groups[:planted] == groups[8_999 - np.arange(planted)]
    assert together.mean() >= found
    assert len(np.unique(groups)) == 9_000 - together.sum()
    _, first = np.unique(groups, return_index=True)
    assert (np.diff(first) > 0).all()


def test_digest() -> None:
    """A digest tells apart pixels, shapes and types, and nothing else."""
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    other = pixels.copy()
    other[2, 3] ^= 1
    assert digest(pixels) == digest(np.asfortranarray(pixels)) == digest(pixels.copy())
    assert len({digest(pixels), digest(other), digest(pixels.reshape(4, 3)), digest(pixels.view(np.int8))}) == 4
    assert len(digest(pixels)) == 16


def test_merging_groups() -> None:
    """Groupings are merged into the finest one that joins whatever any of them joins."""
    near, asked = np.array([0, 0, 1, 2, 3]), np.array([0, 1, 1, 2, 3])
    assert join_groups(near, asked).tolist() == [0, 0, 0, 1, 2]
    assert join_groups(np.arange(4)).tolist() == [0, 1, 2, 3]


def connected(*labels: NDArray[Any]) -> NDArray[Any]:
    """The same by SciPy: images and groups are nodes, and an image hangs on each of its groups."""
    count = len(labels[0])
    offsets = np.cumsum([count, *(int(label.max()) + 1 for label in labels)])
    columns = np.concatenate([label + start for label, start in zip(labels, offsets[:-1], strict=True)])
    edges = (np.ones(len(columns), bool), (np.tile(np.arange(count), len(labels)), columns))
    found: NDArray[Any] = connected_components(coo_matrix(edges, shape=(offsets[-1], offsets[-1])), directed=False)[1]
    return found[:count]


def test_groupings_are_joined_as_components_are() -> None:
    """`join_groups` gives the connected components, for two groupings and for three."""
    rng = np.random.default_rng(0)
    for count in (1, 2, 7, 60):
        left, right = rng.integers(0, count, count), rng.integers(0, max(1, count // 2), count)
        for labels in ((left, right), (left, right, rng.integers(0, count, count))):
            joined, merged = join_groups(*labels), connected(*labels)
            assert ((joined[:, None] == joined) == (merged[:, None] == merged)).all()
            assert set(joined.tolist()) == set(range(int(joined.max()) + 1))


def test_thumbs_are_those_of_fitting() -> None:
    """The thumbnail that a recalibration hashes is the one that fitting does."""
    picture = photo(3)
    thumb = gray_thumb(Decoded(picture, picture.shape[1::-1]))
    assert thumb.shape == (32, 32, 1)
    assert (perceptual_hashes(thumb[None]) == hash_of(picture)).all()
