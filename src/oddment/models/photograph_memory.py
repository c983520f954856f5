"""A memory of normal photographs drawn small, from scratch: no network, no epochs.

What a photograph shows as a whole, its layout and where its edges lie, is looked at in drawings of two sizes by
memories of gradient features (`_whole`), which forgive how wide and tall things are. A Gaussian over small windows of
fixed texture features (`_texture`) adds what stands out against the rest of its picture. `_memory` weighs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it

from oddment.models._baseline import check_options
from oddment.models._frames import frame_size, to_frame
from oddment.models._memory import MemoryAutoencoder
from oddment.models._patches import WindowGaussian
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models._texture import CELL, TextureFeatures
from oddment.models._whole import WholePicture

if TYPE_CHECKING:
    from torch import Tensor

    from oddment.models._base import Passes
    from oddment.models._frames import Light, Rectangle

__all__ = ["PhotographMemory"]

_SIDE = 256  # pixels along a frame's side
_MULTIPLE = 32
_SMALLER = (4, 2)  # times than the frame that the drawings are
_WEIGHTS = (0.5, 1.0)  # of the drawings
_CELL = 16  # pixels of the frame along the side of what gradients and texture are averaged over
_WINDOW = 1 / 8
_TEXTURE_WEIGHT = 0.25


class PhotographMemory(MemoryAutoencoder):
    """Memories of two drawings of the whole picture, and a Gaussian on windows of its texture.

    Args:
        shape: channels, height and width of the images.
        references: most normal pictures that each memory keeps.
        forgive: how much of differences in width and height is forgiven, see `_deformations`.
        mirror: 1 remembers drawings mirrored as well where these look as usual, 0 does not.
    """

    def __init__(self, shape: Shape, *, references: int, forgive: float, mirror: int) -> None:
        check_options(references=(references, 2), forgive=(forgive, 0.0), mirror=(mirror, 0))
        texture = TextureFeatures(shape.channels)
        height, width = frame = frame_size(shape.height, shape.width, _SIDE, _MULTIPLE)
        grid = (height // _CELL, width // _CELL)
        # As many cells in the larger drawing as in the smaller one: what differs is how fine an edge may be.
        drawings = [
            WholePicture(
                Shape(1, height // part, width // part),
                weight,
                cell=_CELL / part,
                references=references,
                forgive=forgive,
                mirror=bool(mirror),
            )
            for part, weight in zip(_SMALLER, _WEIGHTS, strict=True)
        ]
        windows = WindowGaussian(texture.width, grid, _WINDOW, own=1.0, weight=_TEXTURE_WEIGHT)
        super().__init__(shape, [(windows,), *((drawing,) for drawing in drawings)])
        self.frame, self.texture = frame, texture

    def settle(self, *normal: Passes) -> None:
        """Fit, and say once what the drawings make little of: nothing else here sees all of a picture."""
        super().settle(*normal)
        drawings = [expert for expert in self.experts if isinstance(expert, WholePicture)]
        self.notes = tuple(dict.fromkeys([*self.notes, *(note for drawing in drawings for note in drawing.notes)]))

    def describe(self, images: Tensor, where: Rectangle, lit: Light) -> tuple[Tensor, ...]:
        """Return texture (N, D, h, w), then the drawings."""
        frames = to_frame(lit.even(images), where, self.frame)
        texture = self.texture(frames, torch.ones_like(frames[:, :1]))[0]
        return (F.avg_pool2d(texture, _CELL // CELL), *(F.avg_pool2d(frames, part) for part in _SMALLER))


register(
    ModelSpec(
        name="photograph-memory",
        remembers=True,
        summary="photographs drawn small against a memory of normal ones; from scratch, fitted in one pass",
        build=PhotographMemory,
        trains=False,
        stride=8,
        side=256,
        options={"references": 2000, "forgive": 8.0, "mirror": 1},
        draws=False,
        scoring_batch=1,
    )
)
