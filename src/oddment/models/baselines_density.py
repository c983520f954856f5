"""Densities and subspaces: how likely an image is under a Gaussian, how far it lies from a plane through normal images.

Sources:
    gaussian: an industrial-AI lecture notebook (reference system 3), univariate and multivariate Gaussian densities;
        the low rank of large covariances is Tipping and Bishop, "Probabilistic principal component analysis" (1999),
        eq. 7.
    pca: Jackson and Mudholkar, "Control procedures for residuals associated with principal component analysis" (1979).
    elliptic-envelope: Rousseeuw and Van Driessen, "A fast algorithm for the minimum covariance determinant estimator"
        (1999), as scikit-learn's EllipticEnvelope has it.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.errors import ParameterError, TrainingError
from oddment.models._baseline import PIXELS, SIDE, Baseline, check_options, fit_pca
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["EllipticEnvelopeBaseline", "GaussianBaseline", "PcaBaseline"]

# Directions with a variance of their own; all others share one. Covers small images completely.
_MOST_DIRECTIONS = 1024


class GaussianBaseline(Baseline):
    """A Gaussian for each feature, or one over all of them.

    The map is the squared distance from the mean in standard deviations, pixel by pixel; 1 is what a normal image has
    on average. Its mean is the squared Mahalanobis distance divided by the number of features. With `measure="density"`
    it is minus the log density, in nats a feature: a threshold t on it is the density threshold exp(-t · features). It
    may be negative, where a heat map shows nothing.

    With one covariance over all, the distance is split among pixels by the symmetric root of the precision, the
    whitening that stays closest to the image itself (Kessy, Lewin and Strimmer, "Optimal whitening and decorrelation",
    2018).

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        covariance: "diagonal" (univariate) or "full" (multivariate).
        measure: "mahalanobis" or "density".
        regularisation: added to every variance, in the features' unit squared: pixels that never change have none.
        references: most images that a full covariance is estimated from.
    """

    directions: Tensor
    shrink: Tensor
    scale: Tensor
    constant: Tensor
    middle: Tensor

    def __init__(
        self, shape: Shape, *, on: str, covariance: str, measure: str, regularisation: float, references: int
    ) -> None:
        super().__init__(shape, on=on, references=references)
        check_options(regularisation=(regularisation, 1e-9))
        _check_choice("covariance", covariance, ("diagonal", "full"))
        _check_choice("measure", measure, ("mahalanobis", "density"))
        self.full, self.density, self.regularisation = covariance == "full", measure == "density", regularisation
        self.register_buffer("middle", torch.zeros(1, self.width))
        self.register_buffer("directions", torch.zeros(1, self.width))
        self.register_buffer("shrink", torch.zeros(1, 1))
        self.register_buffer("scale", torch.ones(1, self.width))
        self.register_buffer("constant", torch.full((1, self.width), math.log(2 * math.pi) / 2))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Take the variances of the features, or the eigenvectors of their covariance."""
        if self.full:
            variance = self._learn_full(rows)
        else:
            variance = self.variance.double() + self.regularisation
            self.scale = variance.rsqrt().float()
        self.constant = ((variance.log() + math.log(2 * math.pi)) / 2).float().expand(1, self.width).contiguous()

    def _learn_full(self, rows: NDArray[np.float32]) -> Tensor:
        """Set the whitening; returns the geometric mean of all variances, (1, 1)."""
        pca = fit_pca(rows, _MOST_DIRECTIONS, self.seed)
        # As a Gaussian's likelihood has it: divided by n, not by n - 1.
        own = pca.variance.astype(np.float64) * (len(rows) - 1) / len(rows)
        rest = max(0.0, float(rows.var(axis=0, dtype=np.float64).sum() - own.sum()))
        others = self.width - len(own)
        own = own + self.regularisation
        # With nothing left over, any number does: this one loses the least to rounding.
        common = rest / others + self.regularisation if others else float(np.exp(np.log(own).mean()))
        self.middle = torch.from_numpy(pca.mean[None].astype(np.float32))
        self.directions = torch.from_numpy(np.ascontiguousarray(pca.components, np.float32))
        self.shrink = torch.from_numpy(np.sqrt(common / own)[None] - 1).float()
        self.scale = torch.full((1, self.width), common**-0.5)
        mean = (np.log(own).sum() + others * math.log(common)) / self.width
        return torch.full((1, 1), math.exp(mean), dtype=torch.float64)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared standardised deviations, or minus log densities, and their mean as the latent."""
        centred = features - self.middle
        if self.full:
            centred = centred + (F.linear(centred, self.directions) * self.shrink) @ self.directions
        odd = (centred * self.scale).square()
        odd = odd / 2 + self.constant if self.density else odd
        return odd, odd.mean(1, keepdim=True)


class PcaBaseline(Baseline):
    """What the principal components of normal images cannot redraw: the best that a linear autoencoder can do.

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        n_components: components kept.
        references: most images that they are computed from.
    """

    components: Tensor
    middle: Tensor

    def __init__(self, shape: Shape, *, on: str, n_components: int, references: int) -> None:
        super().__init__(shape, on=on, references=references)
        check_options(n_components=(n_components, 1))
        self.kept = n_components
        self.register_buffer("middle", torch.zeros(1, self.width))
        self.register_buffer("components", torch.eye(min(n_components, self.width), self.width))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Compute the components."""
        pca = fit_pca(rows, self.kept, self.seed)
        self.middle = torch.from_numpy(pca.mean[None].astype(np.float32))
        self.components = torch.from_numpy(np.ascontiguousarray(pca.components, np.float32))

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the squared residual, and the coefficients as the latent."""
        latent = F.linear(features - self.middle, self.components)
        return (features - self.redraw(latent)).square(), latent

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the projection on the components."""
        return latent @ self.components + self.middle


