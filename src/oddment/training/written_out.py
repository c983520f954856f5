"""The gradients of a dense autoencoder, written out: what autograd computes, in less than half of its time.

A step of a small dense network is a few products and a few passes over the elements of a batch; autograd's form of it
has more operations, each with memory of its own. The sums are the same but for their rounding;
`tests/unit/training/test_plain_path.py` compares.

Source: Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors" (1986), equations 4 to 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oddment.models._base import is_whole
from oddment.models.dense import DenseAutoencoder

if TYPE_CHECKING:
    from oddment.models import Autoencoder, Batch
    from oddment.training.loop import Plan

__all__ = ["WrittenOut"]


class WrittenOut:
    """Loss and gradients of dense layers with ReLUs between them, a sigmoid at the end, and the mean squared error.

    Args:
        model: whose gradients are filled in; they stay where they are from step to step, and must be there.
    """

    def __init__(self, model: DenseAutoencoder) -> None:
        self.layers = [
            layer for part in (model.encoder, model.decoder) for layer in part if isinstance(layer, nn.Linear)
        ]

    @classmethod
    def of(cls, model: Autoencoder, plan: Plan, device: torch.device) -> WrittenOut | None:
        """Return the written-out form of a training, or None where it is another model, loss, precision or device."""
        plain = plan.loss in ("model", "mse") and plan.precision == "float32" and device.type == "cpu"
        return cls(model) if plain and type(model) is DenseAutoencoder else None

    @torch.no_grad()
    def step(self, batch: Batch) -> Tensor:
        """Return the loss, a scalar, and leave its gradients in the parameters."""
        wanted, mask, (count, channels) = batch.images.flatten(1), batch.mask, batch.images.shape[:2]
        values = [wanted]
        for layer in self.layers[:-1]:
            values.append(torch.addmm(layer.bias, values[-1], layer.weight.t()).relu_())
        last = self.layers[-1]
        drawn = torch.addmm(last.bias, values[-1], last.weight.t()).sigmoid_()
        error, area = drawn - wanted, float(mask.numel())
        if not is_whole(mask):
            error.mul_(mask.expand(-1, channels, -1, -1).reshape(count, -1))
            area = float(mask.sum())
        flat = error.flatten()
        loss = flat.dot(flat) / (channels * area)
        # Of the squared error, then of the sigmoid.
        error = torch.ops.aten.sigmoid_backward(error.mul_(2 / (channels * area)), drawn)
        for index in range(len(self.layers) - 1, -1, -1):
            layer = self.layers[index]
            torch.mm(error.t(), values[index], out=layer.weight.grad)
            torch.sum(error, 0, out=layer.bias.grad)
            if index:
                error = torch.ops.aten.threshold_backward(torch.mm(error, layer.weight), values[index], 0)
        return loss
