"""What every autoencoder of the registry is: an `nn.Module` that encodes, decodes and says what is left over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "AnyLength",
    "Autoencoder",
    "Batch",
    "Leftover",
    "Passes",
    "channel_mean",
    "keras_start",
    "masked_mean",
    "sum_rows",
    "valid_mask",
]


class Batch(NamedTuple):
    """One batch of training images.

    Args:
        images: float32 (N, C, H, W), nominally in [0, 1].
        mask: float32 (N, 1, H, W), 1 on real pixels and 0 on padding.
        inputs: what `Autoencoder.inputs` made of the batch, kept from an earlier pass; empty where nothing was kept.
    """

    images: Tensor
    mask: Tensor
    inputs: tuple[Tensor, ...] = ()


_REGISTER = 16  # float32 in the widest

# A fresh pass over pictures each time it is called.
Passes: TypeAlias = "Callable[[], Iterator[Batch]]"


class Leftover(NamedTuple):
    """What scoring needs of one batch.

    Args:
        anomaly_map: (N, H, W), higher is more anomalous.
        reconstruction: (N, C, H, W) in the unit of the images.
        latent: (N, latent_dim).
        score: (N,), higher is more anomalous, of a model whose score is not the pool of its map; None for the pool.
    """

    anomaly_map: Tensor
    reconstruction: Tensor
    latent: Tensor
    score: Tensor | None = None


class AnyLength(nn.Module):
    """A module whose buffers have whatever length fitting gave them: it takes them as they were kept."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
        for name in self._buffers:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Autoencoder(nn.Module):
    """Base of all models. A subclass gives `encode` and `decode`; the rest has a usual form that it may replace.

    Attributes:
        pooled_share: the image score is the mean of this share of the largest map values; 1.0 is the plain mean.
        notes: what fitting left out, in sentences for the model card.
        choices: what fitting chose by these images, and why, in clauses.
    """

    pooled_share: float = 1.0
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, latent_dim) of images (N, C, H, W)."""
        raise NotImplementedError

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) of a latent (N, latent_dim)."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W) of images (N, C, H, W)."""
        return self.decode(self.encode(images))

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:  # noqa: ARG002 - for models with a fixed front end
        """Return what neither chance nor learning changes, each (N, ...): computed once a picture, kept as float16.

        It comes back as `batch.inputs`, empty where it was too large to keep; the usual model has nothing of the kind.
        """
        return ()

    def begin(self, training: Passes) -> None:
        """Measure what the first step needs to know; the usual model needs nothing.

        Args:
            training: passes over training pictures, a sample where they are many.
        """

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - for models that corrupt
        """Return the training loss, a scalar: the mean squared error over real pixels.

        Args:
            batch: images and mask.
            generator: the only source of chance a model may draw from, so that a seed fixes the run.
        """
        return masked_mean((self(batch.images) - batch.images).square().mean(1, keepdim=True), batch.mask)

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the loss that early stopping watches, a scalar without chance in it."""
        return masked_mean((self(batch.images) - batch.images).square().mean(1, keepdim=True), batch.mask)

    def settle(self, *normal: Passes) -> None:
        """Fit what is computed rather than descended to, after the last step; the usual model has nothing of the kind.

        Args:
            normal: passes over normal pictures, those that the weights descended on before those that they did not.
        """

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent; the usual map is the squared error, mean over channels."""
        latent = self.encode(batch.images)
        reconstruction = self.decode(latent)
        return Leftover(channel_mean((batch.images - reconstruction).square()), reconstruction, latent)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the scalar mean of values (N, 1, H, W) where mask (N, 1, H, W) is 1."""
    if is_whole(mask):
        return values.mean()
    return (values * mask).sum() / mask.sum()


def whole_mask(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Return the mask (count, 1, height, width) of pictures without padding: a single 1, seen everywhere; read only."""
    return torch.ones(1, 1, 1, 1, device=device).expand(count, 1, height, width)


def is_whole(mask: Tensor) -> bool:
    """Return whether a mask is known to be that of pictures without padding, by how it lies in memory."""
    return mask.numel() > 1 and not any(step for step, size in zip(mask.stride(), mask.shape, strict=True) if size > 1)


def sum_rows(values: Tensor) -> Tensor:
    """Return sums (..., 1) over the last axis, the same to the bit wherever a row lies in a batch.

    ONNX Runtime adds a row up in lanes from the first address that fits its registers. Rows whose length is no multiple
    of a register start at other places within one, and are added in another order; zeros at their end mend that.
    """
    missing = -int(values.shape[-1]) % _REGISTER
    return (F.pad(values, (0, missing)) if missing else values).sum(-1, keepdim=True)


def channel_mean(values: Tensor) -> Tensor:
    """Return the mean over channels (N, H, W) of values (N, C, H, W), which of a single channel is that channel."""
    return values.flatten(1, 2) if int(values.shape[1]) == 1 else values.mean(1)


def valid_mask(valid: Tensor, height: int, width: int) -> Tensor:
    """Return float32 (N, 1, height, width), 1 inside each (top, left, bottom, right) of valid, else 0."""
    top, left, bottom, right = (valid[:, i].view(-1, 1, 1, 1) for i in range(4))
    rows = torch.arange(height, device=valid.device).view(1, 1, -1, 1)
    columns = torch.arange(width, device=valid.device).view(1, 1, 1, -1)
    # A matrix product of a column and a row: the quickest form of it on CPUs, and exact.
    return ((rows >= top) & (rows < bottom)).float() @ ((columns >= left) & (columns < right)).float()


def keras_start(module: nn.Module) -> None:
    """Start dense and convolution kernels from Glorot uniform and biases from zero, as Keras does.

    Source:
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010), eq. 16.
    """
    if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
