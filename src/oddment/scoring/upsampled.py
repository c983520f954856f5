"""Upsampling, a convolution, ReLU and a last convolution to few channels, all on the small map.

Upsampling by nearest neighbours repeats each pixel in a square of two by two, so that a kernel of three by three meets
only two by two different ones: which, depends on whether row and column are even or odd. Each of these four quarters
of the upsampled map is a convolution of the small one with four ninths of the operations. What the last convolution
makes of them is a product for each pixel of the small map, and a sum over the sixteen pixels around it in the large
one: the quarters are never put together to one large map of many channels.

Source: the identity behind Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016), for
nearest upsampling.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from oddment.models._padding import swept
from oddment.scoring.rewriting import Rewriting, asked

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fold_upsampling"]

_MOST_CHANNELS = 4  # of the result, up to which it was measured to gain
_QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # even and odd rows and columns
# Taps before, at and after a row, as sums over the two rows of the small map that an even and an odd row meet.
_MEETS = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], dtype=np.float64)


class _Chain(NamedTuple):
    """Nodes that follow each other, each the only user of the one before."""

    resize: onnx.NodeProto
    wide: onnx.NodeProto
    relu: onnx.NodeProto
    last: onnx.NodeProto


def fold_upsampling(graph: bytes) -> bytes:
    """Return a graph that gives the same to rounding, with such layers, wherever it has them, on the small map."""
    model = onnx.load_model_from_string(graph)
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    chains = [chain for node in model.graph.node if (chain := _chain(model.graph, node, values))]
    for chain in chains:
        _fold(model.graph, chain, values)
    return swept(model)


def _chain(graph: onnx.GraphProto, node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> _Chain | None:
    """The chain that starts with this node, if it does."""
    if node.op_type != "Resize" or not _doubles(node, values):
        return None
    outputs = {item.name for item in graph.output}
    found = [node]
    for kind in ("Conv", "Relu", "Conv"):
        name = found[-1].output[0]
        users = [other for other in graph.node if name in other.input]
        if len(users) != 1 or users[0].op_type != kind or name in outputs:
            return None
        found.append(users[0])
    wide, last = found[1], found[3]
    if not (_plain(wide, values) and _plain(last, values)):
        return None
    return _Chain(*found) if len(values[last.input[1]]) <= _MOST_CHANNELS else None


def _doubles(resize: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    told = asked(resize)
    nearest = (told.get("mode"), told.get("nearest_mode"), told.get("coordinate_transformation_mode"))
    scales = values.get(resize.input[2]) if len(resize.input) == 3 else None
    return nearest == (b"nearest", b"floor", b"asymmetric") and scales is not None and list(scales) == [1, 1, 2, 2]


def _plain(conv: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    """Whether it is a convolution of 3×3 that keeps the size."""
    told = asked(conv)
    same = {*told.get("strides", [1]), *told.get("dilations", [1]), told.get("group", 1), *told.get("pads", [0])}
    return same == {1} and conv.input[1] in values and values[conv.input[1]].shape[2:] == (3, 3)


def _fold(graph: onnx.GraphProto, chain: _Chain, values: dict[str, NDArray[np.float32]]) -> None:
    """Replace the chain's nodes."""
    small, stem = chain.resize.input[0], chain.last.name or chain.last.output[0]
    wide, last = (values[node.input[1]].astype(np.float64) for node in (chain.wide, chain.last))
    count, given, new = len(last), "", Rewriting(graph, stem)
    for row, column in _QUARTERS:
        quarter = f"{stem}/quarter{row}{column}"
        met = new.known(f"met{row}{column}", np.einsum("oiyx,ry,cx->oirc", wide, _MEETS[row], _MEETS[column]))
        pads = [1 - row, 1 - column, row, column]
        total = new.add("Conv", [small, met, *chain.wide.input[2:]], f"{quarter}/sum", pads=pads)
        values_of = new.add("Relu", [total], quarter)
        # Its pixels add to the nine pixels around them, which lie among the sixteen that a small pixel has there.
        spread = np.zeros((count, 4, 4, last.shape[1]))
        spread[:, row : row + 3, column : column + 3] = last[:, :, ::-1, ::-1].transpose(0, 2, 3, 1)
        kernel = new.known(f"spread{row}{column}", spread.reshape(16 * count, -1, 1, 1))
        own = new.add("Conv", [values_of, kernel], f"{quarter}/given")
        # One by one: the runtime adds each to those before while it computes it.
        given = new.add("Add", [own, given], f"{quarter}/all") if given else own
    # Which of the sixteen: a transposed convolution by ones, a channel of the result from sixteen given ones.
    ones = new.known("ones", np.tile(np.eye(16).reshape(16, 1, 4, 4), (count, 1, 1, 1)))
    inputs = [given, ones, *chain.last.input[2:]]
    new.add("ConvTranspose", inputs, chain.last.output[0], strides=[2, 2], pads=[1, 1, 1, 1], group=count)
    new.replace(chain)
