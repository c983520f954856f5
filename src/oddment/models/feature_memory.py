"""A memory of normal photographs in the features of a network that others trained; the best that is here for them.

The network is frozen and lies in the graph (see `_backbones`); what is fitted, in one pass, are the experts of
`_patches` on its features at two sizes and the one of `_whole` on a small drawing, weighed against each other by
`_memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oddment.models._backbones import DETAIL_STRIDE, STRIDE, load_backbone
from oddment.models._baseline import check_options
from oddment.models._frames import frame_size, local_contrast, to_frame, without_margin
from oddment.models._memory import MemoryAutoencoder
from oddment.models._patches import PatchMemory, WindowGaussian
from oddment.models._registry import ModelSpec, Shape, register
from oddment.models._whole import WholePicture, drawing

if TYPE_CHECKING:
    from torch import Tensor

    from oddment.models._frames import Light, Rectangle
    from oddment.models._memory import Expert

__all__ = ["FeatureMemory"]

_MARGIN = 32  # pixels of reflection around a frame, whose features are cut off: a border is no defect
_SIDES = (256, 384)
_REACH = 1 / 16  # of a frame's shorter side: how far what lies around a pixel reaches
_WHOLE_SIDE = 128  # pixels of the drawing that an expert on whole pictures looks at, in steps of its cells
_WHOLE_CELL = 8
_WHOLE_WEIGHT = 1.5
_MEMORY_WEIGHTS = (2.0, 1.0)  # at each size: what is fine enough for the larger, windows look at as well


class FeatureMemory(MemoryAutoencoder):
    """Patch memories and window Gaussians on the outputs of a pretrained network, at two sizes.

    Args:
        shape: channels, height and width of the images.
        backbone: a name that `load_backbone` knows.
        memory: normal features that are kept at each size.
        neighbours: of them, that reconstruct a feature.
        forgive: how much of width and height is forgiven to the drawing of the whole picture, see `_deformations`.
        mirror: 1 remembers that drawing mirrored as well where it looks as usual, 0 does not.
    """

    def __init__(
        self, shape: Shape, *, backbone: str, memory: int, neighbours: int, forgive: float, mirror: int
    ) -> None:
        check_options(memory=(memory, 1), neighbours=(neighbours, 1), forgive=(forgive, 0.0), mirror=(mirror, 0))
        network = load_backbone(backbone)
        sizes = [frame_size(shape.height, shape.width, side, STRIDE) for side in _SIDES]
        whole = frame_size(shape.height, shape.width, _WHOLE_SIDE, _WHOLE_CELL)
        experts: list[tuple[Expert, ...]] = []
        for (height, length), weight in zip(sizes, _MEMORY_WEIGHTS, strict=True):
            kept = PatchMemory(network.deepest, memory, neighbours, weight)
            experts.append((kept, WindowGaussian(network.deepest, (height // STRIDE, length // STRIDE))))
        fine = (sizes[-1][0] // DETAIL_STRIDE, sizes[-1][1] // DETAIL_STRIDE)
        experts += [
            (WindowGaussian(network.detail, fine, 1 / 8, own=1.0),),
            # Where texture ends, not whether a picture is odd.
            (WindowGaussian(network.texture, fine, 1 / 4, weight=0.0),),
            # Where something is odd, patches and windows know better.
            (
                WholePicture(
                    Shape(1, *whole),
                    _WHOLE_WEIGHT,
                    cell=_WHOLE_CELL,
                    shows=False,
                    forgive=forgive,
                    mirror=bool(mirror),
                ),
            ),
        ]
        super().__init__(shape, experts)
        self.sizes, self.whole = sizes, whole
        self.network = network

    def describe(self, images: Tensor, where: Rectangle, lit: Light) -> tuple[Tensor, ...]:
        """Return features (N, D, h, w) averaged over 3 × 3 cells, the deepest at each size, two finer at the larger.

        Last comes a small drawing of the picture.
        """
        even = lit.even(images)
        deepest, cut = [], _MARGIN // STRIDE
        for number, size in enumerate(self.sizes):
            # What lies around is taken off at the smaller size; at the larger, shade and colour are left to be seen.
            if number == 0:
                frames = local_contrast(to_frame(images, where, size, _MARGIN), _REACH * min(size))
            else:
                frames = to_frame(even, where, size, _MARGIN)
            texture, detail, deep = self.network(frames)
            deepest.append(without_margin(deep, cut))
        fine = _MARGIN // DETAIL_STRIDE
        drawn = drawing(even, where, self.whole)
        return (*deepest, without_margin(detail, fine), without_margin(texture, fine), drawn)


register(
    ModelSpec(
        name="feature-memory",
        remembers=True,
        summary="memory and Gaussians on the features of a pretrained network (extra: features); photographs",
        build=FeatureMemory,
        trains=False,
        stride=8,
        side=384,
        options={"backbone": "efficientnet-lite0", "memory": 20_000, "neighbours": 8, "forgive": 8.0, "mirror": 1},
        draws=False,
        scoring_batch=1,  # as quick a picture as eight together on a processor, and a fraction of the memory
    )
)
