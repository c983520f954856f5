"""Nodes of an exported graph exchanged for others that give the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

__all__ = ["Rewriting", "asked"]


def asked(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


class Rewriting:
    """What takes the place of some nodes: collected first, put in at the end.

    Args:
        graph: to be changed.
        stem: what the names of new constants begin with.
    """

    def __init__(self, graph: onnx.GraphProto, stem: str) -> None:
        self.graph, self.stem = graph, stem
        self._nodes: list[onnx.NodeProto] = []

    def known(self, what: str, array: NDArray[Any]) -> str:
        """Add a float32 constant; return its name."""
        name = f"{self.stem}/{what}"
        kept = numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name)
        self.graph.initializer.append(kept)
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - the operator's own
        """Add a node; return the name of its output, which is its own."""
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def replace(self, gone: Sequence[onnx.NodeProto]) -> None:
        """Put what was added where the last of these nodes stands, which follow each other, and take them out."""
        place = list(self.graph.node).index(gone[-1]) - len(gone) + 1
        for node in gone:
            self.graph.node.remove(node)
        for offset, node in enumerate(self._nodes):
            self.graph.node.insert(place + offset, node)
