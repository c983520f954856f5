"""Padding as part of the convolution after it, cropping of the one before it, in graphs that ONNX Runtime runs.

Torch's convolutions pad alike on both sides, and what asks for more on one side is exported as a node of its own.
ONNX Runtime then brings its blocked feature maps into the plain layout, pads them and brings them back: a fifth of the
time of an EfficientNet. A transposed convolution that is cropped on one side writes a large map, of which nearly all is
copied, twice: a sixth of the time of a decoder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fold_crops", "fold_padding", "swept"]

_FAR = 2**31 - 1  # where a slice that ends nowhere is said to end


def fold_padding(graph: bytes) -> bytes:
    """Return a graph that gives the same, with zeros around the input of a convolution, and of it alone, left to it."""
    model = onnx.load_model_from_string(graph)
    outputs = {item.name for item in model.graph.output}
    for pad in [node for node in model.graph.node if node.op_type == "Pad" and node.output[0] not in outputs]:
        users = [node for node in model.graph.node if pad.output[0] in node.input]
        sides = _sides(pad, model)
        if sides is None or any(node.op_type != "Conv" or not _takes(node, pad.output[0]) for node in users):
            continue
        for conv in users:
            conv.input[0] = pad.input[0]
            _add_pads(conv, sides)
        model.graph.node.remove(pad)
    return swept(model)


def fold_crops(graph: bytes) -> bytes:
    """Return a graph that gives the same, with rows and columns that are cut off transposed convolutions not made."""
    model = onnx.load_model_from_string(graph)
    outputs = {item.name for item in model.graph.output}
    for conv in [node for node in model.graph.node if node.op_type == "ConvTranspose" and _written_out(node)]:
        while conv.output[0] not in outputs:
            users = [node for node in model.graph.node if conv.output[0] in node.input]
            sides = _cut(users[0], model) if len(users) == 1 and users[0].op_type == "Slice" else None
            if sides is None:
                break
            _add_pads(conv, sides)
            conv.output[0] = users[0].output[0]
            model.graph.node.remove(users[0])
    return swept(model)


def swept(model: onnx.ModelProto) -> bytes:
    """Return the model without what is computed or kept for nothing; it is changed."""
    graph = model.graph
    while True:
        used = {*(name for node in graph.node for name in node.input), *(item.name for item in graph.output)}
        idle = [node for node in graph.node if used.isdisjoint(node.output)]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)
    rewritten: bytes = model.SerializeToString()
    return rewritten


def _add_pads(conv: onnx.NodeProto, sides: list[int]) -> None:
    given = next((item for item in conv.attribute if item.name == "pads"), None)
    own = list(given.ints) if given else [0, 0, 0, 0]
    if given:
        conv.attribute.remove(given)
    conv.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(own, sides, strict=True)]))


def _cut(crop: onnx.NodeProto, model: onnx.ModelProto) -> list[int] | None:
    """What is cut off a map (N, C, H, W) at top, left, bottom and right; None where it is another kind of slice."""
    found = [_constant(model, name) for name in [*crop.input[1:], *["", ""]][:4]]
    starts, ends, axes, steps = (None if item is None else item.tolist() for item in found)
    if starts is None or ends is None or axes is None or steps not in (None, [1] * len(axes)):
        return None
    sides = [0, 0, 0, 0]
    for start, end, axis in zip(starts, ends, axes, strict=True):
        # An end from the front would need the size of the map.
        if axis not in (2, 3) or start < 0 or not (end < 0 or end >= _FAR):
            return None
        sides[axis - 2] += start
        sides[axis] += -end if end < 0 else 0
    return sides


def _sides(pad: onnx.NodeProto, model: onnx.ModelProto) -> list[int] | None:
    """Zeros at top, left, bottom and right of a map (N, C, H, W); None where it is another kind of padding."""
    mode = next((helper.get_attribute_value(item) for item in pad.attribute if item.name == "mode"), b"constant")
    amounts, value = (_constant(model, name) for name in [*pad.input[1:3], "", ""][:2])
    if mode != b"constant" or amounts is None or len(amounts) != 8 or any(pad.input[3:]):
        return None
    if (len(pad.input) > 2 and pad.input[2] and value is None) or (value is not None and value.any()):
        return None
    first, last = amounts[:4].tolist(), amounts[4:].tolist()
    return None if any(first[:2] + last[:2]) or min(first + last) < 0 else [*first[2:], *last[2:]]


def _constant(model: onnx.ModelProto, name: str) -> NDArray[Any] | None:
    """What the exporter leaves to be computed from constants alone; None where it is not, or where there is none."""
    makers = {output: node for node in model.graph.node for output in node.output}
    known = {item.name: item for item in model.graph.initializer}
    needed: dict[str, onnx.NodeProto] = {}
    asked = [name]
    while asked:
        item = asked.pop()
        if item in makers and makers[item].output[0] not in needed:
            needed[makers[item].output[0]] = makers[item]
            asked += [other for other in makers[item].input if other]
        elif item not in makers and item not in known:
            return None
    nodes = [node for node in model.graph.node if node.output[0] in needed]
    result = helper.make_tensor_value_info(name, onnx.TensorProto.INT64, None)
    used = [known[item] for item in {name, *(item for node in nodes for item in node.input)} if item in known]
    part = helper.make_graph(nodes, "constant", [], [result], used)
    [found] = ReferenceEvaluator(helper.make_model(part, opset_imports=model.opset_import)).run(None, {})
    return np.asarray(found)


def _takes(conv: onnx.NodeProto, name: str) -> bool:
    """Whether it convolves that map, with padding written out."""
    return conv.input[0] == name and name not in list(conv.input)[1:] and _written_out(conv)


def _written_out(conv: onnx.NodeProto) -> bool:
    """Whether its padding is: neither told by a name nor by the size of the result."""
    told = {item.name: helper.get_attribute_value(item) for item in conv.attribute}
    return told.get("auto_pad", b"NOTSET") in (b"NOTSET", b"") and "output_shape" not in told
