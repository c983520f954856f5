"""A memory of normal pictures in gradient features: how far a picture is from them, and from the planes they lie on.

Three measures, each a logarithm, standardised on held-out normal pictures and added, the first with twice the weight:

- nearest: the mean squared distance to the k nearest normal pictures, relative to a power of how far apart those lie
  from their own nearest: up to the square root where strong gradients decide, not at all where weak ones count;
- planes: what is left over when each of the few nearest reconstructs it with its own neighbours, by ridge regression.
  They are the neighbours of a normal picture and not of the one that is scored, so that a picture between two kinds
  (a nine between a four and a seven) is not explained by a mixture of both;
- unlikely: how unlikely the picture is under a mixture of Gaussians, see `_gaussians`.

All three look at principal components, turned so that they forgive what framing changes (`_deformations`); what a
picture has beside these counts where there is far too much of it (`_codes`).

Source: k nearest after Ramaswamy, Rastogi and Shim, "Efficient algorithms for mining outliers from large data sets"
(2000); local scales after Zelnik-Manor and Perona, "Self-tuning spectral clustering" (2004), section 2; reconstruction
from neighbours after Roweis and Saul, "Nonlinear dimensionality reduction by locally linear embedding" (2000), and
Vincent and Bengio, "K-local hyperplane and convex distance nearest neighbor algorithms" (2001), section 3; conjugate
gradients after Hestenes and Stiefel (1952).
Differs in the exponent of the local scale, in planes that are centred on the neighbours' mean, and in weights that fade
with the distance, so that two pictures at almost the same one may change places and the score stays the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from oddment.models import _gaussians
from oddment.models._base import Batch, Leftover, Passes, sum_rows
from oddment.models._baseline import check_options
from oddment.models._codes import SAME, GradientCodes
from oddment.models._gaussians import judge
from oddment.models._gradients import LARGEST_CELL, GradientFeatures, fit_pixels
from oddment.models._mixtures import USUAL_POWER, strokes, thinned
from oddment.models._neighbours import closeness, fading, squared_distances
from oddment.models._registry import ModelSpec, Shape, register

__all__ = ["GradientMemory"]

_WEIGHTS = (2.0, 1.0, 1.0)  # of nearest, planes and unlikely, each in its own standard deviations
_ALARM = 4.0  # weight of what lies too far beside all directions
_MOST_SCALED = 0.5  # exponent of the local scale for strokes; 0 for cloth
_SCALE_NEIGHBOURS = 10  # that say how crowded a normal picture lies
_RIDGE = 0.1  # in squared lengths of features, whose whole length is 1
# The system has 32 unknowns and a condition number of about ten: eight steps leave a ten-thousandth of the residual.
_STEPS = 8
_PLANES = 4  # nearest pictures whose planes count, the last of them hardly
_FADING = 3  # pictures beyond the k nearest whose crowding counts, less and less
_TINY = 1e-9  # squared lengths below this are rounding
_HELD_OUT = 500  # pictures that the measures are standardised on
_ROWS = 500  # pictures compared with the memory at once, while fitting
_FITTED = 20_000  # pictures that directions are fitted to
_TRIED = 4000  # pictures that the power is chosen on and the drawing fitted to


class GradientMemory(GradientCodes):
    """Gradient features, their principal components, a bank of normal pictures, and what the bank leaves over.

    Args:
        shape: channels, height and width of the images.
        references: most normal pictures that are kept, drawn at random with the seed of the fit.
        n_components: principal components that distances are taken in.
        k: nearest pictures whose distance counts.
        neighbours: pictures that reconstruct another one.
        power: of the gradients, see `GradientFeatures`; 0 chooses it, see `_mixtures`.
        forgive: how much of what framing changes is forgiven, see `_deformations`; 0 forgives nothing.
        colour: weight of the colours of colour pictures, see `GradientFeatures`; 0 looks at gradients alone.
        largest_cell: see `GradientFeatures`.
    """

    bank: Tensor
    scale: Tensor
    around: Tensor
    usual: Tensor
    spread: Tensor

    def __init__(
        self,
        shape: Shape,
        *,
        references: int,
        n_components: int,
        k: int,
        neighbours: int,
        power: float,
        forgive: float,
        colour: float = 0.0,
        largest_cell: float = LARGEST_CELL,
    ) -> None:
        super().__init__()
        check_options(references=(references, 2), n_components=(n_components, 1))
        check_options(
            k=(k, 1), neighbours=(neighbours, 2), power=(power, 0.0), forgive=(forgive, 0.0), colour=(colour, 0.0)
        )
        self.shape, self.references, self.forgive = shape, references, forgive
        self.k, self.neighbours, self.given_power = k, neighbours, power
        # Drawn from what fixes the start of every model, so that the memory follows the same seed.
        self.seed = int(torch.randint(2**31 - 1, ()))
        self.gradients = GradientFeatures(shape, power or USUAL_POWER, largest_cell=largest_cell, colour=colour)
        width = self.gradients.width
        start = {
            "centre": torch.zeros(1, width),
            "basis": torch.eye(width)[: min(n_components, width)],
            "metric": torch.eye(min(n_components, width)),
            # Half precision: the file holds it twice, and the distances lose less than a thousandth.
            "bank": torch.zeros(1, min(n_components, width), dtype=torch.float16),
            "scale": torch.ones(1),
            "around": torch.zeros(1, 1, dtype=torch.int32),
            "usual": torch.zeros(3),
            "spread": torch.ones(3),
            "beside": torch.tensor([0.0, 1.0]),
            "canvas": torch.full((1, shape.pixels), 0.5),
            "strokes": torch.zeros(shape.pixels, min(n_components, width)),
        }
        for name, tensor in (start | _gaussians.empty(min(n_components, width))._asdict()).items():
            self.register_buffer(name, tensor)

    # --- fitting

    def settle(self, *normal: Passes) -> None:
        """Remember pictures of the first pass, standardise on those of the last, then remember those as well."""
        self.eval()
        self.choices = ()  # of an earlier fit
        count = sum(len(batch.images) for batch in normal[0]())
        known = thinned(normal[0], count, _TRIED)
        held = thinned(normal[-1], sum(len(batch.images) for batch in normal[-1]()), _HELD_OUT)
        self._set_power(known, held if len(normal) > 1 else None)
        features = self._gather(normal[0], count)
        self._set_directions(features[:_FITTED], known)
        codes = self._code(features)
        self._learn_to_draw(known)
        self._remember(codes)
        unseen = self._all_features(held)
        parts = torch.split(self._code(unseen), 64)
        measures = torch.cat([self._measure(part, alone=True)[0] for part in parts])
        self.usual = measures.mean(0)
        self.spread = measures.std(0, correction=0).clamp_min(0.05)
        self._settle_beside(unseen, codes)
        if len(normal) > 1 and len(codes) < self.references:
            self._remember_more(normal[-1], codes)
        self.choices = (*self.choices, f"{len(self.bank):,} images remembered, in {self._clusters()}")

    def _learn_to_draw(self, known: Batch) -> None:
        self.canvas, self.strokes = fit_pixels(self._code(self._all_features(known)), known.images.flatten(1))

    def _remember_more(self, pictures: Passes, codes: Tensor) -> None:
        """Keep further pictures beside those of the codes, each once, as long as there is room."""
        room = self.references - len(codes)
        more = torch.cat([self._code(self._all_features(batch)) for batch in pictures()])
        known = self.bank.float()
        new = [squared_distances(part, known).amin(1) > SAME for part in torch.split(more, _ROWS)]
        self._remember(torch.cat([codes, more[torch.cat(new)][:room]]))

    def _all_features(self, batch: Batch) -> Tensor:
        return self.gradients.of_many(batch.images, batch.mask)

    def _gather(self, training: Passes, count: int) -> Tensor:
        """Return features (n, F) of the pictures that are kept, of `count`, all equally likely."""
        kept = torch.from_numpy(np.random.default_rng(self.seed).permutation(count) < self.references)
        if count > self.references:
            kept_of = f"{self.references:,} of the {count:,} normal pictures"
            self.notes = (f"It knows {kept_of}, drawn at random (references={self.references}).",)
        features, start = [], 0
        for batch in training():
            keep = kept[start : start + len(batch.images)]
            start += len(keep)
            features.append(self._all_features(Batch(batch.images[keep], batch.mask[keep])))
        return torch.cat(features)

    def _remember(self, codes: Tensor) -> None:
        """Keep the codes, how crowded each lies, which others lie around it, and where they lie thick."""
        self._set_gaussians(codes)
        self.bank = codes.half()
        rows = self.bank.float()
        count = min(self.neighbours, len(rows) - 1)
        if not count:
            self.scale, self.around = torch.ones(1), torch.zeros(1, 1, dtype=torch.int32)
            return
        scales, around = [], []
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            # As in `_measure`: distances are made of the few that are found.
            close, own = closeness(part, rows), torch.arange(len(part))
            close[own, start + own] = -torch.inf
            nearest = close.topk(count, dim=1)
            squared = sum_rows(part.square()) - 2 * nearest.values[:, :_SCALE_NEIGHBOURS]
            scales.append(squared.clamp_min(0).mean(1))
            around.append(nearest.indices.int())
        self.scale, self.around = torch.cat(scales).clamp_min(_TINY), torch.cat(around)

    # --- scoring

    def _measure(self, codes: Tensor, *, alone: bool = False) -> tuple[Tensor, Tensor]:
        """Return the measures (N, 3), ordered as `_WEIGHTS` is, and the reconstruction (N, n_components) of the codes.

        Args:
            codes: (N, n_components).
            alone: leave out a picture of the memory that is the same: it is that picture itself.
        """
        rows = self.bank.float()
        # Distances are made of the few that are found: of all of them, they would take a sixth of the time.
        close, length = closeness(codes, rows), sum_rows(codes.square())
        if alone and len(rows) > 1:
            nearest = close.max(1, keepdim=True)
            same = length - 2 * nearest.values < SAME
            close = close.scatter(1, nearest.indices, torch.where(same, -torch.inf, nearest.values))
        found = close.topk(min(self.k + _FADING + 1, len(rows) - (alone and len(rows) > 1)), dim=1)
        squared = (length - 2 * found.values).clamp_min(0)
        index, few = found.indices[:, : self.k + _FADING], found.indices[:, :_PLANES]
        near = _mean(squared[:, : self.k])
        crowded = sum_rows(fading(squared, self.k + _FADING) * self.scale[index].log())[:, 0]
        planes, rebuilt = _left_over(codes[:, None].expand(-1, few.shape[1], -1), rows[self.around[few].long()])
        share = fading(squared, _PLANES)
        scaled = (near + _TINY).log() - strokes(self.gradients.power) * _MOST_SCALED * crowded
        left = sum_rows(share * planes)[:, 0]
        measures = [scaled, (left + _TINY).log(), (judge(codes, self.gaussians)[0] + 1).log()]
        return torch.stack(measures, 1), (share[:, :, None] * rebuilt).sum(1)

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent.

        The score is a weighted geometric mean of the measures, about 1 for a usual normal picture, and more where the
        picture is of another world. The map shows where the picture differs from what its neighbours make of it, and
        its mean is the score.
        """
        features = self.gradients(batch.images, batch.mask)
        code = self._code(features)
        measures, rebuilt = self._measure(code)
        weight = torch.tensor(_WEIGHTS, device=code.device) / self.spread
        said = sum_rows((measures - self.usual) * weight)[:, 0] + _ALARM * self._too_far_beside(features)
        score = (said / weight.sum()).exp()
        cells = self.gradients.errors(self._unmade(features, rebuilt))
        anomaly_map = self.gradients.spread(cells, score, batch.mask)
        return Leftover(anomaly_map, self.decode(rebuilt), code)


