"""The scoring graph: prepared images in; score, map, reconstruction and latent out.

It is torch until it is exported, once, to ONNX; whatever scores afterwards runs that one graph.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from oddment.models import Batch, valid_mask
from oddment.models._base import sum_rows
from oddment.models._exposure import standardise_exposure
from oddment.models._padding import fold_crops, fold_padding
from oddment.scoring.choices import MODEL, Pool, parse_pool, parse_scores
from oddment.scoring.narrow import widen_narrow
from oddment.scoring.phases import split_phases
from oddment.scoring.residuals import residual
from oddment.scoring.unpadded import skip_masks
from oddment.scoring.upsampled import fold_upsampling

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oddment.models import Autoencoder, Shape
    from oddment.models._base import Leftover

__all__ = ["OPSET", "OUTPUTS", "PARTS", "ScoringGraph", "export"]

OUTPUTS = ("anomaly_score", "anomaly_map", "reconstruction", "latent")
PARTS = "score_parts"
"""A fifth output, where a score is combined: what each part adds to it."""
OPSET = 17
# A part that hardly differs between normal images must not drown the others: its spread is this share of its mean.
_LEAST_SPREAD = 1e-3
# A tenth of a hundred pixels is ten of them, whichever way 0.1 was rounded: torch and ONNX Runtime must count alike.
_ROUNDING = 1e-6


class ScoringGraph(nn.Module):
    """An autoencoder with its score: everything between a prepared image and a number.

    Args:
        autoencoder: the trained model.
        shape: channels, height and width of the prepared images.
        score: "model" for the model's own anomaly map, usually the squared error; or a residual of its reconstruction,
            one of `oddment.scoring.residuals.RESIDUALS`; or several with commas between them, each standardised by
            what `standardise` measured, and summed.
        pool: how a map becomes a score: "model" for the model's own way, "mean", "max", "top=SHARE" or "quantile=Q".
        exposure: show each picture to the model at one mean and one contrast, as in training.

    Raises:
        ParameterError: if score or pool asks for something else.
    """

    centre: Tensor
    spread: Tensor

    def __init__(
        self, autoencoder: Autoencoder, shape: Shape, score: str = MODEL, pool: str = MODEL, *, exposure: bool = False
    ) -> None:
        super().__init__()
        self.exposure = exposure
        self.scores, asked = parse_scores(score), parse_pool(pool)
        self.autoencoder = autoencoder
        self.shape = shape
        self.pooling = asked or Pool("top", autoencoder.pooled_share)
        self.own_score = asked is None
        self.register_buffer("centre", torch.zeros(len(self.scores)))
        self.register_buffer("spread", torch.ones(len(self.scores)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what `forward` returns."""
        return (*OUTPUTS, PARTS) if len(self.scores) > 1 else OUTPUTS

    def forward(self, images: Tensor, valid: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Score a batch.

        Args:
            images: float32 (N, C, H, W).
            valid: int64 (N, 4), the (top, left, bottom, right) of real pixels; padding is never scored.
            inputs: what the model's `inputs` made of these images earlier; computed where there are none.

        Returns:
            anomaly_score (N,), anomaly_map (N, H, W) with 0 on padding, reconstruction (N, C, H, W), latent (N, L). Of
            a combined score also score_parts (N, P), whose sum it is: standard deviations above the mean of normal
            images.
        """
        left, judged = self._look(images, valid, inputs)
        reconstruction, latent = left.reconstruction, left.latent.flatten(1)
        if len(judged) == 1:
            score, anomaly_map = judged[0]
            return score, anomaly_map, reconstruction, latent
        each = [(score - self.centre[i]) / self.spread[i] for i, (score, _) in enumerate(judged)]
        # Sums of named terms: their order is the same wherever a row lies in a batch.
        total, anomaly_map = each[0], judged[0][1] / self.spread[0]
        for index in range(1, len(each)):
            total, anomaly_map = total + each[index], anomaly_map + judged[index][1] / self.spread[index]
        return total, anomaly_map, reconstruction, latent, torch.stack(each, 1)

    def _look(
        self, images: Tensor, valid: Tensor, inputs: tuple[Tensor, ...] = ()
    ) -> tuple[Leftover, list[tuple[Tensor, Tensor]]]:
        """Return what the model leaves over, drawn at the images' own exposure, and score and map by each name."""
        mask = valid_mask(valid, self.shape.height, self.shape.width)
        exposed = standardise_exposure(images, mask) if self.exposure else None
        seen = images if exposed is None else exposed.images
        left = self.autoencoder.leftover(Batch(seen, mask, inputs))
        judged = [self._judge(name, left, seen, valid, mask.flatten(1, 2)) for name in self.scores]
        return left if exposed is None else left._replace(reconstruction=exposed.undo(left.reconstruction)), judged

    def _judge(self, name: str, left: Leftover, images: Tensor, valid: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return score (N,) and map (N, H, W) by one name."""
        own = name == MODEL
        levels = left.anomaly_map if own else residual(name, left.reconstruction, images, valid)
        anomaly_map = levels * mask
        if own and self.own_score and left.score is not None:
            return left.score, anomaly_map
        return self.pool(anomaly_map, mask), anomaly_map

    @torch.no_grad()
    def standardise(self, normal: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure mean and standard deviation of each part of a combined score.

        Args:
            normal: images and valid of batches of normal pictures, at least one, that do not calibrate.
        """
        looks = (self._look(images, valid)[1] for images, valid in normal)
        values = torch.cat([torch.stack([score for score, _ in judged], 1).double() for judged in looks])
        centre = values.mean(0)
        spread = values.std(0) if len(values) > 1 else torch.zeros_like(centre)
        self.centre.copy_(centre)
        self.spread.copy_(torch.maximum(spread, _LEAST_SPREAD * centre.abs()).clamp_min(1e-12))

    def pool(self, anomaly_map: Tensor, mask: Tensor) -> Tensor:
        """Return (N,): the mean over the largest share of the real pixels, the largest value, or a quantile."""
        flat = anomaly_map.flatten(1)
        if self.pooling.kind == "max":
            return flat.amax(1)  # no map is negative, and padding is 0
        area = mask.flatten(1).sum(1)  # whole numbers: exact in any order
        if self.pooling.kind == "quantile":
            return self._quantile(flat, area)
        share = self.pooling.value
        if share >= 1:
            return sum_rows(flat).flatten() / area
        most = max(1, math.ceil(share * flat.shape[1] - _ROUNDING))
        count = (area.double() * share - _ROUNDING).ceil().clamp(min=1).to(flat.dtype)
        largest = flat.topk(most, dim=1).values
        # Images fill different areas of the canvas, so that each has its own count of values to average.
        wanted = (torch.arange(most, device=flat.device).view(1, -1) < count.view(-1, 1)).to(flat.dtype)
        return sum_rows(largest * wanted).flatten() / count

    def _quantile(self, flat: Tensor, area: Tensor) -> Tensor:
        """Return (N,): the largest value that the wanted share of the real pixels does not exceed."""
        above = 1 - self.pooling.value
        largest = flat.topk(min(flat.shape[1], math.floor(above * flat.shape[1] + _ROUNDING) + 1), dim=1).values
        place = (area.double() * above + _ROUNDING).floor().clamp(max=int(largest.shape[1]) - 1).long()
        return largest.gather(1, place[:, None])[:, 0]


def export(graph: ScoringGraph) -> bytes:
    """Return the graph as ONNX bytes, batch size free, inputs `images` and `valid`, outputs those that it names.

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
            output_names=list(graph.outputs),
            dynamic_axes={name: {0: "batch"} for name in ("images", "valid", *graph.outputs)},
        )
    written = split_phases(widen_narrow(fold_upsampling(fold_crops(fold_padding(buffer.getvalue())))))
    return skip_masks(written, shape.height, shape.width)
