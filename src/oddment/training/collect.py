"""One pass over the training images: decode, prepare, fingerprint. What comes out is all that training needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import DataError, ImageError
from oddment.images.decode import decode
from oddment.images.fingerprint import digest, gray_thumb, group_near_duplicates, join_groups, perceptual_hashes
from oddment.images.measure import Measures, measure
from oddment.images.stream import in_order
from oddment.results import Rejection
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from oddment.images.files import ImageRef
    from oddment.images.prepare import Preparation, Prepared
    from oddment.progress import Progress

__all__ = ["Collection", "collect"]

# Tiles kept of each training image; enough to learn a texture from, whatever the image's size.
_MOST_TILES = 48
_HASHED_AT_ONCE = 512
# Numbers in an array up to which handing it to another thread takes longer than the work.
_HANDED_OVER = 64 * 64


@dataclass(slots=True)
class Collection:
    """All usable training images.

    Args:
        store: their prepared pictures.
        paths: name of each image.
        digests: fingerprint of each image's pixels.
        hashes: uint64 (N, 4) perceptual hashes.
        rejections: the unusable ones.
        measures: plain facts about each image; empty unless they were asked for.
    """

    store: PixelStore
    paths: list[str] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    hashes: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 4), np.uint64))
    rejections: list[Rejection] = field(default_factory=list)
    measures: list[Measures] = field(default_factory=list)

    def __len__(self) -> int:
        """Usable images."""
        return len(self.paths)

    def check(self, *, strict: bool) -> None:
        """Check that there is an image, and with `strict` that none was rejected.

        Raises:
            DataError: if not; the message names the first rejected image and its reason.
        """
        if not self.rejections or (len(self) and not strict):
            return
        first = self.rejections[0]
        what = (
            f"{len(self.rejections):,} images cannot be used and --strict was given"
            if len(self)
            else "none of the images can be used"
        )
        msg = f"{what}; the first: {first.path}: {first.reason}."
        raise DataError(msg)

    def duplicates(self) -> list[list[str]]:
        """The names of images that are equal to the last pixel, a list for each such set."""
        sets: dict[bytes, list[str]] = {}
        for path, key in zip(self.paths, self.digests, strict=True):
            sets.setdefault(key, []).append(path)
        return [names for names in sets.values() if len(names) > 1]

    def near_groups(self) -> NDArray[np.int64]:
        """A number for each image that near and exact duplicates share, int64 (N,)."""
        _, exact = np.unique(np.array(self.digests, dtype="S16"), return_inverse=True)
        return join_groups(group_near_duplicates(self.hashes), exact.astype(np.int64))

    def fingerprint(self) -> str:
        """SHA-256 of all images, in order, as hexadecimal digits."""
        return hashlib.sha256(b"".join(self.digests)).hexdigest()


@dataclass(frozen=True, slots=True)
class _Usable:
    prepared: Prepared
    digest: bytes
    thumb: NDArray[Any]
    measures: Measures | None


def collect(
    refs: Iterable[ImageRef],
    count: int,
    preparation: Preparation,
    *,
    max_pixels: int,
    seed: int,
    progress: Progress,
    measured: bool = False,
    exposure: bool = False,
) -> Collection:
    """Decode, prepare and fingerprint all images.

    Args:
        refs: references to all images.
        count: how many there are, for the progress bar and the memory.
        preparation: how they are prepared.
        max_pixels: larger images are rejected before they are decoded.
        seed: fixes which tiles of a tiled image are kept.
        progress: told how far it is.
        measured: take each image's measures as well.
        exposure: whether the model sees each picture at one mean and one contrast.
    """
    collection = Collection(PixelStore(preparation, count, exposure=exposure))
    rng = np.random.default_rng(seed)
    thumbs: list[NDArray[Any]] = []
    hashes = [collection.hashes]

    def hash_thumbs() -> None:
        if thumbs:
            hashes.append(perceptual_hashes(np.stack(thumbs)))
            thumbs.clear()

    def work(ref: ImageRef) -> _Usable | ImageError:
        try:
            decoded = decode(ref.payload, max_pixels=max_pixels, at_least=preparation.at_least)
            prepared = preparation.prepare(decoded)
            facts = measure(decoded) if measured else None
            return _Usable(prepared, digest(decoded.pixels), gray_thumb(decoded), facts)
        except ImageError as error:
            return error

    progress.start("Reading images", count)
    for number, (ref, item) in enumerate(_worked_on(refs, work), start=1):
        if isinstance(item, ImageError):
            collection.rejections.append(Rejection(path=ref.path, reason=str(item)))
        else:
            collection.store.append(item.prepared, len(collection), _some_tiles(len(item.prepared.pixels), rng))
            collection.paths.append(ref.path)
            collection.digests.append(item.digest)
            if len(thumbs) == _HASHED_AT_ONCE or (thumbs and thumbs[0].shape != item.thumb.shape):
                hash_thumbs()
            thumbs.append(item.thumb)
            if item.measures is not None:
                collection.measures.append(item.measures)
        progress.update(number, f"{len(collection.rejections):,} rejected" if collection.rejections else "")
    progress.finish()
    hash_thumbs()
    collection.hashes = np.concatenate(hashes)
    return collection


def _worked_on(
    refs: Iterable[ImageRef], work: Callable[[ImageRef], _Usable | ImageError]
) -> Iterator[tuple[ImageRef, _Usable | ImageError]]:
    """Yield each reference and what was made of it, in order, in threads where an image is more than a few numbers."""
    remaining = iter(refs)
    first = next(remaining, None)
    if first is None:
        return
    everything = chain([first], remaining)
    if isinstance(first.payload, np.ndarray) and first.payload.size <= _HANDED_OVER:
        yield from ((ref, work(ref)) for ref in everything)
    else:
        yield from in_order(everything, work)


def _some_tiles(count: int, rng: np.random.Generator) -> NDArray[np.int64] | None:
    if count <= _MOST_TILES:
        return None
    return np.sort(rng.choice(count, _MOST_TILES, replace=False))
