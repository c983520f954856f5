"""Transposed convolutions of stride two as four convolutions of the small map, one for each phase of the large one.

ONNX Runtime computes a transposed convolution as a product for every pixel of the small map and adds up what falls on
the same pixel of the large one, which takes longer than the product. But the pixels of even rows and even columns are
an ordinary convolution of the small map with a part of the kernel, and so are the other three phases: no operation
more, nothing to add up, and in the layout in which it convolves at half of a matrix product's rate or better. What
follows element by element, activation and normalisation, is done phase by phase; then the phases are put together.

Where a last convolution to few channels follows, they need not be: each of its phases is a sum of convolutions of the
four. Only pictures of few channels are put together then.

Source: Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from oddment.models._padding import swept
from oddment.scoring.rewriting import Rewriting, asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["split_phases"]

_FEW = 4  # channels of a last convolution, up to which what it makes of the phases fits one block of the runtime's
_FROM = 16  # channels of the small map and of the large one, from which it was measured to gain
_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))  # even and odd rows and columns
_ALONG = frozenset({"LeakyRelu", "Relu", "BatchNormalization"})


class _Layer(NamedTuple):
    """A transposed convolution, what follows it element by element, and a last convolution if there is one."""

    grown: onnx.NodeProto
    along: list[onnx.NodeProto]
    last: onnx.NodeProto | None


class _Tap(NamedTuple):
    """Along one axis: a phase of the result takes pixel m + shift of a phase of what is convolved, by one weight."""

    phase: int
    shift: int
    weight: int


def split_phases(graph: bytes) -> bytes:
    """Return a graph that gives the same to rounding, with its transposed convolutions of stride two in phases."""
    model = onnx.load_model_from_string(graph)
    values = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    grown = [node for node in model.graph.node if _grows(node, values)]
    maps = {node.input[0] for node in grown}
    for node in grown:
        _split(model.graph, _layer(model.graph, node, values), values)
    # The runtime adds to a sum while it computes what is added only if it knows that both are of one shape.
    shapes = onnx.shape_inference.infer_shapes(model).graph.value_info
    model.graph.value_info.extend(item for item in shapes if item.name in maps)
    return swept(model)


def _square(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> int:
    """The side of a kernel that is known, square and ungrouped, neither dilated nor padded by name; 0 otherwise."""
    if len(node.input) < 2 or node.input[1] not in values:
        return 0
    kernel, told = values[node.input[1]], asked(node)
    alone = told.get("group", 1) == 1 and set(told.get("dilations", [1])) == {1}
    padded = told.get("auto_pad", b"NOTSET") in (b"NOTSET", b"") and "output_shape" not in told
    plain = alone and padded and not any(told.get("output_padding", [0]))
    return kernel.shape[2] if plain and kernel.ndim == 4 and kernel.shape[2] == kernel.shape[3] else 0


def _grows(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    """Whether it is a transposed convolution that doubles height and width, of many channels."""
    if node.op_type != "ConvTranspose":
        return False
    told, side = asked(node), _square(node, values)
    top, left, bottom, right = told.get("pads", [0] * 4)
    doubles = told.get("strides") == [2, 2] and side >= 2 and top + bottom == left + right == side - 2
    return doubles and top == left and min(values[node.input[1]].shape[:2]) >= _FROM


def _keeps(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    """Whether it is a convolution, transposed or not, to few channels, that keeps the size."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return False
    told, side = asked(node), _square(node, values)
    same = side % 2 == 1 and set(told.get("strides", [1])) == {1} and set(told.get("pads", [0])) == {side // 2}
    return same and len(_mirrored(node, values)) <= _FEW


def _mirrored(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    """The kernel (O, I, k, k) of a convolution that gives what this one gives, transposed or not."""
    kernel = values[node.input[1]]
    return kernel if node.op_type == "Conv" else kernel[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)


def _layer(graph: onnx.GraphProto, node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> _Layer:
    """The layer that starts with this node."""
    outputs = {item.name for item in graph.output}
    along: list[onnx.NodeProto] = []
    while True:
        name = (along[-1] if along else node).output[0]
        users = [other for other in graph.node if name in other.input]
        alone = len(users) == 1 and name not in outputs and users[0].input[0] == name
        if not alone or users[0].op_type not in _ALONG:
            return _Layer(node, along, users[0] if alone and _keeps(users[0], values) else None)
        along.append(users[0])


def _grown_taps(side: int, before: int, phase: int) -> list[_Tap]:
    """What a phase of a transposed convolution's result takes: row 2m + phase = 2i + weight - before."""
    return [
        _Tap(0, (phase + before - weight) // 2, weight) for weight in range(side) if (phase + before - weight) % 2 == 0
    ]


def _kept_taps(side: int, phase: int) -> list[_Tap]:
    """What a phase of a convolution's result takes: row 2m + phase + weight - side // 2."""
    rows = [(phase + weight - side // 2, weight) for weight in range(side)]
    return [_Tap(row % 2, row // 2, weight) for row, weight in rows]


def _kernel(
    found: NDArray[np.float32], taps: Callable[[int], list[_Tap]], phases: list[tuple[int, int]], of: tuple[int, int]
) -> tuple[NDArray[np.float32], list[int]]:
    """The kernel (phases · O, I, h, w) that makes phases of a result from one of what is convolved, and its padding.

    Args:
        found: the kernel (O, I, k, k) of the whole map.
        taps: what a phase takes, along either axis.
        phases: those of the result, rows and columns.
        of: the phase of what is convolved.
    """
    meets = [[[tap for tap in taps(phase) if tap.phase == of[axis]] for phase in (0, 1)] for axis in (0, 1)]
    shifts = [
        [tap.shift for pair in phases for tap in meets[axis][pair[axis]]] + [0] for axis in (0, 1)
    ]  # with 0: padding is never negative
    (top, bottom), (left, right) = ((min(each), max(each)) for each in shifts)
    kernel = np.zeros((len(phases), *found.shape[:2], bottom - top + 1, right - left + 1), np.float32)
    for part, (row, column) in zip(kernel, phases, strict=True):
        for down in meets[0][row]:
            for across in meets[1][column]:
                part[:, :, down.shift - top, across.shift - left] += found[:, :, down.weight, across.weight]
    return kernel.reshape(-1, *kernel.shape[2:]), [-top, -left, bottom, right]


def _split(graph: onnx.GraphProto, layer: _Layer, values: dict[str, NDArray[np.float32]]) -> None:
    """Replace the layer's nodes."""
    stem = layer.grown.output[0]
    new = Rewriting(graph, stem)
    whole = values[layer.grown.input[1]].transpose(1, 0, 2, 3)
    before = asked(layer.grown).get("pads", [0, 0, 0, 0])[:2]
    phases = []
    for phase in _PHASES:
        name = f"{stem}/phase{phase[0]}{phase[1]}"
        kernel, pads = _kernel(whole, lambda which: _grown_taps(whole.shape[2], before[0], which), [phase], (0, 0))
        own = [new.known(f"kernel{phase[0]}{phase[1]}", kernel), *layer.grown.input[2:]]
        value = new.add("Conv", [layer.grown.input[0], *own], name, pads=pads)
        for index, node in enumerate(layer.along):
            value = new.add(node.op_type, [value, *list(node.input)[1:]], f"{name}/{index}", **asked(node))
        phases.append(value)
    if layer.last is None:
        joined = new.add("Concat", phases, f"{stem}/phases", axis=1)
    else:
        joined = _last(layer.last, phases, values, new)
    gone = [layer.grown, *layer.along, *([layer.last] if layer.last else [])]
    new.add("DepthToSpace", [joined], gone[-1].output[0], blocksize=2, mode="DCR")
    new.replace(gone)


def _last(last: onnx.NodeProto, phases: list[str], values: dict[str, NDArray[np.float32]], new: Rewriting) -> str:
    """All phases of a last convolution of what was not put together, one after the other as channels."""
    whole, total = _mirrored(last, values), ""
    for phase, value in zip(_PHASES, phases, strict=True):
        kernel, pads = _kernel(whole, lambda which: _kept_taps(whole.shape[2], which), list(_PHASES), phase)
        inputs = [value, new.known(f"last{phase[0]}{phase[1]}", kernel)]
        if not total and len(last.input) > 2:
            inputs.append(new.known("bias", np.tile(values[last.input[2]], len(_PHASES))))
        own = new.add("Conv", inputs, f"{value}/given", pads=pads)
        # One by one: the runtime adds each to those before while it computes it.
        total = new.add("Add", [own, total], f"{value}/all") if total else own
    return total
