"""A memory of normal photographs in the features of a network that others trained; the best that is here for them.

The network is frozen and lies in the graph (see `_pretrained`); what is fitted, in one pass, are the experts of
`_patches` on its features at two sizes, weighed against each other by `_memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it

from oddment.errors import ParameterError
from oddment.models._frames import frame_size, local_contrast, to_frame
from oddment.models._memory import MemoryAutoencoder
from oddment.models._patches import PatchMemory, WindowGaussian
from oddment.models._pretrained import BACKBONES, EfficientNetLite
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from torch import Tensor

    from oddment.models._frames import Light, Rectangle

__all__ = ["FeatureMemory"]

_STRIDE = 32  # of the deepest features that are looked at
_FINE_STRIDE = 16
_MARGIN = 32  # pixels of reflection around a frame, whose features are cut off: a border is no defect
# The last blocks of the fourth and the fifth stage, and the last two of all.
_TAPS = {"efficientnet-lite0": (7, 10, 14, 15), "efficientnet-lite2": (10, 14, 19, 20)}
_SIDES = (256, 384)
_REACH = 1 / 16  # of a frame's shorter side: how far what lies around a pixel reaches
_MEMORY_WEIGHT = 2.0  # a memory is one of its kind at a size; of the Gaussians, there are more


class FeatureMemory(MemoryAutoencoder):
    """Patch memories and window Gaussians on the outputs of a pretrained network, at two sizes.

    Args:
        shape: channels, height and width of the images.
        backbone: a name in `BACKBONES`.
        memory: normal features that are kept at each size.
        neighbours: of them, that reconstruct a feature.
    """

    def __init__(self, shape: Shape, *, backbone: str, memory: int, neighbours: int) -> None:
        if backbone not in BACKBONES:
            msg = f"backbone must be one of {', '.join(BACKBONES)}; got {backbone!r}."
            raise ParameterError(msg)
        if min(memory, neighbours) < 1:
            msg = f"memory and neighbours must be at least 1; got {memory} and {neighbours}."
            raise ParameterError(msg)
        sizes = [frame_size(shape.height, shape.width, side, _STRIDE) for side in _SIDES]
        network = EfficientNetLite(backbone, _TAPS[backbone])
        network.load()
        texture, detail, *deep = network.widths
        experts: list[tuple[PatchMemory | WindowGaussian, ...]] = []
        for height, length in sizes:
            grid = (height // _STRIDE, length // _STRIDE)
            kept = PatchMemory(sum(deep), memory, neighbours, _MEMORY_WEIGHT)
            experts.append((kept, WindowGaussian(sum(deep), grid)))
        fine = (sizes[-1][0] // _FINE_STRIDE, sizes[-1][1] // _FINE_STRIDE)
        experts += [
            (WindowGaussian(detail, fine, 1 / 8, own=1.0),),
            (WindowGaussian(texture, fine, 1 / 4, weight=0.0),),  # where texture ends, not whether a picture is odd
        ]
        super().__init__(shape, experts)
        self.sizes = sizes
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def describe(self, images: Tensor, where: Rectangle, lit: Light) -> tuple[Tensor, ...]:
        """Return features (N, D, h, w) averaged over 3 × 3 cells: the deepest at each size, two finer at the larger."""
        even = lit.even(images)
        deepest, found = [], []
        for number, size in enumerate(self.sizes):
            # What lies around is taken off at the smaller size; at the larger, shade and colour are left to be seen.
            if number == 0:
                frames = local_contrast(to_frame(images, where, size, _MARGIN), _REACH * min(size))
            else:
                frames = to_frame(even, where, size, _MARGIN)
            frames = ((frames - 0.498) / 0.502).expand(-1, 3, -1, -1)  # as the network was trained
            found = self.network(frames.contiguous(memory_format=torch.channels_last))
            deepest.append(_without_margin(torch.cat(found[2:], 1), _STRIDE))
        detail, texture = (_without_margin(found[tap], _FINE_STRIDE) for tap in (1, 0))
        return (*deepest, detail, texture)


def _without_margin(features: Tensor, stride: int) -> Tensor:
    """Return features (N, D, h, w) of the frame alone, each cell the mean of those around it."""
    cut = _MARGIN // stride
    return F.avg_pool2d(features[:, :, cut:-cut, cut:-cut], 3, 1, 1, count_include_pad=False)


register(
    ModelSpec(
        name="feature-memory",
        remembers=True,
        summary="memory and Gaussians on the features of a pretrained network (extra: features); photographs",
        build=FeatureMemory,
        trains=False,
        stride=8,
        side=384,
        options={"backbone": "efficientnet-lite0", "memory": 5000, "neighbours": 5},
        draws=False,
        scoring_batch=1,  # as quick a picture as eight together on a processor, and a fraction of the memory
    )
)
