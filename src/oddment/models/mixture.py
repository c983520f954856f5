"""Gradient features under a mixture of linear autoencoders, one a cluster; fitted in seconds, keeps no picture.

Features are those of `gradient-memory`. Their principal components are parted into clusters, each with a mean and
directions of its own; the score is how unlikely a picture is under all of them together, and the reconstruction is
what its own cluster makes of it. See `_gaussians`, which has the sources.
"""

from __future__ import annotations

import torch
from torch import Tensor

from oddment.models import _gaussians
from oddment.models._base import Batch, Leftover, Passes
from oddment.models._baseline import check_options
from oddment.models._codes import GradientCodes
from oddment.models._gaussians import judge, usual_form
from oddment.models._gradients import GradientFeatures, fit_pixels
from oddment.models._mixtures import USUAL_POWER, thinned
from oddment.models._registry import ModelSpec, Shape, register

__all__ = ["GradientMixture"]

_FITTED = 20_000  # pictures that principal components are fitted to
_TRIED = 4000  # pictures that the power is chosen on and the drawing fitted to
_HELD_OUT = 500  # pictures that say what is usual


class GradientMixture(GradientCodes):
    """Gradient features, their principal components, and a mixture of Gaussians over these.

    Args:
        shape: channels, height and width of the images.
        n_components: principal components.
        power: of the gradients, see `GradientFeatures`; 0 chooses it, see `_mixtures`.
        forgive: how much of what framing changes is forgiven, see `_deformations`; 0 forgives nothing.
        colour: weight of the colours of colour pictures, see `GradientFeatures`; 0 looks at gradients alone.
    """

    usual: Tensor

    def __init__(self, shape: Shape, *, n_components: int, power: float, forgive: float, colour: float) -> None:
        super().__init__()
        check_options(n_components=(n_components, 1), power=(power, 0.0))
        check_options(forgive=(forgive, 0.0), colour=(colour, 0.0))
        self.shape, self.given_power, self.forgive = shape, power, forgive
        # Drawn from what fixes the start of every model, so that the clusters follow the same seed.
        self.seed = int(torch.randint(2**31 - 1, ()))
        self.gradients = GradientFeatures(shape, power or USUAL_POWER, colour=colour)
        width = self.gradients.width
        self.components = min(n_components, width)
        start = {
            "centre": torch.zeros(1, width),
            "basis": torch.eye(width)[: self.components],
            "metric": torch.eye(self.components),
            "usual": torch.ones(1),
            "beside": torch.tensor([0.0, 1.0]),
            "canvas": torch.full((1, shape.pixels), 0.5),
            "strokes": torch.zeros(shape.pixels, self.components),
        }
        for name, tensor in (start | _gaussians.empty(self.components)._asdict()).items():
            self.register_buffer(name, tensor)

    def _codes(self, pictures: Passes) -> Tensor:
        return torch.cat([self._code(self.gradients.of_many(batch.images, batch.mask)) for batch in pictures()])

    def settle(self, *normal: Passes) -> None:
        """Fit to the pictures of the first pass; those of the last, where there are two, say what is usual."""
        self.eval()
        self.choices = ()  # of an earlier fit
        count = sum(len(batch.images) for batch in normal[0]())
        known = thinned(normal[0], count, _TRIED)
        held = thinned(normal[-1], sum(len(batch.images) for batch in normal[-1]()), _HELD_OUT)
        self._set_power(known, held if len(normal) > 1 else None)
        some = thinned(normal[0], count, _FITTED)
        self._set_directions(self.gradients.of_many(some.images, some.mask), known)
        codes = self._codes(normal[0])
        self._set_gaussians(codes)
        self.choices = (*self.choices, f"{self._clusters()} of {len(codes):,} images")
        seen = self._code(self.gradients.of_many(known.images, known.mask))
        self.canvas, self.strokes = fit_pixels(seen, known.images.flatten(1))
        unseen = self.gradients.of_many(held.images, held.mask)
        self.usual = judge(self._code(unseen), self.gaussians)[0].median()[None].clamp_min(1.0)
        self._settle_beside(unseen, codes)

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent.

        The score is how unlikely the picture is, 1 for a usual normal one, and more where it is of another world. The
        map shows where it differs from the usual form that its cluster gives it, and its mean is the score.
        """
        features = self.gradients(batch.images, batch.mask)
        code = self._code(features)
        unlikely, cluster = judge(code, self.gaussians)
        made = usual_form(code, cluster, self.gaussians)
        cells = self.gradients.errors(self._unmade(features, made))
        score = unlikely / self.usual * (1 + self._too_far_beside(features))
        anomaly_map = self.gradients.spread(cells, score, batch.mask)
        return Leftover(anomaly_map, self.decode(made), code)


register(
    ModelSpec(
        name="gradient-mixture",
        summary="linear autoencoders on gradient features, one a cluster; small images, fitted in seconds",
        build=GradientMixture,
        trains=False,
        side=64,
        options={"n_components": 128, "power": 0.0, "forgive": 8.0, "colour": 1.0},
        scoring_batch=64,
        draws=False,
    )
)
