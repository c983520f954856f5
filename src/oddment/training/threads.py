"""How many threads a training step gains from.

A second thread has to be woken for each operation of a step: tens of microseconds, which the operations of a small
dense network do not last. The choice goes by the size of the step and not by a race, whose end could change from run to
run: the same seed must give the same scores.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oddment.models import Autoencoder

__all__ = ["gains_from_threads", "threads_for"]

# Operations of a step, forward and back, below which one thread is faster. (dense, batch 64: 39 million.)
_LEAST = 400e6


def gains_from_threads(model: Autoencoder, batch_size: int) -> bool:
    """Return whether a training step of this model is large enough to be shared between threads.

    Only what dense layers alone make up is ever small: a convolution uses each of its weights once a pixel.
    """
    layers = [layer for layer in model.modules() if not any(True for _ in layer.children())]
    if any(next(layer.parameters(), None) is not None and not isinstance(layer, nn.Linear) for layer in layers):
        return True
    # A product and a sum for each weight and picture, forward, and twice as many back.
    return 6 * batch_size * sum(parameter.numel() for parameter in model.parameters()) > _LEAST


@contextmanager
def threads_for(model: Autoencoder, batch_size: int, device: torch.device) -> Iterator[None]:
    """Train with one thread in this block where more would only slow it down."""
    before = torch.get_num_threads()
    if device.type != "cpu" or before == 1 or gains_from_threads(model, batch_size):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
