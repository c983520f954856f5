"""A mixture of Gaussians as a mixture of linear autoencoders: how unlikely a code is, and its usual form.

Codes of normal pictures are parted into clusters of some hundred. Each has a mean and a covariance of its own, drawn
towards a ball, since some hundred codes do not fill 128 directions. A code is judged by its likelihood under the
mixture, so that a place between two kinds of picture (a nine between fours and sevens) is unlikely, though a mean of
both would make it.

Source: mixtures of linear autoencoders after Hinton, Dayan and Revow, "Modeling the manifolds of images of handwritten
digits" (1997), sections 2 and 3; the ball after Friedman, "Regularized discriminant analysis" (1989), equation 18; hard
assignments after Celeux and Govaert, "A classification EM algorithm for clustering and two stochastic versions" (1992).
Differs from the first in full covariances instead of a few directions a cluster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor

from oddment.models._base import sum_rows
from oddment.models._neighbours import squared_distances

__all__ = ["Gaussians", "empty", "fit_gaussians", "judge", "usual_form"]

_A_CLUSTER = 150  # codes, about
_MOST_CLUSTERS = 128  # whose matrices of 128 × 128 take 8 MiB
_PASSES = 8  # of k-means, which starts the rounds
_ROUNDS = 3  # of fitting clusters and assigning codes to them
_NEAR = 8  # clusters, by their means, that a code may be assigned to
_BALL = 40.0  # codes at which a cluster's own covariance weighs as much as the ball
_ROWS = 4000  # codes compared with all means at once
_TINY = 1e-8  # squared lengths below this are rounding


class Gaussians(NamedTuple):
    """A mixture of K Gaussians in D dimensions.

    Args:
        means: (K, D).
        axes: (K, D, D), rows that a code, less the mean, is multiplied by to have unit variance along each.
        variances: (K, D), along these.
        constants: (K,), what the determinant and the cluster's share add to the squared length; not below 0.
    """

    means: Tensor
    axes: Tensor
    variances: Tensor
    constants: Tensor


def empty(width: int) -> Gaussians:
    """Return one Gaussian of unit variance around 0."""
    return Gaussians(torch.zeros(1, width), torch.eye(width)[None], torch.ones(1, width), torch.zeros(1))


# --- fitting


def fit_gaussians(codes: Tensor, seed: int) -> Gaussians:
    """Return the mixture of codes (n, D), n at least 1.

    Args:
        codes: of normal pictures.
        seed: of the first means.
    """
    owner = _kmeans(codes, min(max(1, len(codes) // _A_CLUSTER), _MOST_CLUSTERS), seed)
    for _ in range(_ROUNDS):
        found = _fit_clusters(codes, owner)
        before, owner = owner, _likeliest(codes, found)
        if torch.equal(before, owner):
            break
    return found


def _kmeans(codes: Tensor, count: int, seed: int) -> Tensor:
    """Return the cluster (n,) of each code, after Lloyd's algorithm from random codes."""
    means = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))[:count]]
    for _ in range(_PASSES):
        owner = torch.cat([squared_distances(part, means).argmin(1) for part in torch.split(codes, _ROWS)])
        sizes = torch.bincount(owner, minlength=count)[:, None]
        sums = torch.zeros_like(means).index_add_(0, owner, codes)
        means = torch.where(sizes > 0, sums / sizes.clamp_min(1), means)
    return owner


def _fit_clusters(codes: Tensor, owner: Tensor) -> Gaussians:
    """Return the mixture whose clusters are given, without the empty ones."""
    parts = [codes[owner == number] for number in torch.unique(owner).tolist()]
    means = torch.stack([part.mean(0) for part in parts])
    scatters = torch.stack([(part - mean).T @ (part - mean) for part, mean in zip(parts, means, strict=True)])
    sizes = torch.tensor([len(part) for part in parts])
    ball = scatters.sum(0).diagonal().mean() / len(codes) * torch.eye(codes.shape[1])
    drawn = (scatters + _BALL * ball) / (sizes + _BALL)[:, None, None]
    variances, directions = torch.linalg.eigh(drawn.double())
    variances = variances.clamp_min(_TINY)
    constants = variances.log().sum(1) - 2 * (sizes / len(codes)).double().log()
    constants -= -2 * torch.logsumexp(-constants / 2, 0)
    axes = directions.mT / variances.sqrt()[:, :, None]
    return Gaussians(means, axes.float().contiguous(), variances.float(), constants.float())


def _likeliest(codes: Tensor, given: Gaussians) -> Tensor:
    """Return the cluster (n,) that each code is likeliest in, among those whose means are nearest."""
    count = len(given.means)
    near = torch.cat(
        [
            squared_distances(part, given.means).topk(min(_NEAR, count), largest=False).indices
            for part in torch.split(codes, _ROWS)
        ]
    )
    best, owner = torch.full((len(codes),), torch.inf), torch.zeros(len(codes), dtype=torch.long)
    for number in range(count):
        rows = (near == number).any(1).nonzero()[:, 0]
        value = ((codes[rows] - given.means[number]) @ given.axes[number].T).square().sum(1) + given.constants[number]
        better = rows[value < best[rows]]
        best[better] = value[value < best[rows]]
        owner[better] = number
    return owner


# --- scoring


def judge(codes: Tensor, given: Gaussians) -> tuple[Tensor, Tensor]:
    """Return how unlikely codes (N, D) are, and the cluster (N,) of each.

    The former is minus twice the logarithm of the likelihood, from the least that is possible: (N,), not below 0.
    """
    count, width = given.means.shape
    shift = torch.matmul(given.axes, given.means[:, :, None]).view(-1)
    lengths = F.linear(codes, given.axes.view(count * width, width), -shift).view(-1, count, width).square()
    each = sum_rows(lengths)[:, :, 0] + given.constants
    least, cluster = each.min(1)
    return (least - 2 * sum_rows(((least[:, None] - each) / 2).exp())[:, 0].log()).clamp_min(0), cluster


def usual_form(codes: Tensor, cluster: Tensor, given: Gaussians) -> Tensor:
    """Return codes (N, D) less what hardly varies in their cluster: directions of little variance are shrunk most."""
    mean, axes, variance = given.means[cluster], given.axes[cluster], given.variances[cluster]
    along = torch.matmul(axes, (codes - mean)[:, :, None])
    kept = variance.square() / (variance + variance.mean(1, keepdim=True))
    return mean + torch.matmul((along[:, :, 0] * kept)[:, None], axes)[:, 0]
