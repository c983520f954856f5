"""The scoring graph: prepared images in; score, map, reconstruction and latent out.

It is torch until it is exported, once, to ONNX; whatever scores afterwards runs that one graph.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from oddment.models import Batch, valid_mask
from oddment.models._base import sum_rows
from oddment.training.losses import binary_cross_entropy

if TYPE_CHECKING:
    from oddment.models import Autoencoder, Shape

__all__ = ["OPSET", "OUTPUTS", "ScoreName", "ScoringGraph", "export"]

ScoreName = Literal["model", "bce"]
OUTPUTS = ("anomaly_score", "anomaly_map", "reconstruction", "latent")
OPSET = 17


class ScoringGraph(nn.Module):
    """An autoencoder with its score: everything between a prepared image and a number.

    Args:
        autoencoder: the trained model.
        shape: channels, height and width of the prepared images.
        score: "model" for the model's own anomaly map, usually the squared error; "bce" for the binary cross-entropy.
    """

    def __init__(self, autoencoder: Autoencoder, shape: Shape, score: ScoreName = "model") -> None:
        super().__init__()
        self.score = score
        self.autoencoder = autoencoder
        self.shape = shape
        self.share = autoencoder.pooled_share

    def forward(self, images: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score a batch.

        Args:
            images: float32 (N, C, H, W).
            valid: int64 (N, 4), the (top, left, bottom, right) of real pixels; padding is never scored.

        Returns:
            anomaly_score (N,), anomaly_map (N, H, W) with 0 on padding, reconstruction (N, C, H, W), latent (N, L).
        """
        mask = valid_mask(valid, self.shape.height, self.shape.width)
        left = self.autoencoder.leftover(Batch(images, mask))
        levels = left.anomaly_map
        if self.score == "bce":
            levels = binary_cross_entropy(left.reconstruction, images).mean(1)
        anomaly_map = levels * mask[:, 0]
        own = left.score if self.score == "model" else None
        score = self.pool(anomaly_map, mask[:, 0]) if own is None else own
        return score, anomaly_map, left.reconstruction, left.latent.flatten(1)

    def pool(self, anomaly_map: Tensor, mask: Tensor) -> Tensor:
        """Return (N,): the mean over the largest `share` of the real pixels."""
        flat = anomaly_map.flatten(1)
        area = mask.flatten(1).sum(1)  # whole numbers: exact in any order
        if self.share >= 1:
            return sum_rows(flat)[:, 0] / area
        most = max(1, math.ceil(self.share * flat.shape[1]))
        count = (area * self.share).ceil().clamp(min=1)
        largest = flat.topk(most, dim=1).values
        # Images fill different areas of the canvas, so that each has its own count of values to average.
        wanted = (torch.arange(most, device=flat.device).view(1, -1) < count.view(-1, 1)).to(flat.dtype)
        return sum_rows(largest * wanted)[:, 0] / count


def export(graph: ScoringGraph) -> bytes:
    """Return the graph as ONNX bytes, batch size free, inputs `images` and `valid`, outputs `OUTPUTS`.

    The TorchScript exporter is used: for these plain graphs it takes half a second where the newer one takes nine.
    """
    graph = graph.to("cpu").eval()
    shape = graph.shape
    images = torch.zeros(2, shape.channels, shape.height, shape.width)
    valid = torch.tensor([[0, 0, shape.height, shape.width]] * 2)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (images, valid),
            buffer,  # type: ignore[arg-type]  # it writes to file objects, though its annotation does not say so
            dynamo=False,
            opset_version=OPSET,
            input_names=["images", "valid"],
            output_names=list(OUTPUTS),
            dynamic_axes={name: {0: "batch"} for name in ("images", "valid", *OUTPUTS)},
        )
    return buffer.getvalue()
