"""An expert on whole photographs, drawn small: layout and shading that no patch and no half of a picture shows.

Experts of `_patches` look at features of a network at places and windows. A memory of gradient features, as for small
pictures, looks at all of the picture at once, and forgives how wide and tall it is. Where mirrored pictures look as
usual as the pictures do, it remembers them both ways: of a few objects it then knows twice as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._base import Batch
from oddment.models._frames import to_frame
from oddment.models._neighbours import squared_distances
from oddment.models._texture import luma
from oddment.models.memory import GradientMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oddment.models._frames import Rectangle
    from oddment.models._registry import Shape

__all__ = ["WholePicture", "alike_mirrored", "drawing"]

_POWER = 0.7  # strong edges decide
_DIRECTIONS = 256  # principal components of their features: twice those of small pictures, which show less
_AT_ONCE = 64
_FINER = 2  # times, along a side, that pictures are drawn before they are averaged
_COMPARED = 500  # pictures that are mirrored to see whether they look as usual
_FEWEST_COMPARED = 30
# Chance that a mirrored picture lies further from the others than a picture does, up to which it looks as usual: at
# most .55 of shirts, bags and magnetic tiles, at least .64 of digits, trousers and shoes.
_AS_USUAL = 0.6
_FAR = 2 / 3  # of the others that lie nearer than the one whose distance is compared
_MIRRORED = (
    "Mirrored left to right, these pictures look as usual as they are: both count as normal; mirror=0 undoes that."
)


class _Undrawn(GradientMemory):
    """A memory whose codes nobody draws: what draws them would be most of a model file."""

    def _learn_to_draw(self, known: Batch) -> None:  # noqa: ARG002 - nothing is learnt
        self.canvas, self.strokes = self.canvas.new_zeros(1, 0), self.strokes.new_zeros(0, len(self.basis))

    def decode(self, latent: Tensor) -> Tensor:
        """Return blank pictures (N, C, H, W)."""
        return latent.new_zeros(len(latent), self.shape.channels, self.shape.height, self.shape.width)


class WholePicture(nn.Module):
    """How far a small gray drawing of the picture is from those of normal ones, see `memory`.

    Args:
        shape: of the drawings: one channel, height and width.
        weight: what the expert counts in a picture's score.
        cell: pixels of the drawing along the side of a cell of gradients.
        shows: whether its map counts in the picture's.
        references: most drawings that are kept, mirrored ones not counted.
        forgive: how much of differences in width and height is forgiven, see `_deformations`.
        mirror: whether drawings are remembered mirrored as well where these look as usual.
    """

    def __init__(
        self,
        shape: Shape,
        weight: float,
        *,
        cell: float,
        shows: bool = True,
        references: int = 2000,
        forgive: float,
        mirror: bool = True,
    ) -> None:
        super().__init__()
        self.weight, self.shows, self.mirror = weight, shows, mirror
        self.references = references
        self._said: tuple[str, ...] = ()
        self.memory = _Undrawn(
            shape,
            references=references,
            n_components=_DIRECTIONS,
            k=5,
            neighbours=32,
            power=_POWER,
            forgive=forgive,
            largest_cell=cell,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the last fit left out or makes little of, in sentences."""
        return (*self.memory.notes, *self._said)

    def fit(self, features: Tensor, generator: torch.Generator) -> None:
        """Remember drawings (n, C, h, w) of normal pictures."""
        self.memory.seed = int(torch.randint(2**31 - 1, (), generator=generator))
        both = self.mirror and self._looks_mirrored(features)
        shown = (features, features.flip(3)) if both else (features,)
        # Of a few they are as good as new ones; of more than are kept, each still has its own.
        self.memory.references = self.references * len(shown)

        def pictures() -> Iterator[Batch]:
            for part in (part for drawn in shown for part in torch.split(drawn, _AT_ONCE)):
                yield _gray(part.float())

        self.memory.notes = ()  # of an earlier fit
        self._said = (_MIRRORED,) if both else ()
        self.memory.settle(pictures)

    def _looks_mirrored(self, features: Tensor) -> bool:
        """Whether drawings (n, C, h, w) look as usual when they are mirrored; not known of a few."""
        if len(features) < _FEWEST_COMPARED:
            return False
        some = features[:: -(-len(features) // _COMPARED)]
        shown = [_gray(drawn.float()) for drawn in (some, some.flip(3))]
        return alike_mirrored(*(self.memory.gradients.of_many(each.images, each.mask) for each in shown))

    def forward(self, features: Tensor) -> Tensor:
        """Return a map (N, h, w), whose mean is the score, of drawings (N, C, h, w)."""
        found: Tensor = self.memory.leftover(_gray(features)).anomaly_map
        return found

    def pool(self, anomaly_map: Tensor) -> Tensor:
        """Return the score (N,) of a map (N, h, w)."""
        return anomaly_map.mean((1, 2))


def alike_mirrored(features: Tensor, mirrored: Tensor) -> bool:
    """Return whether mirrored pictures lie among the others as the pictures themselves do.

    Compared are distances to one of the farther others and not to the nearest: of one object there may be many
    pictures, and no mirrored one.

    Args:
        features: (n, F) of pictures.
        mirrored: (n, F) of the same mirrored.
    """
    own, other = (squared_distances(rows, features).quantile(_FAR, 1) for rows in (features, mirrored))
    return bool((other[:, None] > own).float().mean() < _AS_USUAL)


def drawing(images: Tensor, where: Rectangle, size: tuple[int, int]) -> Tensor:
    """Return the real part of images (N, C, H, W) at a small size (N, C, h, w); pixels are means of what they cover."""
    finer = to_frame(images, where, (_FINER * size[0], _FINER * size[1]))
    return F.avg_pool2d(finer, _FINER)


def _gray(drawn: Tensor) -> Batch:
    images = luma(drawn)
    return Batch(images, torch.ones_like(images))
