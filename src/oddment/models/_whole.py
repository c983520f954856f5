"""An expert on whole photographs, drawn small: layout and shading that no patch and no half of a picture shows.

Experts of `_patches` look at features of a network at places and windows. A memory of gradient features, as for small
pictures, looks at all of the picture at once, and forgives how wide and tall it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._base import Batch
from oddment.models._frames import to_frame
from oddment.models._gradients import LARGEST_CELL
from oddment.models._texture import luma
from oddment.models.memory import GradientMemory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oddment.models._frames import Rectangle
    from oddment.models._registry import Shape

__all__ = ["WholePicture", "drawing"]

_POWER = 0.7  # strong edges decide
_REFERENCES = 2000
_AT_ONCE = 64
_FINER = 4  # times, along a side, that pictures are drawn before they are averaged


class WholePicture(nn.Module):
    """How far a small gray drawing of the picture is from those of normal ones, see `memory`.

    Args:
        shape: of the drawings: one channel, height and width.
        weight: what the expert counts in a picture's score.
        cell: pixels of the drawing along the side of a cell of gradients.
        shows: whether its map counts in the picture's.
        references: most drawings that are kept.
        forgive: how much of differences in width and height is forgiven, see `_deformations`.
    """

    def __init__(
        self,
        shape: Shape,
        weight: float,
        *,
        cell: float = LARGEST_CELL,
        shows: bool = True,
        references: int = _REFERENCES,
        forgive: float,
    ) -> None:
        super().__init__()
        self.weight, self.shows = weight, shows
        self.memory = GradientMemory(
            shape,
            references=references,
            n_components=128,
            k=5,
            neighbours=32,
            power=_POWER,
            forgive=forgive,
            largest_cell=cell,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the last fit left out or makes little of, in sentences."""
        return self.memory.notes

    def fit(self, features: Tensor, generator: torch.Generator) -> None:
        """Remember drawings (n, C, h, w) of normal pictures."""
        self.memory.seed = int(torch.randint(2**31 - 1, (), generator=generator))

        def pictures() -> Iterator[Batch]:
            for part in torch.split(features, _AT_ONCE):
                yield _gray(part.float())

        self.memory.notes = ()  # of an earlier fit
        self.memory.settle(pictures)

    def forward(self, features: Tensor) -> Tensor:
        """Return a map (N, h, w), whose mean is the score, of drawings (N, C, h, w)."""
        found: Tensor = self.memory.leftover(_gray(features)).anomaly_map
        return found

    def pool(self, anomaly_map: Tensor) -> Tensor:
        """Return the score (N,) of a map (N, h, w)."""
        return anomaly_map.mean((1, 2))


def drawing(images: Tensor, where: Rectangle, size: tuple[int, int]) -> Tensor:
    """Return the real part of images (N, C, H, W) at a small size (N, C, h, w); pixels are means of what they cover."""
    finer = to_frame(images, where, (_FINER * size[0], _FINER * size[1]))
    return F.avg_pool2d(finer, _FINER)


def _gray(drawn: Tensor) -> Batch:
    images = luma(drawn)
    return Batch(images, torch.ones_like(images))
