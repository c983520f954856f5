"""A memory of normal photographs in the features of a network that others trained; the best that is here for them.

The network is frozen and lies in the graph (see `_pretrained`); what is fitted, in one pass, are the experts of
`_patches` on its features at two sizes, weighed against each other by `_memory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it

from oddment.errors import ParameterError
from oddment.models._frames import frame_size, to_frame
from oddment.models._memory import MemoryAutoencoder
from oddment.models._patches import PatchMemory, WindowGaussian
from oddment.models._pretrained import BACKBONES, EfficientNetLite
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from torch import Tensor

    from oddment.models._frames import Light, Rectangle

__all__ = ["FeatureMemory"]

_STRIDE = 32  # of the deepest features that are looked at
_MARGIN = 32  # pixels of reflection around a frame, whose features are cut off: a border is no defect
_TAPS = {"efficientnet-lite0": (14, 15), "efficientnet-lite2": (19, 20)}  # the last two blocks
_SIDES = (256, 384)


class FeatureMemory(MemoryAutoencoder):
    """Patch memories and window Gaussians on the two deepest outputs of a pretrained network, at two sizes.

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
        width = sum(network.widths)
        grids = [(height // _STRIDE, length // _STRIDE) for height, length in sizes]
        super().__init__(
            shape, [(PatchMemory(width, memory, neighbours), WindowGaussian(width, grid)) for grid in grids]
        )
        self.sizes = sizes
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def describe(self, images: Tensor, where: Rectangle, lit: Light) -> tuple[Tensor, ...]:
        """Return the network's features at each size, (N, D, h, w), averaged over 3 × 3 cells."""
        even = lit.even(images)
        cut = _MARGIN // _STRIDE
        features = []
        for size in self.sizes:
            frames = (to_frame(even, where, size, _MARGIN) - 0.498) / 0.502  # as the network was trained
            frames = frames.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            found = torch.cat(self.network(frames), 1)[:, :, cut:-cut, cut:-cut]
            features.append(F.avg_pool2d(found, 3, 1, 1, count_include_pad=False))
        return tuple(features)


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
        scoring_batch=1,  # as quick a picture as eight together on a processor, and a fraction of the memory
    )
)
