"""Which training images a model file keeps small pictures of: some that cover what there is, within a budget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import ImageError
from oddment.examples import MOST_BYTES, MOST_EXAMPLES, SIDE, Examples, encode_example
from oddment.images.decode import Decoded, decode, thumbnail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from oddment.images.files import ImageRef
    from oddment.images.prepare import Preparation
    from oddment.training.collect import Collection

__all__ = ["keep_examples"]

# Training images among which is chosen, drawn at random.
_CANDIDATES = 5000
# Pictures of fewer pixels on a side are rows of numbers, which nobody compares by eye.
_LEAST_SIDE = 8


def keep_examples(
    collection: Collection,
    training: NDArray[np.int64],
    refs: Callable[[], Iterable[ImageRef]],
    *,
    max_pixels: int,
    seed: int,
) -> Examples:
    """Return small pictures of training images: as many as allowed, spread over what the images look like.

    Args:
        collection: all usable images.
        training: those that may be shown; calibration images may not, so that they stay unknown to the file.
        refs: returns a fresh pass over all images, read again where the model sees other than whole pictures.
        max_pixels: larger images were rejected.
        seed: fixes the choice.
    """
    preparation = collection.store.preparation
    if min(preparation.height, preparation.width) < _LEAST_SIDE:
        return Examples()
    chosen = _spread(collection.hashes[training], seed)
    images = training[chosen].tolist()
    pictures = (
        _from_store(collection, images)
        if preparation.fit == "letterbox"
        else _read_again({collection.paths[index] for index in images}, refs(), preparation, max_pixels)
    )
    encoded = {name: encode_example(picture) for name, picture in pictures}
    kept: dict[str, bytes] = {}
    room = MOST_BYTES
    for name in (collection.paths[index] for index in images):
        data = encoded.get(name)
        if data is not None and name not in kept and len(data) <= room:
            kept[name] = data
            room -= len(data)
    return Examples(tuple(kept), tuple(kept.values()))


def _spread(hashes: NDArray[np.uint64], seed: int) -> NDArray[np.int64]:
    """Indices of at most `MOST_EXAMPLES` images: each is likelier the less it is like the likest of those before it.

    Any number from the front is such a choice as well, so that the budget may cut it off.

    Source:
        Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding" (2007), section 2.2; the squared
        distance of two hashes is the number of bits in which they differ.
    """
    rng = np.random.default_rng(seed)
    # Of images that look equal one is enough.
    _, different = np.unique(hashes, axis=0, return_index=True)
    candidates = np.sort(rng.permutation(different)[:_CANDIDATES])
    codes, chosen = hashes[candidates], [int(rng.integers(len(candidates)))]
    apart = np.full(len(candidates), np.inf)
    for _ in range(min(MOST_EXAMPLES, len(candidates)) - 1):
        bits = np.bitwise_count(codes ^ codes[chosen[-1]]).sum(axis=1, dtype=np.int64)
        apart = np.minimum(apart, bits)
        chosen.append(int(rng.choice(len(candidates), p=apart / apart.sum())))
    return np.asarray(candidates[chosen], np.int64)


def _from_store(collection: Collection, images: list[int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and picture of images that the store holds whole, one picture each."""
    store = collection.store
    valid = store.valid
    for index in images:
        yield collection.paths[index], _display(store.pixels[index], valid[index].tolist(), store.preparation)


def _read_again(
    names: set[str], refs: Iterable[ImageRef], preparation: Preparation, max_pixels: int
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield name and picture of images whose pictures in the store are stretched, or are tiles."""
    for ref in refs:
        if ref.path not in names:
            continue
        try:
            decoded = decode(ref.payload, max_pixels=max_pixels, at_least=(SIDE, SIDE))
        except ImageError:
            continue
        height, width = (max(1, min(SIDE, side)) for side in decoded.size[::-1])
        prepared = replace(preparation, height=height, width=width, fit="letterbox").prepare(decoded)
        yield ref.path, _display(prepared.pixels[0], prepared.placements[0].valid, preparation)


def _display(pixels: NDArray[Any], valid: Iterable[int], preparation: Preparation) -> NDArray[np.uint8]:
    """The real pixels of a prepared picture (H, W, C) as bytes."""
    top, left, bottom, right = valid
    inside = pixels[top:bottom, left:right]
    low, high = preparation.ranges[pixels.dtype.name]
    whole = Decoded(inside[:, :, 0] if inside.shape[2] == 1 else inside, (inside.shape[1], inside.shape[0]))
    return thumbnail(whole, SIDE, low=low, high=high)
