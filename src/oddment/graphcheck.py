"""Looks through the bytes of an ONNX graph for what could reach outside of it, before ONNX Runtime sees them.

A tensor of an ONNX graph may lie in a file beside it, and ONNX Runtime opens any path that it is told, `../` included.
A search for the bytes of such a reference can be fooled, since protobuf allows the same field to be written in several
ways; so that this walks the fields as a protobuf reader does.

Source: onnx.proto3 of ONNX 1.16 for the field numbers; protobuf's "Encoding" document for the wire format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oddment.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_graph"]

# Message and field number to the message in that field; only what can hold a tensor or an operator.
_INSIDE = {
    ("model", 7): "graph",
    ("graph", 1): "node",
    ("graph", 5): "tensor",
    ("graph", 15): "sparse tensor",
    ("node", 5): "attribute",
    ("attribute", 5): "tensor",
    ("attribute", 6): "graph",
    ("attribute", 10): "tensor",
    ("attribute", 11): "graph",
    ("attribute", 22): "sparse tensor",
    ("attribute", 23): "sparse tensor",
    ("sparse tensor", 1): "tensor",
    ("sparse tensor", 2): "tensor",
}
_FORBIDDEN = {
    ("model", 20): "holds a training part",
    ("model", 25): "defines functions of its own",
    ("tensor", 13): "refers to a file outside the model file",
}
_DATA_LOCATION = ("tensor", 14)
_NODE_DOMAIN = ("node", 7)
_DOMAINS = (b"", b"ai.onnx")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MOST_VARINT_BYTES = 10


def check_graph(data: bytes) -> None:
    """Check that a graph is well-formed protobuf, complete in itself and made of ONNX's own operators.

    Raises:
        ModelFileError: if it is not.
    """
    view = memoryview(data)
    # A stack of our own: graphs may be nested deeper than Python may recurse.
    pending = [("model", view)]
    while pending:
        message, content = pending.pop()
        for field, value in _fields(content):
            key = (message, field)
            if key in _FORBIDDEN:
                msg = f"its graph.onnx {_FORBIDDEN[key]}, which the format forbids"
                raise ModelFileError(msg)
            if key == _DATA_LOCATION and value != 0:
                msg = "its graph.onnx refers to a file outside the model file, which the format forbids"
                raise ModelFileError(msg)
            if key == _NODE_DOMAIN and not (isinstance(value, memoryview) and bytes(value) in _DOMAINS):
                msg = "its graph.onnx uses operators other than ONNX's own, which the format forbids"
                raise ModelFileError(msg)
            if key in _INSIDE and isinstance(value, memoryview):
                pending.append((_INSIDE[key], value))


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of each field of one message; the value of a fixed-size number is given as 0."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        field, kind = tag >> 3, tag & 7
        # Readers keep 32 bits of a tag, so that a larger one would be another field to them.
        if not 0 < field < 1 << 29:
            raise ModelFileError(_damaged(at))
        value: int | memoryview = 0
        if kind == _VARINT:
            value, at = _varint(data, at)
        elif kind == _BYTES:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise ModelFileError(_damaged(at))
        if at > len(data):
            raise ModelFileError(_damaged(len(data)))
        yield field, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """The number that starts at `at`, and where the next field starts."""
    value = 0
    for index, byte in enumerate(data[at : at + _MOST_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ModelFileError(_damaged(at))


def _damaged(at: int) -> str:
    return f"its graph.onnx is no ONNX graph (damaged near byte {at:,} of a part)"
