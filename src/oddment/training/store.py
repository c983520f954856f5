"""Prepared training images in memory, as small as their files' pixels, or memory-mapped when that is too much."""

from __future__ import annotations

import tempfile
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from oddment.models import Batch, valid_mask
from oddment.models._base import whole_mask
from oddment.models._exposure import standardise_exposure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.images.prepare import Preparation, Prepared

__all__ = ["PixelStore"]

# Above this a store lies in a temporary file that the operating system pages in and out.
IN_MEMORY_BYTES = 4 * 1024**3


class PixelStore:
    """Pictures of one size, appended once, gathered by index ever after.

    Args:
        preparation: how the pictures were made.
        capacity: how many pictures to make room for; it grows when that was too few.
        exposure: bring each picture of a batch to one mean and one contrast.

    Attributes:
        pixels: (P, H, W, C), of uint8, uint16 or float32: the widest type that came along.
        valid: int64 (P, 4).
        owners: int64 (P,), the index of the image that each picture belongs to.
    """

    def __init__(self, preparation: Preparation, capacity: int, *, exposure: bool = False) -> None:
        self.preparation, self.exposure = preparation, exposure
        self._shape = (preparation.height, preparation.width, preparation.channels)
        self._data = _allocate((max(1, capacity), *self._shape), np.dtype(np.uint8))
        # Arrays and not lists of numbers, which would take 170 bytes a picture.
        self._valid, self._owners = array("q"), array("q")

    def append(self, prepared: Prepared, owner: int, keep: NDArray[np.int64] | None = None) -> None:
        """Add the pictures of one image, all of them or those with the indices `keep`."""
        indices = range(len(prepared.pixels)) if keep is None else keep.tolist()
        self._widen(prepared.pixels.dtype)
        for index in indices:
            position = len(self._owners)
            if position == len(self._data):
                self._data = _grow(self._data)
            self._data[position] = self._as_stored(prepared.pixels[index])
            self._valid.extend(prepared.placements[index].valid)
            self._owners.append(owner)

    def __len__(self) -> int:
        """Pictures in the store."""
        return len(self._owners)

    @property
    def pixels(self) -> NDArray[Any]:
        """All pictures, (P, H, W, C)."""
        return self._data[: len(self)]

    @property
    def valid(self) -> NDArray[np.int64]:
        """Real pixels of each picture, int64 (P, 4)."""
        return np.array(self._valid, dtype=np.int64).reshape(-1, 4)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The image each picture belongs to, int64 (P,)."""
        return np.array(self._owners, dtype=np.int64)

    def _as_stored(self, picture: NDArray[Any]) -> NDArray[Any]:
        """The picture's values in the store's type: the same fraction of the type's range in `preparation.ranges`."""
        if picture.dtype == self._data.dtype:
            return picture
        return self._as_float(picture)

    def _widen(self, dtype: np.dtype[Any]) -> None:
        if self._data.dtype in (dtype, np.float32):
            return
        if not len(self):
            self._data = _allocate(self._data.shape, dtype)
            return
        # Eight-bit and deep files mixed: float32 is the one type that holds both exactly enough.
        wide = _allocate(self._data.shape, np.dtype(np.float32))
        for position in range(len(self)):
            wide[position] = self._as_float(self._data[position])
        self._data = wide

    def _as_float(self, picture: NDArray[Any]) -> NDArray[Any]:
        low, high = self.preparation.ranges[picture.dtype.name]
        floor, ceiling = self.preparation.ranges["float32"]
        return ((picture.astype(np.float32) - low) / (high - low)) * (ceiling - floor) + floor

    def gather(self, indices: NDArray[np.int64], valid: NDArray[np.int64], device: torch.device) -> Batch:
        """Return the pictures with these indices as one batch on the device.

        Args:
            indices: int64 (N,).
            valid: what `self.valid` returned, passed in so that it is built once; without rows where nothing is padded.
            device: where to.
        """
        images = torch.from_numpy(self.preparation.scale(self._data[indices])).to(device)
        size = images.shape[2:]
        where = valid[indices] if len(valid) else valid
        if (where == (0, 0, *size)).all():  # as most pictures are; drawing the mask takes a tenth of a dense step
            mask = whole_mask(len(images), size[0], size[1], device)
        else:
            mask = valid_mask(torch.from_numpy(where).to(device), *size)
        return Batch(standardise_exposure(images, mask).images if self.exposure else images, mask)

    def passes(self, indices: NDArray[np.int64], size: int, device: torch.device) -> Iterator[Batch]:
        """Yield all pictures with these indices, in order, in batches of `size`."""
        valid = self.valid
        for start in range(0, len(indices), size):
            yield self.gather(indices[start : start + size], valid, device)


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int(np.prod(shape)) * dtype.itemsize
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, dtype)
    # The file has no name any more once it is open, so that nothing is left behind, even by a kill.
    with tempfile.TemporaryFile(prefix="oddment-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _grow(data: NDArray[Any]) -> NDArray[Any]:
    larger = _allocate((2 * len(data), *data.shape[1:]), data.dtype)
    larger[: len(data)] = data
    return larger
