"""The transposed convolution descends by another route than it scores by; both give the same numbers."""

from __future__ import annotations

import pytest
import torch

from oddment.models._keras import SameConvTranspose2d


def run(layer: SameConvTranspose2d, images: torch.Tensor, slope: torch.Tensor) -> list[torch.Tensor]:
    layer.zero_grad()
    images = images.clone().requires_grad_()
    grown = layer(images)
    grown.backward(slope)
    return [grown.detach(), images.grad, *[parameter.grad.clone() for parameter in layer.parameters()]]  # type: ignore[list-item,union-attr]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("channels", "filters", "kernel", "stride"), [(8, 4, 3, 2), (8, 1, 3, 1), (5, 3, 7, 2), (6, 5, 4, 2)]
)
def test_training_and_scoring_agree(channels: int, filters: int, kernel: int, stride: int, bias: bool) -> None:
    """Result and gradients of the fast route are those of torch's own transposed convolution."""
    torch.manual_seed(0)
    layer = SameConvTranspose2d(channels, filters, kernel, stride, bias=bias)
    images = torch.randn(3, channels, 6, 5)
    slope = torch.randn(3, filters, 6 * stride, 5 * stride)
    fast, plain = run(layer.train(), images, slope), run(layer.eval(), images, slope)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_it_descends_in_bfloat16_as_well() -> None:
    """Under autocast the result is of the lower precision and the weights' gradients stay float32."""
    layer = SameConvTranspose2d(4, 3, 3, 2).train()
    with torch.autocast("cpu", torch.bfloat16):
        grown = layer(torch.rand(2, 4, 5, 5))
    grown.float().sum().backward()
    assert grown.dtype == torch.bfloat16
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
