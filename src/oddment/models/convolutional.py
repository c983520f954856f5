"""A convolutional autoencoder for small images: digits, icons, crops up to about 96 pixels.

Source: the usual strided design of Masci, Meier, Cireşan and Schmidhuber, "Stacked Convolutional Auto-Encoders" (2011).
Differs in batch normalisation and in the dense bottleneck, which forces the whole image through one latent vector: a
bottleneck that keeps a spatial grid redraws anomalies too well.
"""

from __future__ import annotations

from torch import Tensor, nn

from oddment.models._base import Autoencoder, keras_start
from oddment.models._keras import SameConvTranspose2d
from oddment.models._registry import ModelSpec, Shape, register

__all__ = ["SmallConvolutionalAutoencoder", "growing", "shrinking"]


def shrinking(channels: int, filters: tuple[int, int]) -> list[nn.Module]:
    """Return the layers from images (N, channels, H, W) to features (N, filters[1] × H/4 × W/4)."""
    first, second = filters
    return [
        nn.Conv2d(channels, first, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(first),
        nn.LeakyReLU(0.1),
        nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(second),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
    ]


def growing(filters: tuple[int, int], channels: int) -> list[nn.Module]:
    """Return the layers from features (N, filters[1], H/4, W/4) to images (N, channels, H, W) in [0, 1]."""
    first, second = filters
    return [
        SameConvTranspose2d(second, first, 4, stride=2, bias=False),
        nn.BatchNorm2d(first),
        nn.LeakyReLU(0.1),
        SameConvTranspose2d(first, channels, 4, stride=2),
        nn.Sigmoid(),
    ]


class SmallConvolutionalAutoencoder(Autoencoder):
    """Two strided convolutions, a dense latent, and the mirror image.

    Args:
        shape: channels, height and width of the images; height and width multiples of 4.
        latent_dim: width of the bottleneck.
        filters: channels of the two stages.
    """

    def __init__(self, shape: Shape, latent_dim: int, filters: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (filters[1], shape.height // 4, shape.width // 4)
        flat = self.grid[0] * self.grid[1] * self.grid[2]
        self.encoder = nn.Sequential(*shrinking(shape.channels, filters), nn.Linear(flat, latent_dim))
        self.expand = nn.Sequential(nn.Linear(latent_dim, flat), nn.LeakyReLU(0.1))
        self.decoder = nn.Sequential(*growing(filters, shape.channels))
        self.apply(keras_start)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, latent_dim)."""
        latent: Tensor = self.encoder(images)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1]."""
        reconstruction: Tensor = self.decoder(self.expand(latent).view(-1, *self.grid))
        return reconstruction


register(
    ModelSpec(
        name="conv-small",
        summary="convolutional, one dense latent; images up to about 96 pixels",
        build=lambda shape, latent_dim, filters: SmallConvolutionalAutoencoder(shape, latent_dim, tuple(filters)),
        stride=4,
        options={"latent_dim": 32, "filters": (32, 64)},
        learning_rate=2e-3,
        batch_size=64,
        steps=2500,
        gains_from_bfloat16=True,
        scoring_batch=32,
    )
)