class EllipticEnvelopeBaseline(Baseline):
    """A Gaussian that is fitted to the most compact half of the images, so that a few odd ones do not stretch it.

    The score is scikit-learn's squared Mahalanobis distance divided by the number of components. The determinant of a
    covariance of raw pixels is zero, so that it looks at principal components.

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        n_components: principal components; 0 takes the features as they are, for short latents.
        references: most images that are kept to fit.
    """

    middle: Tensor
    whitening: Tensor

    def __init__(self, shape: Shape, *, on: str, n_components: int, references: int) -> None:
        super().__init__(shape, on=on, references=references, n_components=n_components)
        width = min(self.width, 32)
        self.register_buffer("middle", torch.zeros(1, self.width))
        self.register_buffer("whitening", torch.eye(width, self.width))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Find the covariance of least determinant."""
        from sklearn.covariance import EllipticEnvelope

        try:
            with warnings.catch_warnings():
                # With few images it warns of a covariance without full rank; its pseudo-inverse is what we take then.
                warnings.simplefilter("ignore")
                found = EllipticEnvelope(random_state=self.seed).fit(rows.astype(np.float64))
        except ValueError as error:
            msg = f"elliptic-envelope cannot be fitted to {len(rows):,} images ({error}). Use gaussian or pca."
            raise TrainingError(msg) from error
        values, vectors = np.linalg.eigh(found.get_precision())
        self.middle = torch.from_numpy(found.location_[None].astype(np.float32))
        self.whitening = torch.from_numpy((np.sqrt(values.clip(0)) * vectors).T.astype(np.float32).copy())

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared whitened coordinates, and the coordinates as the latent."""
        latent = F.linear(features - self.middle, self.whitening)
        return latent.square(), latent

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the robust mean."""
        return self.middle.expand(latent.shape[0], -1)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} must be {' or '.join(choices)}; got {value!r}."
        raise ParameterError(msg)


register(
    ModelSpec(
        name="gaussian",
        summary="a Gaussian density, of each pixel or of all together (reference system 3); fitted in one pass",
        build=GaussianBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={
            "on": PIXELS,
            "covariance": "diagonal",
            "measure": "mahalanobis",
            "regularisation": 0.01,
            "references": 10_000,
        },
        scoring_batch=64,
    )
)
register(
    ModelSpec(
        name="pca",
        summary="what the principal components of normal images cannot redraw; fitted in one pass",
        build=PcaBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "n_components": 32, "references": 10_000},
        scoring_batch=64,
    )
)
register(
    ModelSpec(
        name="elliptic-envelope",
        summary="a robust Gaussian on principal components; fitted in one pass",
        build=EllipticEnvelopeBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "n_components": 32, "references": 5000},
        scoring_batch=64,
    )
)
