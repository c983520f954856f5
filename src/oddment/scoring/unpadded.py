"""Scores of batches in which nothing is padded, without the masks that would keep padding out of them.

Masks of ones take a fifth of the time of a small dense model: drawing them, multiplying with them and counting their
pixels. What a graph computes from `valid` goes into one branch of an `If`; the other, for batches of whole pictures,
takes the map as it is and the number of pixels as known. Both give the same bits: a product with one is exact, the
number of pixels is whole, and sums are added up by the same operator in the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["skip_masks"]

_VALID, _SCORE, _MAP = "valid", "anomaly_score", "anomaly_map"


def skip_masks(graph: bytes, height: int, width: int) -> bytes:
    """Return the same graph with its masks left out where no picture is padded; as it is where they do more than that.

    Args:
        graph: ONNX bytes with inputs `images` and `valid`, outputs among them `anomaly_score` and `anomaly_map`.
        height: of its images.
        width: likewise.
    """
    model = onnx.load_model_from_string(graph)
    nodes = list(model.graph.node)
    fixed = {item.name for item in model.graph.initializer} | {
        name for node in nodes if node.op_type == "Constant" for name in node.output
    }
    masks = _computed_from({_VALID}, nodes, lambda inputs, known: inputs - fixed <= known and bool(inputs & known))
    after = _computed_from({_VALID}, nodes, lambda inputs, known: bool(inputs & known))
    judging = [node for node in after if node not in masks]
    made = {name for node in masks for name in node.output}
    masked = [node for node in judging if made & set(node.input)]
    outputs = {item.name for item in model.graph.output} & {name for node in after for name in node.output}
    # A map times its mask, and a sum divided by the number of pixels: any other use of masks is left alone.
    if outputs != {_SCORE, _MAP} or sorted(node.op_type for node in masked) != ["Div", "Mul"]:
        return graph
    size = numpy_helper.from_array(np.array(height * width, np.float32), "whole_pixels")
    every = numpy_helper.from_array(np.array([[0, 0, height, width]], np.int64), "whole_valid")
    model.graph.initializer.extend([size, every])
    whole = [_unmasked(node, made, size.name) for node in judging]
    condition = [
        helper.make_node("Equal", [_VALID, every.name], ["sides_whole"]),
        helper.make_node("Cast", ["sides_whole"], ["sides_whole_number"], to=TensorProto.INT32),
        helper.make_node("ReduceMin", ["sides_whole_number"], ["all_whole_number"], keepdims=0),
        helper.make_node("Cast", ["all_whole_number"], ["all_whole"], to=TensorProto.BOOL),
    ]
    branches = {
        "then_branch": _branch("whole", whole, height, width),
        "else_branch": _branch("padded", after, height, width),
    }
    rest = [node for node in nodes if node not in after]
    del model.graph.node[:]
    model.graph.node.extend([*rest, *condition, helper.make_node("If", ["all_whole"], [_SCORE, _MAP], **branches)])
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _computed_from(
    known: set[str], nodes: Iterable[onnx.NodeProto], takes: Callable[[set[str], set[str]], bool]
) -> list[onnx.NodeProto]:
    """The nodes, in order, whose inputs are taken, given what is known from those before."""
    found, known = [], set(known)
    for node in nodes:
        if takes(set(node.input), known):
            found.append(node)
            known |= set(node.output)
    return found


def _unmasked(node: onnx.NodeProto, made: set[str], size: str) -> onnx.NodeProto:
    """The node as it is for whole pictures: a product with a mask is its other factor, a count of pixels is known."""
    masked = made & set(node.input)
    if not masked:
        return node
    if node.op_type == "Mul":
        [levels] = set(node.input) - masked
        return helper.make_node("Identity", [levels], list(node.output))
    return helper.make_node(node.op_type, [size if name in masked else name for name in node.input], list(node.output))


def _branch(name: str, nodes: Iterable[onnx.NodeProto], height: int, width: int) -> onnx.GraphProto:
    """A branch of these nodes, which gives score and map; what it computes has names of its own."""
    copies = []
    renamed: dict[str, str] = {}
    for node in nodes:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        renamed.update({output: f"{name}/{output}" for output in node.output})
        for names in (copy.input, copy.output):
            names[:] = [renamed.get(each, each) for each in names]
        copies.append(copy)
    shapes: dict[str, list[str | int | None]] = {_SCORE: ["batch"], _MAP: ["batch", height, width]}
    outputs = [
        helper.make_tensor_value_info(renamed[output], TensorProto.FLOAT, shape) for output, shape in shapes.items()
    ]
    return helper.make_graph(copies, name, [], outputs)
