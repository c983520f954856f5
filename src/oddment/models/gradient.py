"""A dense autoencoder on gradient features that has to fill in what it is not shown; small pictures, no memory.

In training a random rectangle of cells is hidden, and in half of the pictures another one is replaced by cells of
another normal picture without saying so. In scoring nine fixed windows are hidden one after the other, each guessed
from everything around it; what is left over is the error inside the windows. Shown everything, such a network also
reconstructs much that it never saw, such as a nine after all other digits; a hidden part it cannot copy.

Source: inpainting as a task after Pathak et al., "Context encoders: feature learning by inpainting" (2016); as a score
after Zavrtanik, Kristan and Skočaj, "Reconstruction by inpainting for visual anomaly detection" (2021), section 3;
denoising after Vincent et al., "Extracting and composing robust features with denoising autoencoders" (2008).
Differs in fixed gradient features instead of pixels, which make a dense network of two layers enough, and in nine
windows of a good sixth of the picture instead of random sets of squares.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oddment.models._base import Autoencoder, Batch, Leftover, Passes, sum_rows
from oddment.models._baseline import check_options
from oddment.models._gradients import GradientFeatures, fit_pixels
from oddment.models._registry import ModelSpec, Shape, register

__all__ = ["GradientAutoencoder"]

_GAIN = 10.0  # brings features of a vector of unit length to about 1
_WINDOW = 3 / 7  # of each side, that is hidden at once in scoring
_STARTS = 3  # windows along each side
_SMALLEST, _LARGEST = 0.2, 0.65  # of each side, of rectangles hidden in training
_SEEN_ALL = 0.125  # share of training pictures with nothing hidden
_SPOILT = 0.5  # share of training pictures with cells of another one
_VISIBLE_WEIGHT = 0.5  # of the error over all cells, beside the one over hidden cells
_MOST_DRAWN = 4000  # pictures that the drawing is fitted to


class GradientAutoencoder(Autoencoder):
    """Features and hidden cells in, a hidden layer, the latent, a hidden layer, features out.

    Args:
        shape: channels, height and width of the images.
        hidden: width of the layers before and after the latent.
        latent_dim: numbers in the latent.
        power: of the gradients, see `GradientFeatures`.
    """

    centre: Tensor
    windows: Tensor
    canvas: Tensor
    strokes: Tensor

    def __init__(self, shape: Shape, *, hidden: int, latent_dim: int, power: float) -> None:
        super().__init__()
        check_options(hidden=(hidden, 1), latent_dim=(latent_dim, 1))
        self.shape = shape
        self.gradients = GradientFeatures(shape, power)
        width, cells = self.gradients.width, self.gradients.grid[0] * self.gradients.grid[1]
        self.encoder = nn.Sequential(nn.Linear(width + cells, hidden), nn.ReLU(), nn.Linear(hidden, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.register_buffer("centre", torch.zeros(1, width))
        self.register_buffer("windows", _windows(*self.gradients.grid), persistent=False)
        self.register_buffer("canvas", torch.full((1, shape.pixels), 0.5))
        self.register_buffer("strokes", torch.zeros(shape.pixels, latent_dim))

    # --- the way through

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, latent_dim) of images without padding, nothing hidden."""
        return self._latent(self._scaled(self.gradients(images, torch.ones_like(images[:, :1]))))

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture (N, C, H, W) that a latent stands for, by a linear map fitted after training."""
        flat = self.canvas + nn.functional.linear(latent, self.strokes)
        return flat.view(-1, self.shape.channels, self.shape.height, self.shape.width)

    def _scaled(self, features: Tensor) -> Tensor:
        return (features - self.centre) * _GAIN

    def _latent(self, features: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Return the latent of features (N, F) with cells hidden (N, cells) 1 or 0; with none where it is None."""
        if hidden is None:
            hidden = torch.zeros_like(features[:, : self.windows.shape[1]])
        latent: Tensor = self.encoder(torch.cat([features * (1 - self._per_feature(hidden)), hidden], 1))
        return latent

    def _per_feature(self, cells: Tensor) -> Tensor:
        """Return (N, F): the value of its cell (N, cells) for every feature."""
        return cells.repeat(1, self.gradients.maps)

    # --- training

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the features (N, F)."""
        return (self.gradients(batch.images, batch.mask),)

    def begin(self, training: Passes) -> None:
        """Measure the mean of each feature."""
        total, count = torch.zeros_like(self.centre[0]), 0
        for batch in training():
            total, count = total + self._features(batch).sum(0), count + len(batch.images)
        self.centre.copy_(total[None] / count)

    def _features(self, batch: Batch) -> Tensor:
        return batch.inputs[0] if batch.inputs else self.inputs(batch)[0]

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the squared error in hidden cells and, with less weight, everywhere."""
        clean = self._scaled(self._features(batch))
        hidden = _rectangles(len(clean), self.gradients.grid, _SEEN_ALL, generator).to(clean.device)
        spoilt = _rectangles(len(clean), self.gradients.grid, 1 - _SPOILT, generator).to(clean.device)
        donor = torch.randperm(len(clean), generator=generator).to(clean.device)
        shown = torch.where(self._per_feature(spoilt) > 0, clean[donor], clean)
        error = (self.decoder(self._latent(shown, hidden)) - clean).square()
        inside = self._per_feature(hidden)
        wrong: Tensor = (error * inside).sum() / inside.sum().clamp_min(1) + _VISIBLE_WEIGHT * error.mean()
        return wrong

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the mean squared error of the windows."""
        wrong: Tensor = self._guess(self._scaled(self._features(batch))).mean()
        return wrong

    def settle(self, *normal: Passes) -> None:
        """Fit pictures to latents, for people to look at."""
        self.eval()
        latents, pictures, count = [], [], 0
        for batch in normal[0]():
            latents.append(self._latent(self._scaled(self._features(batch))))
            pictures.append((batch.images * batch.mask).flatten(1))
            count += len(batch.images)
            if count >= _MOST_DRAWN:
                break
        canvas, strokes = fit_pixels(torch.cat(latents), torch.cat(pictures))
        self.canvas.copy_(canvas)
        self.strokes.copy_(strokes)

    # --- scoring

    def _guess(self, features: Tensor) -> Tensor:
        """Return the squared error (N, cells) of each cell, mean over the windows that hide it."""
        shown = features[:, None] * (1 - self._per_feature(self.windows))
        # The shape, not the length: a trace takes a length for a constant.
        hidden = self.windows[None].expand(features.shape[0], -1, -1)
        guessed: Tensor = self.decoder(self.encoder(torch.cat([shown, hidden], 2)))
        error = (guessed - features[:, None]).square()
        every = error.view(-1, len(self.windows), self.gradients.maps, self.windows.shape[1]).sum(2)
        wrong: Tensor = (every * self.windows).sum(1) / self.windows.sum(0)
        return wrong

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent; the mean of the map is the mean squared error of hidden cells."""
        features = self._scaled(self._features(batch))
        latent, cells = self._latent(features), self._guess(features)
        anomaly_map = self.gradients.spread(cells, sum_rows(cells)[:, 0] / cells.shape[1], batch.mask)
        return Leftover(anomaly_map, self.decode(latent), latent)


