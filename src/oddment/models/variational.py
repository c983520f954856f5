"""A variational autoencoder: its latent follows a known law on normal images, and what breaks it counts as odd too.

Source: Kingma and Welling, "Auto-encoding variational Bayes" (2013), equation 10; as an anomaly score An and Cho,
"Variational autoencoder based anomaly detection using reconstruction probability" (2015). The variance of the decoder
is the mean squared error itself, after Rybkin, Daniilidis and Levine, "Simple and effective VAE training with
calibrated decoders" (2021), section 3.2: no weight between reconstruction and divergence is left to be chosen.
Differs in scoring at the mean of the latent instead of samples of it, so that a score is not a matter of chance, and in
adding the divergence to the reconstruction, as in the bound that training descends on. The layers are conv-small's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from oddment.models._base import Autoencoder, Batch, Leftover, Passes, keras_start, sum_rows
from oddment.models._baseline import check_options
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models.convolutional import growing, shrinking

__all__ = ["VariationalAutoencoder"]

# Log variances beyond are rounding errors in the making.
_LOG_VARIANCES = (-12.0, 6.0)
# A decoder is never surer than to one level of eight bits.
_LEAST_VARIANCE = (1 / 255) ** 2


class VariationalAutoencoder(Autoencoder):
    """Two strided convolutions, mean and log variance of the latent, and the mirror image.

    Args:
        shape: channels, height and width of the images; height and width multiples of 4.
        latent_dim: numbers in the latent.
        filters: channels of the two stages.
    """

    variance: Tensor

    def __init__(self, shape: Shape, latent_dim: int, filters: tuple[int, int]) -> None:
        super().__init__()
        check_options(latent_dim=(latent_dim, 1))
        self.grid = (filters[1], shape.height // 4, shape.width // 4)
        flat = self.grid[0] * self.grid[1] * self.grid[2]
        self.encoder = nn.Sequential(*shrinking(shape.channels, filters))
        self.mean = nn.Linear(flat, latent_dim)
        self.log_variance = nn.Linear(flat, latent_dim)
        self.expand = nn.Sequential(nn.Linear(latent_dim, flat), nn.LeakyReLU(0.1))
        self.decoder = nn.Sequential(*growing(filters, shape.channels))
        self.apply(keras_start)
        self.register_buffer("variance", torch.ones(()))

    def encode(self, images: Tensor) -> Tensor:
        """Return the mean of the latent (N, latent_dim)."""
        mean: Tensor = self.mean(self.encoder(images))
        return mean

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) in [0, 1]."""
        reconstruction: Tensor = self.decoder(self.expand(latent).view(-1, *self.grid))
        return reconstruction

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (N, latent_dim) of the latent."""
        features = self.encoder(images)
        return self.mean(features), self.log_variance(features).clamp(*_LOG_VARIANCES)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return minus the evidence bound per real number, for a latent drawn at random."""
        mean, log_variance = self._posterior(batch.images)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        return _bound(batch, self.decode(mean + noise * (log_variance / 2).exp()), _divergence(mean, log_variance))

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the same for the mean of the latent."""
        mean, log_variance = self._posterior(batch.images)
        return _bound(batch, self.decode(mean), _divergence(mean, log_variance))

    def settle(self, *normal: Passes) -> None:
        """Measure the variance of the decoder on pictures that the weights did not descend on, where there are any."""
        self.eval()
        error = torch.zeros((), dtype=torch.float64)
        count = torch.zeros((), dtype=torch.float64)
        for batch in normal[-1]():
            squares = (self(batch.images) - batch.images).square() * batch.mask
            error, count = error + squares.double().sum(), count + batch.mask.double().sum() * squares.shape[1]
        self.variance.copy_((error / count).clamp_min(_LEAST_VARIANCE))

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction, latent and score, in nats per real number.

        The map is the squared error over twice the decoder's variance; the score its mean plus the divergence of the
        latent from its law, spread over the real numbers.
        """
        mean, log_variance = self._posterior(batch.images)
        reconstruction = self.decode(mean)
        anomaly_map = (batch.images - reconstruction).square().mean(1) / (2 * self.variance)
        area = batch.mask.flatten(1).sum(1)  # whole numbers: exact in any order
        explained = sum_rows((anomaly_map * batch.mask[:, 0]).flatten(1))[:, 0] / area
        divergence = _divergence(mean, log_variance) / (area * int(reconstruction.shape[1]))
        return Leftover(anomaly_map, reconstruction, mean, explained + divergence)


def _divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence (N,) of a Gaussian with these moments (N, L) from the standard one."""
    return sum_rows(mean.square() + log_variance.exp() - log_variance - 1)[:, 0] / 2


def _bound(batch: Batch, reconstruction: Tensor, divergence: Tensor) -> Tensor:
    """Minus the evidence bound per real number, up to a constant, with the variance of the decoder that is best."""
    channels = reconstruction.shape[1]
    numbers = batch.mask.sum() * channels
    error = ((reconstruction - batch.images).square() * batch.mask).sum() / numbers
    return error.clamp_min(_LEAST_VARIANCE).log() / 2 + divergence.sum() / numbers


register(
    ModelSpec(
        name="variational",
        summary="variational, convolutional: squared error and divergence of the latent; images up to about 96 pixels",
        build=lambda shape, latent_dim, filters: VariationalAutoencoder(shape, latent_dim, tuple(filters)),
        stride=4,
        options={"latent_dim": 32, "filters": (32, 64)},
        learning_rate=2e-3,
        batch_size=64,
        steps=2500,
        scoring_batch=32,
    )
)
