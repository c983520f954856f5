"""The part of a scoring graph that leads to its score, for those who want nothing else.

ONNX Runtime computes all outputs of a graph, whatever is asked for. Of a small dense model, writing map, drawing and
latent takes a fifth of the time. What is left here are the very operations that made the score before.

The file format of ONNX is a protocol buffer; the few fields that name operations are described here, and all others
pass through unread: the `onnx` package belongs to the learning half.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from oddment.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["score_path"]

# Of onnx.proto: message, and of its fields name, number and type; a type that is no message is bytes.
_FIELDS = {
    "Model": [("graph", 7, "Graph")],
    "Graph": [("node", 1, "Node"), ("output", 12, "Value")],
    "Node": [("input", 1, ""), ("output", 2, ""), ("op_type", 4, ""), ("attribute", 5, "Attribute")],
    "Attribute": [("g", 6, "Graph"), ("graphs", 11, "Graph")],
    "Value": [("name", 1, "")],
}
_SINGLE = {"graph", "g", "op_type", "name"}


def score_path(graph: bytes, wanted: str = "anomaly_score") -> bytes:
    """Return a graph with one output, and without what that does not need.

    Args:
        graph: ONNX bytes.
        wanted: one of its outputs.

    Raises:
        ModelFileError: if the bytes are no protocol buffer of this kind, or nested more than 100 deep.
    """
    model = _model()()
    try:
        model.ParseFromString(graph)
    except DecodeError as error:
        msg = f"its graph.onnx cannot be read: {error}"
        raise ModelFileError(msg) from error
    kept = [item for item in model.graph.output if item.name == wanted.encode()]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    _prune(model.graph, {wanted.encode()})
    written: bytes = model.SerializeToString()
    return written


def _prune(graph: Any, needed: set[bytes]) -> None:  # noqa: ANN401 - a message of a type made while running
    """Drop the nodes that nothing needed depends on, and outputs of branches that nobody asks for."""
    kept = []
    for node in reversed(graph.node):
        if not needed.intersection(node.output):
            continue
        if node.op_type == b"If":
            _narrow(node, needed)
        kept.append(node)
        needed.update(_inputs([node]))
    # Copies: the messages go when their list is emptied.
    copies = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(copies)


def _narrow(node: Any, needed: set[bytes]) -> None:  # noqa: ANN401
    """Leave an `If` the outputs that are needed, in both of its branches."""
    places = [place for place, name in enumerate(node.output) if name not in needed]
    for branch in (attribute.g for attribute in node.attribute):
        for place in reversed(places):
            del branch.output[place]
        _prune(branch, {item.name for item in branch.output})
    for place in reversed(places):
        del node.output[place]


def _inputs(nodes: Iterable[Any]) -> set[bytes]:
    """What nodes take, and the nodes inside of them: branches use names from outside."""
    found: set[bytes] = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                found |= _inputs(inner.node) | {item.name for item in inner.output}
    return found


@cache
def _model() -> Any:  # noqa: ANN401
    """The class of models; fields that are not described are kept as they are."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="oddment/scorepath.proto", package="oddment.onnx", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_OPTIONAL if field in _SINGLE else kinds.LABEL_REPEATED,
                type=kinds.TYPE_MESSAGE if kind else kinds.TYPE_BYTES,
                type_name=f".oddment.onnx.{kind}" if kind else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oddment.onnx.Model"))
