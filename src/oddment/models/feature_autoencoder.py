"""A convolutional autoencoder on the features of a network that others trained; photographs, learnt by descent.

What it reconstructs are features without half of their picture's mean, of unit length, through a grid of few channels;
in training, rectangles of them are spoilt and the clean ones wanted. A small head draws the picture that people look
at, from a layer that it must not change.

Source: reconstructed features after Shi, Yang and Qi, "Unsupervised anomaly segmentation via deep feature
reconstruction" (2021); denoising after Vincent et al., "Extracting and composing robust features with denoising
autoencoders" (2008); what is spoilt as in `photograph`. Differs in the network, in unit length, and in exposure, which
is divided out before anything looks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._backbones import STRIDE, load_backbone
from oddment.models._base import Autoencoder, Batch, Leftover, Passes
from oddment.models._baseline import check_options
from oddment.models._frames import Light, frame_size, light, onto_canvas, rectangle, to_frame, without_margin
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models.photograph import corrupt

__all__ = ["FeatureAutoencoder"]

_SIDE = 256
_MARGIN = 32  # pixels of reflection around a frame, whose features are cut off
_OWN = 0.5  # share of a picture's own mean feature that is taken off
_CELL = 8  # pixels along a side that the drawing has for each cell
_LEAST_SPREAD = 1e-3


class FeatureAutoencoder(Autoencoder):
    """Frozen features, two convolutions, a grid of latents, two convolutions, features.

    Args:
        shape: channels, height and width of the images.
        backbone: as for `feature-memory`.
        hidden: channels before and after the latent.
        latent_channels: channels of the latent grid.
    """

    pooled_share = 0.15

    centre: Tensor
    spread: Tensor

    def __init__(self, shape: Shape, *, backbone: str, hidden: int, latent_channels: int) -> None:
        super().__init__()
        check_options(hidden=(hidden, 1), latent_channels=(latent_channels, 1))
        self.shape = shape
        self.network = load_backbone(backbone)
        self.size = frame_size(shape.height, shape.width, _SIDE, STRIDE)
        self.grid = (latent_channels, self.size[0] // STRIDE, self.size[1] // STRIDE)
        width = self.network.deepest
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.encoder = nn.Sequential(
            nn.Conv2d(width, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, hidden, 3, 1, 1), nn.ReLU()
        )
        self.features_head = nn.Conv2d(hidden, width, 1)
        self.picture_head = nn.Conv2d(hidden, shape.channels * _CELL * _CELL, 1)

    # --- the way through: picture, features, latent, features

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the network's features (N, D, h, w)."""
        even = light(batch.images, batch.mask).even(batch.images)
        *_, deepest = self.network(to_frame(even, rectangle(batch.mask), self.size, _MARGIN))
        return (without_margin(deepest, _MARGIN // STRIDE),)

    def _clean(self, batch: Batch) -> Tensor:
        """Return features (N, D, h, w) without half of their picture's mean, each of length √D."""
        features = batch.inputs[0] if batch.inputs else self.inputs(batch)[0]
        values = (features - self.centre.view(1, -1, 1, 1)) / self.spread.view(1, -1, 1, 1)
        values = values - _OWN * values.mean((2, 3), keepdim=True)
        unit: Tensor = F.normalize(values, dim=1)
        return unit * math.sqrt(len(self.centre))

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the latent (N, L): the grid, then the exposure that the picture is redrawn with.

        Args:
            images: (N, C, H, W).
            mask: (N, 1, H, W), 1 on real pixels; everything where it is None.
        """
        mask = torch.ones_like(images[:, :1]) if mask is None else mask
        return _latent(self.encoder(self._clean(Batch(images, mask))), light(images, mask))

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture (N, C, H, W), as large as the canvas, for a latent (N, L)."""
        lit = Light(latent[:, -2].view(-1, 1, 1, 1), latent[:, -1].view(-1, 1, 1, 1))
        drawn = self._draw(self.decoder(latent[:, :-2].reshape(-1, *self.grid)))
        size = (self.shape.height, self.shape.width)
        return lit.restore(F.interpolate(drawn, size=size, mode="bilinear", align_corners=False))

    def _draw(self, hidden: Tensor) -> Tensor:
        """Return the small, evenly exposed picture (N, C, 8 · h, 8 · w) that people look at."""
        return F.pixel_shuffle(self.picture_head(hidden), _CELL)

    # --- training

    def begin(self, training: Passes) -> None:
        """Measure mean and deviation of each channel over training pictures."""
        moments, count = torch.zeros(2, len(self.centre), dtype=torch.float64), 0
        for batch in training():
            values = (batch.inputs[0] if batch.inputs else self.inputs(batch)[0]).cpu().double()
            moments += torch.stack([values.mean((2, 3)).sum(0), values.square().mean((2, 3)).sum(0)])
            count += len(values)
        mean, squares = moments / count
        self.centre.copy_(mean)
        self.spread.copy_((squares - mean.square()).clamp_min(0).sqrt().clamp_min(_LEAST_SPREAD))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the squared error of the clean features given spoilt ones, plus that of the drawing."""
        clean = self._clean(batch)
        hidden = self.decoder(self.encoder(corrupt(clean, generator)))
        lit, where = light(batch.images, batch.mask), rectangle(batch.mask)
        picture = to_frame(lit.even(batch.images), where, (_CELL * self.grid[1], _CELL * self.grid[2]))
        # The head for people must not decide what the network learns: it draws from a detached layer.
        drawn = (self._draw(hidden.detach()) - picture).square().mean()
        wrong: Tensor = (self.features_head(hidden) - clean).square().mean()
        return wrong + drawn

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the squared error of the features, nothing spoilt."""
        clean = self._clean(batch)
        wrong: Tensor = (self.features_head(self.decoder(self.encoder(clean))) - clean).square().mean()
        return wrong

    # --- scoring

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent; the map is the mean squared error of a cell's features."""
        where, lit = rectangle(batch.mask), light(batch.images, batch.mask)
        height, width = self.shape.height, self.shape.width
        clean = self._clean(batch)
        grid = self.encoder(clean)
        hidden = self.decoder(grid)
        cells = (self.features_head(hidden) - clean).square().mean(1, keepdim=True)
        picture = lit.restore(onto_canvas(self._draw(hidden), where, height, width))
        return Leftover(onto_canvas(cells, where, height, width)[:, 0], picture, _latent(grid, lit))


def _latent(grid: Tensor, lit: Light) -> Tensor:
    return torch.cat([grid.flatten(1), lit.level.flatten(1), lit.contrast.flatten(1)], 1)


register(
    ModelSpec(
        name="feature-autoencoder",
        summary="convolutional, on the features of a pretrained network (extra: features); photographs",
        build=FeatureAutoencoder,
        stride=8,
        side=256,
        options={"backbone": "efficientnet-lite0", "hidden": 192, "latent_channels": 48},
        learning_rate=2e-3,
        batch_size=16,
        steps=1500,
        draws=False,
        scoring_batch=1,
    )
)
