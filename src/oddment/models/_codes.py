"""What models of gradient features share: codes along principal directions, and the pictures that codes stand for.

Codes are turned so that what is to be forgiven counts less, see `_deformations`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor

from oddment.models._base import AnyLength, Autoencoder, sum_rows
from oddment.models._deformations import forgiving
from oddment.models._gaussians import Gaussians, fit_gaussians
from oddment.models._mixtures import USUAL_POWER, choose_power, enough_to_choose, principal, strokes
from oddment.models._neighbours import squared_distances

if TYPE_CHECKING:
    from oddment.models._base import Batch
    from oddment.models._gradients import GradientFeatures
    from oddment.models._registry import Shape

__all__ = ["SAME", "GradientCodes"]

SAME = 1e-5  # squared length below which two pictures are one, in half precision
_BEYOND = 4.0  # standard deviations of what lies beside all directions that are nothing to speak of
_LITTLE = 0.001  # squared length beside the directions below which differences say nothing
_LEAST_SPREAD = 0.05  # of the logarithm of that length
_UNKNOWN = 1e9  # a spread of which nothing is far
_PLACE = "small shifts of the whole picture"
_SIZE = "small differences in width and height"


class GradientCodes(AnyLength, Autoencoder):
    """Base of models that look at the principal components of gradient features.

    Attributes:
        shape: channels, height and width of the images.
        given_power: of the gradients; 0 chooses it.
        forgive: how much of what framing changes is forgiven, see `_deformations`.
        seed: of what is drawn at random.
        gradients: the features.
        centre: (1, W), their mean.
        basis: (K, W), principal directions.
        metric: (K, K), symmetric: what multiplies the components along these.
        canvas: (1, P), the picture of the code 0.
        strokes: (P, K), what each number of a code adds to it.
        beside: (2,), mean and standard deviation, on held-out pictures, of the logarithm of `_outside`.
        means: with `axes`, `variances` and `constants` the mixture, as `Gaussians` has them.
    """

    shape: Shape
    given_power: float
    forgive: float
    seed: int
    gradients: GradientFeatures
    centre: Tensor
    basis: Tensor
    metric: Tensor
    beside: Tensor
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

    def _set_power(self, known: Batch, held: Batch | None) -> None:
        """Take the power that was asked for, or choose it; the usual one where nothing is held out."""
        if not self.given_power:
            power, why = USUAL_POWER, "the usual one: too few images are held out to choose it by"
            if held is not None and enough_to_choose(known, held):
                power = choose_power(self.gradients, known, held, forgive=self.forgive, seed=self.seed)
                why = "under which mixtures of two of your images stand out most from held-out ones"
            self.gradients.power.fill_(power)
            self.choices = (
                *self.choices,
                f"gradients to the power {power:g}, {why}",
            )

    def _set_gaussians(self, codes: Tensor) -> None:
        """Fit the mixture to codes (n, K)."""
        for name, tensor in fit_gaussians(codes, self.seed)._asdict().items():
            setattr(self, name, tensor)

    def _clusters(self) -> str:
        """How many there are, in words."""
        return f"{len(self.means):,} cluster{'s' * (len(self.means) > 1)}"

    def _set_directions(self, features: Tensor, pictures: Batch) -> None:
        """Find directions of features (n, W), and by other pictures how much each of them is to count."""
        self.centre, self.basis = principal(features, len(self.basis))
        share = float(strokes(self.gradients.power))
        self.metric = forgiving(
            self.gradients,
            pictures,
            self.centre,
            self.basis,
            strokes=share,
            strength=self.forgive,
            seed=self.seed,
        )
        if self.forgive:
            # Whoever looks for things that lie wrong, or are too large, must know.
            what = [_PLACE] * (share < 1) + [_SIZE] * (share > 0)
            self.notes = (
                *self.notes,
                f"It makes little of {' and of '.join(what)}; forgive=0 makes them count in full.",
            )

    def _code(self, features: Tensor) -> Tensor:
        return F.linear(F.linear(features - self.centre, self.basis), self.metric)

    def _unmade(self, features: Tensor, made: Tensor) -> Tensor:
        """Return what a reconstructed code (N, K) leaves over of features (N, W); what is forgiven counts less."""
        rest = features - self.centre
        plain = F.linear(rest, self.basis)
        return rest - F.linear(plain - (F.linear(plain, self.metric) - made), self.basis.T)

    def _outside(self, features: Tensor) -> Tensor:
        """Return the squared length (N,) of what features (N, W) have beside all the directions."""
        rest = features - self.centre
        plain = F.linear(rest, self.basis)
        return (sum_rows(rest.square()) - sum_rows(plain.square()))[:, 0].clamp_min(0)

    def _settle_beside(self, unseen: Tensor, codes: Tensor) -> None:
        """Learn from features (n, W) of held-out pictures how much lies beside the directions, fitted to the codes."""
        usual = (self._outside(unseen) + _LITTLE).log()
        spread = usual.std(correction=0).clamp_min(_LEAST_SPREAD)
        # Where directions were fitted to these very pictures, how much lies beside them in others is not known.
        if not self.forgive or squared_distances(self._code(unseen), codes).amin(1).median() < SAME:
            spread = torch.full_like(spread, _UNKNOWN)
        self.beside = torch.stack([usual.mean(), spread])

    def _too_far_beside(self, features: Tensor) -> Tensor:
        """Return by how many standard deviations too much of features (N, W) lies beside all the directions, (N,).

        All measures look at the directions alone, which forgive what framing changes, and forgive more than they should
        in pictures of another world. What a picture has beside them says little where kinds are alike, and nearly
        everything where it is of another world; so it counts where there is much more of it than in normal pictures,
        and not before.
        """
        found = (self._outside(features) + _LITTLE).log()
        return ((found - self.beside[0]) / self.beside[1] - _BEYOND).relu()