def _windows(rows: int, columns: int) -> Tensor:
    """Return float32 (W, rows · columns): overlapping windows that together hide every cell."""
    down, across = _spans(rows), _spans(columns)
    return (down[:, None, :, None] * across[None, :, None, :]).reshape(-1, rows * columns)


def _spans(length: int) -> Tensor:
    size = max(1, round(_WINDOW * length), -(-length // _STARTS))
    starts = sorted({round(step * (length - size) / (_STARTS - 1)) for step in range(_STARTS)})
    place = torch.arange(length)
    return torch.stack([((place >= start) & (place < start + size)).float() for start in starts])


def _rectangles(count: int, grid: tuple[int, int], none: float, generator: torch.Generator) -> Tensor:
    """Return float32 (N, cells), 1 in a random rectangle of each picture; in a share of them, nowhere."""
    chance = torch.rand(5, count, 1, generator=generator)
    spans = []
    for size, start, length in zip(chance[:2], chance[2:4], grid, strict=True):
        extent = (length * (_SMALLEST + (_LARGEST - _SMALLEST) * size)).round().clamp_min(1)
        first = (start * (length - extent + 1)).floor()
        place = torch.arange(length)
        spans.append((place >= first) & (place < first + extent))
    inside = spans[0][:, :, None] & spans[1][:, None, :] & (chance[4] >= none)[:, :, None]
    cells: Tensor = inside.flatten(1).float()
    return cells


register(
    ModelSpec(
        name="gradient-autoencoder",
        summary="dense, on gradient features, fills in hidden windows; small images",
        build=GradientAutoencoder,
        side=64,
        options={"hidden": 512, "latent_dim": 128, "power": 0.5},
        learning_rate=2e-3,
        batch_size=128,
        steps=1200,
        epochs=(4, 200),
        draws=False,
        scoring_batch=64,
    )
)