def _mean(values: Tensor) -> Tensor:
    """Return the means (N,) of rows (N, n)."""
    return sum_rows(values)[:, 0] / values.shape[1]


def _left_over(codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ridge regression on others leaves over of codes, and what it makes of them.

    Args:
        codes: (N, S, D).
        others: (N, S, M, D), the pictures that reconstruct each of the S.

    Returns:
        The least over w of |r - wᵀ others|² + ridge · |w|², r and others from the others' mean, (N, S); and the
        reconstruction (N, S, D).
    """
    mean = others.mean(2)
    others, rest = others - mean[:, :, None], codes - mean
    gram = torch.matmul(others, others.transpose(2, 3))
    target = torch.matmul(others, rest[..., None])[..., 0]
    weight, residual, direction = torch.zeros_like(target), target, target
    power = sum_rows(residual.square())
    for _ in range(_STEPS):
        # A product and a sum: ONNX Runtime takes five times as long for as many small matrix-vector products.
        ahead = sum_rows(gram * direction[:, :, None])[..., 0] + _RIDGE * direction
        # A residual of zero has nowhere to go: the floor makes its step zero instead of 0 / 0.
        step = power / sum_rows(direction * ahead).clamp_min(1e-30)
        weight, residual = weight + step * direction, residual - step * ahead
        before, power = power, sum_rows(residual.square())
        direction = residual + power / before.clamp_min(1e-30) * direction
    made = torch.matmul(weight[:, :, None], others)[:, :, 0]
    return (sum_rows((rest - made).square()) + _RIDGE * sum_rows(weight.square()))[..., 0], mean + made


register(
    ModelSpec(
        name="gradient-memory",
        remembers=True,
        summary="gradient features against a memory of normal images; small images, fitted in one pass",
        build=GradientMemory,
        trains=False,
        side=64,
        options={
            "references": 40_000,
            "n_components": 128,
            "k": 5,
            "neighbours": 32,
            "power": 0.0,
            "forgive": 8.0,
            "colour": 1.0,
        },
        draws=False,
        scoring_batch=64,
    )
)
