"""What models of gradient features share: codes along principal directions, and the pictures that codes stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor

from oddment.models._base import AnyLength, Autoencoder
from oddment.models._gaussians import Gaussians

if TYPE_CHECKING:
    from oddment.models._gradients import GradientFeatures
    from oddment.models._registry import Shape

__all__ = ["GradientCodes"]


class GradientCodes(AnyLength, Autoencoder):
    """Base of models that look at the principal components of gradient features.

    Attributes:
        shape: channels, height and width of the images.
        gradients: the features.
        centre: (1, W), their mean.
        basis: (K, W), principal directions.
        canvas: (1, P), the picture of the code 0.
        strokes: (P, K), what each number of a code adds to it.
        means: with `axes`, `variances` and `constants` the mixture, as `Gaussians` has them.
    """

    shape: Shape
    gradients: GradientFeatures
    centre: Tensor
    basis: Tensor
    canvas: Tensor
    strokes: Tensor
    means: Tensor
    axes: Tensor
    variances: Tensor
    constants: Tensor

    @property
    def gaussians(self) -> Gaussians:
        """The mixture of codes that says how unlikely one is."""
        return Gaussians(self.means, self.axes, self.variances, self.constants)

    def encode(self, images: Tensor) -> Tensor:
        """Return the code (N, n_components) of images without padding."""
        return self._code(self.gradients(images, torch.ones_like(images[:, :1])))

    def decode(self, latent: Tensor) -> Tensor:
        """Return the picture (N, C, H, W) that a code stands for, by a linear map from features to pixels."""
        flat = self.canvas + F.linear(latent, self.strokes)
        return flat.view(-1, self.shape.channels, self.shape.height, self.shape.width)

    def _code(self, features: Tensor) -> Tensor:
        return F.linear(features - self.centre, self.basis)
