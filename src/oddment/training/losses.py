"""Losses by name: the model's own, mean squared error, binary cross-entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from oddment.models._base import masked_mean

if TYPE_CHECKING:
    import torch

    from oddment.models import Autoencoder, Batch

__all__ = ["EPSILON", "LossName", "binary_cross_entropy", "training_loss", "validation_loss"]

LossName = Literal["model", "mse", "bce"]

EPSILON = 1e-7
"""How far from 0 and 1 predictions are kept in a cross-entropy."""


def training_loss(model: Autoencoder, batch: Batch, generator: torch.Generator, name: LossName) -> torch.Tensor:
    """Return the scalar to descend on: the model's own loss, which may corrupt its input, or a plain one by name."""
    return model.loss(batch, generator) if name == "model" else _plain(model, batch, name)


def validation_loss(model: Autoencoder, batch: Batch, name: LossName) -> torch.Tensor:
    """Return the scalar that early stopping watches, without chance in it."""
    return model.validation_loss(batch) if name == "model" else _plain(model, batch, name)


def _plain(model: Autoencoder, batch: Batch, name: LossName) -> torch.Tensor:
    reconstruction = model(batch.images)
    if name == "bce":
        values = binary_cross_entropy(reconstruction, batch.images)
    else:
        values = (reconstruction - batch.images).square()
    return masked_mean(values.mean(1, keepdim=True), batch.mask)


def binary_cross_entropy(reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of each number, in the shape of the images.

    Source: Keras 3.15, `binary_crossentropy`: predictions are kept 1e-7 away from 0 and 1, where torch's own loss keeps
    the logarithm above -100 instead.

    Args:
        reconstruction: in [0, 1].
        images: in [0, 1].
    """
    predicted = reconstruction.clamp(EPSILON, 1 - EPSILON)
    return -(images * predicted.log() + (1 - images) * (1 - predicted).log())
