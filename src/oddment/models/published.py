"""The networks of the five reference systems, equal to their Keras originals layer by layer and number by number.

Sources:
    1. otenim, AnomalyDetectionUsingAutoencoder (2019): `dense` with its defaults, `dense-deep`, `conv-pooling`.
    2. ReNom's anomaly detection tutorial: `dense` with `hidden=(32,)`, the layers that reproduce its published losses.
    3. An industrial-AI lecture notebook on autoencoders and anomaly detection: `latent-plane`.
    4. An article on Medium about anomalies in DeepWeeds: `conv-strided-deep`.
    5. Rosebrock, "Anomaly detection with Keras, TensorFlow, and Deep Learning", PyImageSearch (2020): `conv-strided`.

Weights copied from Keras with `load_keras_weights` give the same latents and reconstructions within 1e-5, of any size
and depth that the original allows; `_keras.py` says how padding, order, start and batch normalisation are matched.

Differs in that sizes which the originals can build and not train, since the reconstruction would come out larger than
the image, are refused; in that `latent-plane` takes other sizes than 28×28: its last encoder kernel covers the whole
grid, 7×7 there; and in that every latent is a row, in Keras's order.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oddment.errors import ParameterError
from oddment.models._base import Autoencoder, keras_start
from oddment.models._keras import FlattenLast, SameConv2d, SameConvTranspose2d, UnflattenLast, keras_batch_norm
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models._stages import run_stages
from oddment.models.dense import DenseAutoencoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oddment.models._base import Passes

__all__ = ["LatentPlaneAutoencoder", "PoolingAutoencoder", "StridedAutoencoder"]


# The darkest start: a sigmoid learns from here in any case.
_DARKEST = 0.02


def _check(shape: Shape, halvings: int, widths: dict[str, Sequence[int]]) -> None:
    """Refuse layers without channels, and sizes that do not come back after halving and doubling."""
    problems = [
        f"{name} must be whole numbers of at least 1; got {tuple(values)!r}."
        for name, values in widths.items()
        if not values or not all(isinstance(value, int) and value >= 1 for value in values)
    ]
    multiple = 2**halvings
    if shape.height % multiple or shape.width % multiple:
        size = tuple(-(-length // multiple) * multiple for length in (shape.height, shape.width))
        problems.append(
            f"height and width are halved {halvings} times and must be multiples of {multiple}; got "
            f"{shape.height}×{shape.width}. Set size={size}, or give fewer filters."
        )
    if problems:
        raise ParameterError(" ".join(problems))


class PoolingAutoencoder(Autoencoder):
    """System 1's `convolutional_autoencoder`: convolutions with max pooling between them, nearest upsampling back.

    Its latent keeps the grid of the image, which makes it redraw anomalies too well: system 1's own finding.

    Args:
        shape: channels, height and width of the images; height and width multiples of 4 for three filters.
        filters: channels of the convolutions down to the latent, 12,201 parameters for (32, 16, 8) on 28×28×1.
        start: what the last layer draws before anything is learnt: the "mean" of the training pictures' pixels, or
            mid-"gray", as the original does. From there, with Adam and pictures that are mostly black, it soon draws
            nothing but black, where the sigmoid has no slope left to learn by.
    """

    def __init__(self, shape: Shape, filters: Sequence[int] = (32, 16, 8), start: str = "mean") -> None:
        super().__init__()
        if start not in ("mean", "gray"):
            msg = f"start must be mean or gray; got {start!r}."
            raise ParameterError(msg)
        self.start = start
        halvings = len(filters) - 1
        _check(shape, halvings, {"filters": filters})
        encoder: list[nn.Module] = [SameConv2d(shape.channels, filters[0], 3), nn.ReLU()]
        for above, below in pairwise(filters):
            encoder += [nn.MaxPool2d(2), SameConv2d(above, below, 3), nn.ReLU()]
        self.encoder = nn.Sequential(*encoder, FlattenLast())
        grid = (shape.height // 2**halvings, shape.width // 2**halvings)
        decoder: list[nn.Module] = [UnflattenLast(filters[-1], *grid)]
        for below, above in pairwise(filters[::-1]):
            decoder += [nn.Upsample(scale_factor=2, mode="nearest"), SameConv2d(below, above, 3), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, SameConv2d(filters[0], shape.channels, 3), nn.Sigmoid())
        self.apply(keras_start)

    def begin(self, training: Passes) -> None:
        """Let the last layer start from the mean of the pictures, each channel by itself."""
        if self.start != "mean":
            return
        sums = [((images * mask).sum((0, 2, 3)), mask.sum()) for images, mask, *_ in training()]
        mean = torch.stack([total for total, _ in sums]).sum(0) / torch.stack([area for _, area in sums]).sum()
        [*_, last] = (layer for layer in self.decoder.modules() if isinstance(layer, nn.Conv2d))
        if last.bias is not None:
            last.bias.copy_(mean.clamp(_DARKEST, 1 - _DARKEST).logit())

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, H/4 · W/4 · filters[-1]): the last feature map, flattened as Keras would."""
        return run_stages(self.encoder, images)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1]."""
        return run_stages(self.decoder, latent)


class LatentPlaneAutoencoder(Autoencoder):
    """System 3: two strided convolutions and one over all that is left, to two numbers that can be drawn as a plane.

    The reconstruction is linear in the end, so that it may leave [0, 1].

    Args:
        shape: channels, height and width of the images; height and width multiples of 4.
        latent_dim: width of the bottleneck; 25,090 + 26,369 parameters for 2 on 28×28×1.
    """

    def __init__(self, shape: Shape, latent_dim: int = 2) -> None:
        super().__init__()
        _check(shape, 2, {"latent_dim": [latent_dim]})
        # 7×7 for the published 28×28.
        grid = (shape.height // 4, shape.width // 4)
        self.encoder = nn.Sequential(
            SameConv2d(shape.channels, 32, 3, stride=2),
            nn.ReLU(),
            SameConv2d(32, 64, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, latent_dim, grid),
            FlattenLast(),
        )
        self.decoder = nn.Sequential(
            UnflattenLast(latent_dim, 1, 1),
            nn.ConvTranspose2d(latent_dim, 64, grid),
            nn.ReLU(),
            SameConvTranspose2d(64, 32, 3, stride=2),
            nn.ReLU(),
            SameConvTranspose2d(32, shape.channels, 7, stride=2),
        )
        self.apply(keras_start)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, latent_dim)."""
        latent: Tensor = self.encoder(images)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W), unbounded."""
        reconstruction: Tensor = self.decoder(latent)
        return reconstruction


class StridedAutoencoder(Autoencoder):
    """Systems 4 and 5, `ConvAutoencoder.build(width, height, depth, filters, latentDim)`: one network, two settings.

    Each stage is convolution, LeakyReLU, then batch normalisation, in this order; a dense latent without activation.

    Args:
        shape: channels, height and width of the images; height and width multiples of 2**len(filters).
        filters: channels of the stages.
        latent_dim: width of the bottleneck.
        slope: of LeakyReLU below zero; system 5 says 0.2, system 4 leaves Keras's 0.3.
    """

    def __init__(
        self, shape: Shape, filters: Sequence[int] = (32, 64), latent_dim: int = 16, slope: float = 0.2
    ) -> None:
        super().__init__()
        _check(shape, len(filters), {"filters": filters, "latent_dim": [latent_dim]})
        grid = (shape.height // 2 ** len(filters), shape.width // 2 ** len(filters))
        flat = filters[-1] * grid[0] * grid[1]
        encoder: list[nn.Module] = []
        for above, below in pairwise([shape.channels, *filters]):
            encoder += [SameConv2d(above, below, 3, stride=2), nn.LeakyReLU(slope), keras_batch_norm(below)]
        self.encoder = nn.Sequential(*encoder, FlattenLast(), nn.Linear(flat, latent_dim))
        decoder: list[nn.Module] = [nn.Linear(latent_dim, flat), UnflattenLast(filters[-1], *grid)]
        for below, above in pairwise([filters[-1], *filters[::-1]]):
            decoder += [SameConvTranspose2d(below, above, 3, stride=2), nn.LeakyReLU(slope), keras_batch_norm(above)]
        self.decoder = nn.Sequential(*decoder, SameConvTranspose2d(filters[0], shape.channels, 3), nn.Sigmoid())
        self.apply(keras_start)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, latent_dim)."""
        latent: Tensor = self.encoder(images)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1]."""
        reconstruction: Tensor = self.decoder(latent)
        return reconstruction


def _widths(filters: int | Sequence[int]) -> tuple[int, ...]:
    """What the command line makes of `filters=32,64`, and of `filters=32`."""
    return (filters,) if isinstance(filters, int) else tuple(filters)


def _strided(shape: Shape, *, filters: int | Sequence[int], latent_dim: int, slope: float) -> StridedAutoencoder:
    return StridedAutoencoder(shape, _widths(filters), latent_dim, slope)


register(
    ModelSpec(
        name="dense-deep",
        summary="two hidden layers down and up, 128 and 64 (system 1's deep_autoencoder); tiny images",
        build=lambda shape, hidden: DenseAutoencoder(shape, _widths(hidden)),
        options={"hidden": (128, 64)},
        learning_rate=3e-3,
        steps=6000,
        scoring_batch=64,
    )
)
register(
    ModelSpec(
        gains_from_bfloat16=True,
        name="conv-pooling",
        summary="convolutions with max pooling, latent a grid (system 1's convolutional_autoencoder); small images",
        build=lambda shape, filters, start: PoolingAutoencoder(shape, _widths(filters), start),
        stride=4,
        side=96,
        options={"filters": (32, 16, 8), "start": "mean"},
        learning_rate=4e-3,
    )
)
register(
    ModelSpec(
        name="latent-plane",
        summary="strided convolutions to a latent of two numbers, to be drawn (system 3); small images",
        build=LatentPlaneAutoencoder,
        stride=4,
        side=96,
        options={"latent_dim": 2},
        batch_size=32,
    )
)
register(
    ModelSpec(
        gains_from_bfloat16=True,
        name="conv-strided",
        summary="ConvAutoencoder, two strided stages and a dense latent of 16 (system 5); small images",
        build=_strided,
        stride=4,
        side=96,
        options={"filters": (32, 64), "latent_dim": 16, "slope": 0.2},
        batch_size=32,
    )
)
register(
    ModelSpec(
        gains_from_bfloat16=True,
        name="conv-strided-deep",
        summary="the same with three stages and a dense latent of 32 (system 4, DeepWeeds); photographs",
        build=_strided,
        stride=8,
        options={"filters": (16, 32, 64), "latent_dim": 32, "slope": 0.3},
        batch_size=32,
    )
)
