"""What the metric of codes forgives: shifts or stretching as asked, and nothing where nothing moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from oddment.data.sample import load_sample
from oddment.models import Batch, Shape
from oddment.models._deformations import forgiving
from oddment.models._gradients import GradientFeatures
from oddment.models._mixtures import principal

GRADIENTS = GradientFeatures(Shape(1, 28, 28))


def sevens() -> Tensor:
    """Float32 (300, 1, 28, 28) in [0, 1]."""
    train = load_sample("mnist-train")
    return torch.from_numpy(train.images[train.labels == 7][:300])[:, None] / 255.0


def features(images: Tensor) -> Tensor:
    found: Tensor = GRADIENTS(images, torch.ones_like(images))
    return found


def whole(images: Tensor) -> Batch:
    return Batch(images, torch.ones_like(images))


def metric(images: Tensor, strokes: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return centre, directions and metric."""
    centre, directions = principal(features(images), 64)
    return (
        centre,
        directions,
        forgiving(GRADIENTS, whole(images), centre, directions, strokes=strokes, strength=8.0, seed=0),
    )


def stretched(images: Tensor) -> Tensor:
    """A tenth narrower and a tenth taller."""
    place = torch.tensor([[1.1, 0, 0], [0, 0.9, 0]]).expand(len(images), 2, 3)
    grid = functional.affine_grid(place, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


@pytest.mark.parametrize("strokes", [0.0, 0.43, 1.0])
def test_a_metric_is_symmetric_positive_and_keeps_the_mean_squared_length(strokes: float) -> None:
    images = sevens()
    centre, directions, found = metric(images, strokes)
    torch.testing.assert_close(found, found.T, atol=1e-6, rtol=0)
    assert torch.linalg.eigvalsh(found).min() > 0
    codes = (features(images) - centre) @ directions.T
    torch.testing.assert_close((codes @ found).square().sum(), codes.square().sum(), rtol=1e-4, atol=0)


def test_what_is_asked_for_is_forgiven_and_the_other_less() -> None:
    """Pictures that took no part, moved in a way of their own: how much farther is the moved picture than it was?"""
    images = sevens()
    known, other = images[:200], images[200:]
    moved = {"shifted": other.roll(1, 3), "stretched": stretched(other)}
    share: dict[tuple[str, float], float] = {}
    for strokes in (0.0, 1.0):
        _, directions, found = metric(known, strokes)
        for name, pictures in moved.items():
            step = (features(pictures) - features(other)) @ directions.T
            share[name, strokes] = float((step @ found).norm(dim=1).mean() / step.norm(dim=1).mean())
    assert share["shifted", 0.0] < 0.85
    assert share["stretched", 1.0] < 0.85
    assert share["shifted", 0.0] < share["shifted", 1.0] - 0.05
    assert share["stretched", 1.0] < share["stretched", 0.0] - 0.05


def test_nothing_is_forgiven_where_nothing_moves() -> None:
    """An even gray moves into itself, and the edge behind it is no edge of the picture."""
    even = torch.full((20, 1, 28, 28), 0.6)
    directions = torch.eye(GRADIENTS.width)[:16]
    found = forgiving(GRADIENTS, whole(even), features(even)[:1], directions, strokes=0.5, strength=8.0, seed=0)
    torch.testing.assert_close(found, torch.eye(16))


def test_equal_seeds_give_equal_metrics() -> None:
    images = sevens()
    torch.testing.assert_close(metric(images, 1.0)[2], metric(images, 1.0)[2], atol=0, rtol=0)
