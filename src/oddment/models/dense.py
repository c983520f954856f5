"""Dense autoencoders: every pixel is an input of its own, nothing knows what is beside what.

Source: the `autoencoder` (784-64-784) of reference system 1, otenim's AnomalyDetectionUsingAutoencoder (2019). Same
layers, same start, any image size.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import Tensor, nn

from oddment.models._base import Autoencoder, keras_start
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DenseAutoencoder"]


class DenseAutoencoder(Autoencoder):
    """Flatten, a stack of dense ReLU layers down to the latent and back, a sigmoid at the end.

    Args:
        shape: channels, height and width of the images.
        hidden: widths from the first layer down to the latent, such as (64,) or (128, 64); the decoder mirrors them.
    """

    def __init__(self, shape: Shape, hidden: Sequence[int]) -> None:
        super().__init__()
        self.shape = shape
        down = [shape.pixels, *hidden]
        up = down[::-1]
        self.encoder = nn.Sequential(*[layer for i, o in pairwise(down) for layer in (nn.Linear(i, o), nn.ReLU())])
        inner = [layer for i, o in pairwise(up[:-1]) for layer in (nn.Linear(i, o), nn.ReLU())]
        self.decoder = nn.Sequential(*inner, nn.Linear(up[-2], up[-1]), nn.Sigmoid())
        self.apply(keras_start)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, hidden[-1])."""
        latent: Tensor = self.encoder(images.flatten(1))
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1]."""
        flat: Tensor = self.decoder(latent)
        return flat.view(-1, self.shape.channels, self.shape.height, self.shape.width)


register(
    ModelSpec(
        name="dense",
        summary="one hidden layer of 64 (reference system 1); tiny images, or rows of numbers",
        build=DenseAutoencoder,
        options={"hidden": (64,)},
        learning_rate=5e-3,  # at a thousandth, twice as many steps were needed to the same loss (docs/performance.md)
        batch_size=64,
        steps=6000,
        scoring_batch=128,
    )
)
