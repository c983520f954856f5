"""Convolution, ReLU and pooling in one go: what torch's layers give, one after the other, with their gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from oddment.models._keras import SameConv2d
from oddment.models._stages import run_stages

LAYERS = {
    "first, pooled": lambda: [SameConv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2)],
    "first, colour, wide kernel": lambda: [SameConv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2)],
    "first, not pooled": lambda: [SameConv2d(2, 6, 3), nn.ReLU()],
    "pooled later": lambda: [SameConv2d(1, 6, 3), nn.ReLU(), SameConv2d(6, 8, 3), nn.ReLU(), nn.MaxPool2d(2)],
    "narrow": lambda: [SameConv2d(3, 8, 3), nn.ReLU(), SameConv2d(8, 2, 5), nn.Sigmoid()],
    "doubled": lambda: [SameConv2d(2, 6, 3), nn.ReLU(), nn.Upsample(scale_factor=2), SameConv2d(6, 8, 3), nn.ReLU()],
    "doubled, not rectified": lambda: [SameConv2d(2, 6, 3), nn.Upsample(scale_factor=2), SameConv2d(6, 5, 3)],
    "doubled, wide kernel": lambda: [SameConv2d(2, 6, 3), nn.Upsample(scale_factor=2), SameConv2d(6, 8, 5), nn.ReLU()],
    "doubled, narrow": lambda: [SameConv2d(2, 6, 3), nn.ReLU(), nn.Upsample(scale_factor=2), SameConv2d(6, 1, 3)],
    "enlarged smoothly": lambda: [
        SameConv2d(2, 6, 3),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        SameConv2d(6, 8, 3),
    ],
    "with strides": lambda: [
        SameConv2d(3, 8, 4, stride=2),
        nn.ReLU(),
        SameConv2d(8, 6, 3),
        nn.Upsample(scale_factor=2),
    ],
}


def both(name: str, images: torch.Tensor) -> list[list[torch.Tensor]]:
    """What the layers make of the images and their gradients, by the short way and by torch's."""
    torch.manual_seed(3)
    layers = nn.Sequential(*LAYERS[name]())
    found = []
    for way in (run_stages, lambda layers, images: layers(images)):
        layers.zero_grad()
        made = way(layers, images)
        slopes = torch.rand(made.shape, generator=torch.Generator().manual_seed(5)) - 0.4
        (made * slopes).sum().backward()
        found.append([made.detach(), *(parameter.grad for parameter in layers.parameters())])  # type: ignore[misc]
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_is_what_the_layers_give(name: str) -> None:
    """Numbers and gradients within rounding."""
    channels = LAYERS[name]()[0][-1].in_channels
    torch.manual_seed(1)
    for ours, theirs in zip(*both(name, torch.rand(3, channels, 16, 12)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_of_equal_values_the_first_gets_the_slope() -> None:
    """Flat pictures, all of whose neighbours are equal, and blank ones."""
    flat = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8).contiguous()
    for ours, theirs in zip(*both("first, pooled", flat), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_bfloat16(name: str) -> None:
    """Products in bfloat16 are off by its rounding and no more."""
    channels = LAYERS[name]()[0][-1].in_channels
    torch.manual_seed(1)
    images = torch.rand(3, channels, 16, 12)
    exact = both(name, images)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rounded, usual = both(name, images)
    for ours, theirs, true in zip(rounded, usual, exact, strict=True):
        assert ours.dtype == theirs.dtype
        error = (ours.float() - true).norm() / true.norm()
        assert error < max(0.02, 2 * float((theirs.float() - true).norm() / true.norm()))


def test_what_is_watched_hides_nothing() -> None:
    """Without gradients, as in validation, what is not finite stays so."""
    layers = nn.Sequential(*LAYERS["first, pooled"]())
    with torch.no_grad():
        layers[0][-1].weight.fill_(float("nan"))  # type: ignore[index, union-attr]
        assert run_stages(layers, torch.rand(1, 1, 4, 4)).isnan().all()
