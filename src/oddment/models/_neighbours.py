"""How near rows of numbers are to each other, and what the nearest of them count."""

from __future__ import annotations

import torch
from torch import Tensor

from oddment.models._base import sum_rows

__all__ = ["closeness", "fading", "squared_distances"]

_TIE = 1e-6  # differences of squared lengths below this are ties


def closeness(codes: Tensor, rows: Tensor) -> Tensor:
    """Return (N, n), larger for nearer rows: half of the code's squared length less their squared distance."""
    # Half the squares go in as a bias, so that the rows are multiplied as they lie.
    return torch.nn.functional.linear(codes, rows, rows.square().sum(1) * -0.5)


def squared_distances(codes: Tensor, rows: Tensor) -> Tensor:
    """Return (N, n), 0 where rounding would make it negative."""
    return (sum_rows(codes.square()) - 2 * closeness(codes, rows)).clamp_min(0)


def fading(squared: Tensor, count: int) -> Tensor:
    """Return weights (N, count) of the nearest: how much nearer than the next one beyond them each is, their sum 1.

    Which of two at almost the same distance counts as nearer makes no difference then: processors round differently.

    Args:
        squared: (N, M) squared distances, ascending; M at least 1.
        count: how many have a weight; all that there are, equal ones, where there is no next one.
    """
    if squared.shape[1] <= count:
        return torch.full_like(squared, 1 / squared.shape[1])
    nearer = squared[:, count : count + 1] - squared[:, :count] + _TIE
    return nearer / sum_rows(nearer)
