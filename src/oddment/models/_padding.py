"""Padding as part of the convolution after it, in graphs that ONNX Runtime runs.

Torch's convolutions pad alike on both sides, and what asks for more on one side is exported as a node of its own.
ONNX Runtime then brings its blocked feature maps into the plain layout, pads them and brings them back: a fifth of the
time of an EfficientNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fold_padding"]


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
            given = next((item for item in conv.attribute if item.name == "pads"), None)
            own = list(given.ints) if given else [0, 0, 0, 0]
            if given:
                conv.attribute.remove(given)
            conv.attribute.append(helper.make_attribute("pads", [a + b for a, b in zip(own, sides, strict=True)]))
        model.graph.node.remove(pad)
    rewritten: bytes = model.SerializeToString()
    return rewritten


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
    automatic = any(item.name == "auto_pad" and item.s not in (b"NOTSET", b"") for item in conv.attribute)
    return conv.input[0] == name and name not in list(conv.input)[1:] and not automatic
