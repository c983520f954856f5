"""Distances to normal images themselves: the nearest of them, how crowded they lie, a boundary drawn around them.

Every distance comes from one matrix product with the references: |x - r|² = |x|² - 2 (x·r - |r|²/2). An image that was
fitted finds itself among its neighbours; only scores of other images, such as those of calibration, mean something.

Sources:
    knn: Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from large data sets" (2000). Differs in
        the mean over the k nearest (Angiulli and Pizzuti, 2002) of the squared distance. With `company`, the one-sided
        mutual reachability of Campello, Moulavi and Sander, "Density-Based Clustering Based on Hierarchical Density
        Estimates" (2013), definition 4.
    local-outlier-factor: Breunig, Kriegel, Ng and Sander, "LOF: identifying density-based local outliers" (2000).
    one-class-svm: Schölkopf et al., "Estimating the support of a high-dimensional distribution" (2001).
    The last two as scikit-learn has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.errors import ParameterError
from oddment.models._base import sum_rows
from oddment.models._baseline import PIXELS, SIDE, Baseline, check_options
from oddment.models._neighbours import squared_distances
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KnnBaseline", "LocalOutlierFactorBaseline", "OneClassSvmBaseline"]

_LEAST_COMPANY = 5
_AT_ONCE = 1000


class _Referring(Baseline):
    """A baseline with a bank of references (n, width) that features are compared with."""

    bank: Tensor
    offset: Tensor

    def __init__(self, shape: Shape, *, on: str, references: int, n_components: int = 0) -> None:
        super().__init__(shape, on=on, references=references, n_components=n_components)
        self._remember(np.zeros((1, self.width), np.float32))

    def _remember(self, rows: NDArray[np.float32]) -> None:
        bank = torch.from_numpy(np.ascontiguousarray(rows, np.float32))
        self.register_buffer("bank", bank)
        self.register_buffer("offset", (-bank.double().square().sum(1) / 2).float())

    def _likeness(self, features: Tensor) -> Tensor:
        """x·r - |r|²/2 for each reference, (N, n): the larger, the nearer."""
        # One product with the bank as it lies, so that the graph holds it once.
        return F.linear(features, self.bank, self.offset)

    def _nearest(self, features: Tensor, count: int) -> Tensor:
        """Numbers of the nearest references, float32 (N, count), the nearest first."""
        return self._likeness(features).topk(min(count, len(self.bank)), dim=1).indices.to(features.dtype)

    def _differences(self, features: Tensor, nearest: Tensor) -> Tensor:
        """Squared differences to those references, feature by feature, (N, count, width)."""
        return (features[:, None] - self.bank[nearest.long()]).square()


class KnnBaseline(_Referring):
    """The mean squared difference to the k nearest normal images; its map shows where they differ.

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        k: neighbours.
        references: most images that are kept.
        company: a reference counts for no nearer than this share of them lies to it, so that a few wrong ones of a kind
            do not vouch for each other; 0 takes distances as they are.
    """

    far: Tensor

    def __init__(self, shape: Shape, *, on: str, k: int, references: int, company: float) -> None:
        super().__init__(shape, on=on, references=references)
        check_options(k=(k, 1), company=(company, 0.0))
        if company >= 1:
            msg = f"company must be a share below 1, such as 0.02 for a fiftieth of the references; got {company!r}."
            raise ParameterError(msg)
        self.k, self.company = k, company
        self.register_buffer("far", torch.zeros(1))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Keep the rows, and how far each lies from its company."""
        self._remember(rows)
        if self.company:
            # Each finds itself as well, as the nearest.
            place = min(max(_LEAST_COMPANY, round(self.company * len(rows))) + 1, len(rows))
            parts = torch.split(self.bank, _AT_ONCE)
            self.far = torch.cat([squared_distances(part, self.bank).kthvalue(place, dim=1).values for part in parts])

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared differences, and the neighbours' numbers as the latent."""
        if not self.company:
            nearest = self._nearest(features, self.k)
            return self._differences(features, nearest).mean(1), nearest
        squared = torch.maximum(sum_rows(features.square()) - 2 * self._likeness(features), self.far)
        nearest = squared.topk(min(self.k, len(self.bank)), dim=1, largest=False).indices
        found = self._differences(features, nearest)
        # What a neighbour counts further than it lies belongs to no feature.
        lacking = (self.far[nearest][:, :, None] - sum_rows(found)).clamp_min(0) / self.width
        return (found + lacking).mean(1), nearest.to(features.dtype)

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the mean neighbour."""
        return self.bank[latent.long()].mean(1)


class LocalOutlierFactorBaseline(_Referring):
    """How much less crowded an image lies than its neighbours do: about 1 for normal images.

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        n_neighbors: neighbours.
        n_components: principal components that distances are taken in; 0 for the features as they are.
        references: most images that are kept.
    """

    reach: Tensor
    density: Tensor

    def __init__(self, shape: Shape, *, on: str, n_neighbors: int, n_components: int, references: int) -> None:
        super().__init__(shape, on=on, references=references, n_components=n_components)
        check_options(n_neighbors=(n_neighbors, 1))
        self.n_neighbors = n_neighbors
        self.register_buffer("reach", torch.ones(1))
        self.register_buffer("density", torch.ones(1))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Measure how crowded each reference lies."""
        from sklearn.neighbors import NearestNeighbors

        found = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(rows) - 1)).fit(rows)
        distances, neighbours = found.kneighbors()
        reach = distances[:, -1]
        self._remember(rows)
        self.reach = torch.from_numpy(reach.astype(np.float32))
        self.density = torch.from_numpy(_density(distances, reach[neighbours]).astype(np.float32))

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the local outlier factor, and the nearest reference's number as the latent."""
        nearest = self._nearest(features, min(self.n_neighbors, max(1, len(self.bank) - 1)))
        index = nearest.long()
        distances = self._differences(features, nearest).sum(2).sqrt()
        crowding = torch.maximum(distances, self.reach[index]).mean(1, keepdim=True) + 1e-10
        return self.density[index].mean(1, keepdim=True) * crowding, nearest[:, :1]

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the nearest reference."""
        return self.bank[latent[:, 0].long()]


class OneClassSvmBaseline(_Referring):
    """How far outside of a boundary around normal images, by a radial kernel.

    The score is 1 - Σ α k(x, s) / Σ α over the support vectors s: scikit-learn's score with the sign turned, brought
    to the range from 0 (in the middle of all) to 1 (far from everything).

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        nu: share of normal images that may lie outside; at least that share become support vectors.
        gamma: of the kernel exp(-gamma |x - s|²); 0 takes 1 / (features · their variance).
        n_components: principal components that distances are taken in; 0 for the features as they are.
        references: most images that are kept to fit, which takes time with their square.
    """

    weight: Tensor
    gamma: Tensor

    def __init__(self, shape: Shape, *, on: str, nu: float, gamma: float, n_components: int, references: int) -> None:
        super().__init__(shape, on=on, references=references, n_components=n_components)
        check_options(gamma=(gamma, 0.0))
        if not 0 < nu <= 1:
            msg = f"nu must lie above 0 and be at most 1; got {nu}."
            raise ParameterError(msg)
        self.nu, self.given = nu, gamma
        self.register_buffer("gamma", torch.tensor(gamma or 1 / self.width))
        self.register_buffer("weight", torch.ones(1, 1))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Find the support vectors."""
        from sklearn.svm import OneClassSVM

        gamma = self.given or 1 / (self.width * max(float(rows.var(dtype=np.float64)), 1e-12))
        found = OneClassSVM(nu=self.nu, gamma=gamma).fit(rows)
        self._remember(found.support_vectors_)
        weight = found.dual_coef_.astype(np.float64)
        self.weight = torch.from_numpy((weight / weight.sum()).astype(np.float32))
        self.gamma = torch.tensor(gamma, dtype=torch.float32)

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score, and the nearest support vector's number as the latent."""
        likeness = self._likeness(features)
        squared = (features.square().sum(1, keepdim=True) - 2 * likeness).clamp_min(0)
        odd = 1 - F.linear((-self.gamma * squared).exp(), self.weight)
        return odd.clamp_min(0), likeness.argmax(1, keepdim=True).to(features.dtype)

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the nearest support vector."""
        return self.bank[latent[:, 0].long()]


def _density(distances: NDArray[np.float64], reach: NDArray[np.float64]) -> NDArray[np.float64]:
    """Local reachability density (n,) from distances to the neighbours and their own reaches, both (n, k)."""
    density: NDArray[np.float64] = 1 / (np.maximum(distances, reach).mean(axis=1) + 1e-10)
    return density


register(
    ModelSpec(
        name="knn",
        remembers=True,
        summary="squared difference to the nearest normal images; fitted in one pass",
        build=KnnBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "k": 2, "references": 10_000, "company": 0.0},
        scoring_batch=64,
    )
)
register(
    ModelSpec(
        name="local-outlier-factor",
        remembers=True,
        summary="how much less crowded an image lies than its neighbours; fitted in one pass",
        build=LocalOutlierFactorBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "n_neighbors": 20, "n_components": 0, "references": 10_000},
        scoring_batch=64,
    )
)
register(
    ModelSpec(
        name="one-class-svm",
        summary="a boundary around normal images, by a radial kernel; fitted in one pass",
        build=OneClassSvmBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "nu": 0.1, "gamma": 0.0, "n_components": 0, "references": 5000},
        scoring_batch=64,
    )
)
