"""What the training loop eats: batches from the store, with whatever a model computes of them once and for all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from oddment.models import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.models import Autoencoder
    from oddment.training.store import PixelStore

__all__ = ["Feed", "KnownInputs"]

# What the inputs of all pictures may take; beyond, the model computes them anew in each step.
CACHE_BYTES = int(1.5 * 1024**3)
# Numbers that are gathered at a time, four batches of 64 digits: of more, the last would have left the cache.
_NUMBERS_AT_ONCE = 2**18


class KnownInputs:
    """What a kind of model computes of each picture once and for all, kept for every model of that kind.

    Args:
        limit: most bytes that it may take.

    Attributes:
        tensors: one float16 tensor an input, a row a picture; None before the first batch, empty where nothing is kept.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.tensors: tuple[torch.Tensor, ...] | None = None
        self._known = np.zeros(0, dtype=bool)

    @torch.no_grad()
    def learn(self, model: Autoencoder, indices: NDArray[np.int64], batch: Batch, count: int) -> None:
        """Compute and keep the inputs of pictures, of `count` in all, that have not been seen before."""
        if not len(self._known):
            self._known = np.zeros(count, dtype=bool)
        new = np.flatnonzero(~self._known[indices])
        if not new.size:
            return
        rows = torch.from_numpy(new).to(batch.images.device)
        inputs = model.inputs(Batch(batch.images[rows], batch.mask[rows]))
        if self.tensors is None:
            self.tensors = self._allocate(inputs, count)
        for kept, values in zip(self.tensors, inputs, strict=bool(self.tensors)):
            kept[torch.from_numpy(indices[new])] = values.to("cpu", torch.float16)
        self._known[indices[new]] = True

    def _allocate(self, inputs: tuple[torch.Tensor, ...], count: int) -> tuple[torch.Tensor, ...]:
        picture = sum(2 * values[0].numel() for values in inputs)  # bytes
        if picture * count > self.limit:
            return ()
        # Memory is taken when a row is written: pictures that only calibrate cost nothing.
        return tuple(torch.empty((count, *values.shape[1:]), dtype=torch.float16) for values in inputs)


class Feed:
    """Batches of one store for one model.

    Args:
        model: asked for its `inputs` the first time that a picture is gathered.
        store: the prepared pictures.
        device: where batches go.
        known: inputs of this store's pictures by earlier models of the same kind; kept for this one alone where None.
    """

    def __init__(
        self, model: Autoencoder, store: PixelStore, device: torch.device, known: KnownInputs | None = None
    ) -> None:
        self.model, self.store, self.device = model, store, device
        valid, (height, width) = store.valid, store.pixels.shape[1:3]
        # Where no picture is padded, none has to be looked at.
        self.valid = valid[:0] if (valid == (0, 0, height, width)).all() else valid
        self.known = known or KnownInputs()

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """Return the pictures with these indices as one batch."""
        batch = self.store.gather(indices, self.valid, self.device)
        if self.known.tensors == ():
            return batch
        self.known.learn(self.model, indices, batch, len(self.store))
        rows = torch.from_numpy(indices)
        kept = self.known.tensors or ()
        return batch._replace(inputs=tuple(values[rows].to(self.device, torch.float32) for values in kept))

    def passes(self, indices: NDArray[np.int64], size: int) -> Iterator[Batch]:
        """Yield all pictures with these indices, in order, in batches of `size`."""
        start = 0
        while start < len(indices):
            # What a model computes of its inputs is computed a batch at a time, whatever the pictures' size.
            several = size * (self._together(size) if self.known.tensors == () else 1)
            some = self.gather(indices[start : start + several])
            start += several
            for at in range(0, len(some.images), size):
                one = slice(at, at + size)
                yield Batch(some.images[one], some.mask[one], tuple(values[one] for values in some.inputs))

    def _together(self, size: int) -> int:
        """Batches of a size that are gathered at a time: calling for each costs small ones more than it gives."""
        return max(1, _NUMBERS_AT_ONCE // (size * math.prod(self.store.pixels.shape[1:])))
