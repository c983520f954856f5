"""What the training loop eats: batches from the store, with whatever a model computes of them once and for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from oddment.models import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.models import Autoencoder
    from oddment.training.store import PixelStore

__all__ = ["Feed"]

# What the inputs of all pictures may take; beyond, the model computes them anew in each step.
CACHE_BYTES = int(1.5 * 1024**3)


class Feed:
    """Batches of one store for one model.

    Args:
        model: asked for its `inputs` the first time that a picture is gathered.
        store: the prepared pictures.
        device: where batches go.
        limit: most bytes that cached inputs may take.
    """

    def __init__(self, model: Autoencoder, store: PixelStore, device: torch.device, limit: int = CACHE_BYTES) -> None:
        self.model, self.store, self.device, self.limit = model, store, device, limit
        self.valid = store.valid
        self._known = np.zeros(len(store), dtype=bool)
        # One float16 tensor an input, a row a picture; None before the first batch, empty where nothing is kept.
        self._cache: tuple[torch.Tensor, ...] | None = None

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """Return the pictures with these indices as one batch."""
        batch = self.store.gather(indices, self.valid, self.device)
        if self._cache == ():
            return batch
        self._learn(indices, batch)
        rows = torch.from_numpy(indices)
        return batch._replace(inputs=tuple(kept[rows].to(self.device, torch.float32) for kept in self._cache or ()))

    def passes(self, indices: NDArray[np.int64], size: int) -> Iterator[Batch]:
        """Yield all pictures with these indices, in order, in batches of `size`."""
        for start in range(0, len(indices), size):
            yield self.gather(indices[start : start + size])

    @torch.no_grad()
    def _learn(self, indices: NDArray[np.int64], batch: Batch) -> None:
        """Compute and keep the inputs of pictures that have not been seen before."""
        new = np.flatnonzero(~self._known[indices])
        if not new.size:
            return
        rows = torch.from_numpy(new).to(self.device)
        inputs = self.model.inputs(Batch(batch.images[rows], batch.mask[rows]))
        if self._cache is None:
            self._cache = self._allocate(inputs)
        for kept, values in zip(self._cache, inputs, strict=bool(self._cache)):
            kept[torch.from_numpy(indices[new])] = values.to("cpu", torch.float16)
        self._known[indices[new]] = True

    def _allocate(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        picture = sum(2 * values[0].numel() for values in inputs)  # bytes
        if picture * len(self.store) > self.limit:
            return ()
        # Memory is taken when a row is written: pictures that only calibrate cost nothing.
        return tuple(torch.empty((len(self.store), *values.shape[1:]), dtype=torch.float16) for values in inputs)
