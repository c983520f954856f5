"""A model as boxes and arrows: the encoder down, the latent at the bottom, the decoder up again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from matplotlib.patches import FancyBboxPatch

from oddment.errors import MissingExtraError
from oddment.plot.style import INK, MUTED, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import nn

    from oddment.models import Shape

__all__ = ["model_diagram"]

_FILL = {"io": "#efefec", "weights": "#d6e8f4", "plain": "#ffffff", "latent": "#fbe3d0"}
_EDGE = {"io": "#8b9198", "weights": "#0072B2", "plain": "#8b9198", "latent": "#D55E00"}
_WIDEST, _NARROWEST, _HIGH, _GAP, _APART = 3.5, 2.5, 0.5, 0.24, 4.2

_NO_STEP = ("Flatten", "Unflatten", "Pad", "Identity")


@dataclass(slots=True)
class _Box:
    """One layer with what follows it at once: activation, normalisation, dropout.

    Args:
        text: what it is.
        shape: of its output, without the batch.
        parameters: trained numbers and running statistics.
        kind: a key of the colours.
        tail: what follows.
    """

    text: str
    shape: tuple[int, ...]
    parameters: int = 0
    kind: str = "plain"
    tail: list[str] = field(default_factory=list)


def model_diagram(
    model: str | nn.Module,
    shape: tuple[int, int, int] | Shape,
    *,
    options: dict[str, Any] | None = None,
    heading: str | None = None,
) -> Figure:
    """Return a diagram of a model's layers with output shapes and parameter counts. Needs torch.

    Args:
        model: a registered name, or a module that takes (N, C, H, W).
        shape: (C, H, W) of one image.
        options: of a registered model, such as latent_dim.
        heading: title; the name and the number of parameters when None.

    Raises:
        ParameterError: if there is no such model, or the shape does not fit it.
        MissingExtraError: if torch is not installed.
    """
    try:
        from oddment.models import Shape, build
    except ImportError as error:
        msg = "a model's diagram needs torch: pip install 'oddment[train]'."
        raise MissingExtraError(msg) from error
    dims = (shape.channels, shape.height, shape.width) if isinstance(shape, Shape) else tuple(shape)
    module = build(model, Shape(*dims), options) if isinstance(model, str) else model
    name = model if isinstance(model, str) else type(module).__name__
    down, up = _trace(module, dims)
    total = _count(module)
    heading = heading or f"{name}: {total:,} parameters"
    return _draw([_Box("input", dims, kind="io"), *down], up, heading)


def _trace(module: nn.Module, dims: tuple[int, ...]) -> tuple[list[_Box], list[_Box]]:
    """The boxes of the encoder, the latent last, and those of the decoder; all in the first where there is none."""
    import torch

    images = torch.zeros(1, *dims)
    autoencoder: Any = module
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            if not (hasattr(module, "encode") and hasattr(module, "decode")):
                boxes, _ = _watch(module, lambda: module(images))
                return boxes, []
            down, latent = _watch(module, lambda: autoencoder.encode(images))
            up, output = _watch(module, lambda: autoencoder.decode(latent))
    finally:
        module.train(was_training)
    down.append(_Box("latent", tuple(latent.shape[1:]), kind="latent"))
    up.append(_Box("reconstruction", tuple(output.shape[1:]), kind="io"))
    return down, up


def _watch(module: nn.Module, run: Callable[[], Any]) -> tuple[list[_Box], Any]:
    """The layers that a call passes through, in order, and what the call gave."""
    boxes: list[_Box] = []
    seen: set[int] = set()

    def note(layer: nn.Module, _: object, output: Any) -> None:  # noqa: ANN401 - whatever a layer gives
        first = output[0] if isinstance(output, tuple) else output
        if not hasattr(first, "shape"):
            return
        parameters = 0 if id(layer) in seen else _count(layer)
        seen.add(id(layer))
        text, is_tail = _describe(layer)
        shape = tuple(int(side) for side in first.shape[1:])
        if is_tail and boxes:
            boxes[-1].tail.append(text)
            boxes[-1].parameters += parameters
        else:
            boxes.append(_Box(text, shape, parameters, "weights" if parameters else "plain"))
        boxes[-1].shape = shape

    leaves = [layer for layer in module.modules() if not list(layer.children())]
    # What only writes the same numbers in another shape, or adds zeros around them, is no step of its own.
    leaves = [layer for layer in leaves if not any(word in type(layer).__name__ for word in _NO_STEP)]
    handles = [layer.register_forward_hook(note) for layer in leaves]
    try:
        result = run()
    finally:
        for handle in handles:
            handle.remove()
    return boxes, result


def _count(module: nn.Module) -> int:
    """Trained numbers, and the running statistics of normalisation, as Keras counts them."""
    statistics = [value for name, value in module.named_buffers() if name.endswith(("running_mean", "running_var"))]
    return sum(value.numel() for value in (*module.parameters(), *statistics))


def _describe(layer: nn.Module) -> tuple[str, bool]:
    """A layer in words, and whether it is shown as the tail of the layer before."""
    from torch import nn

    name = type(layer).__name__
    match layer:
        case nn.Conv2d() | nn.ConvTranspose2d():
            word = "transposed conv" if isinstance(layer, nn.ConvTranspose2d) else "conv"
            step = f" stride {layer.stride[0]}" if layer.stride[0] != 1 else ""
            return f"{word} {layer.kernel_size[0]}×{layer.kernel_size[1]}{step}", False
        case nn.Linear():
            return "dense", False
        case nn.MaxPool2d() | nn.AvgPool2d():
            word = "max" if isinstance(layer, nn.MaxPool2d) else "mean"
            return f"{word} pool {layer.kernel_size}", False
        case nn.Upsample():
            return f"upsample ×{layer.scale_factor:g}" if layer.scale_factor else "upsample", False
        case _:
            plain = name.removesuffix("2d").removesuffix("1d")
            known = {"BatchNorm": "batch norm", "LeakyReLU": "leaky ReLU", "ReLU": "ReLU", "Sigmoid": "sigmoid"}
            short = sum(1 for _ in layer.parameters()) == 0 or "Norm" in name
            return known.get(plain, plain), short


def _draw(down: Sequence[_Box], up: Sequence[_Box], heading: str) -> Figure:
    rows = max(len(down), len(up) + 1)
    width, height = (2 * _APART if up else _APART), rows * (_HIGH + _GAP) + 0.35
    figure = new_figure(width, height + 0.2)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(-(rows - 1) * (_HIGH + _GAP) - 0.35, 0.35)
    axes.set_aspect("equal")
    largest = max(math.prod(box.shape) for box in (*down, *up))
    step = -(_HIGH + _GAP)
    # The encoder ends where the decoder begins: the shorter of them starts further down.
    top = rows - len(down)
    left = [(_APART / 2, (top + index) * step) for index in range(len(down))]
    right = [(1.5 * _APART, (rows - 2 - index) * step) for index in range(len(up))]
    if up:
        # The latent lies between the two columns.
        left[-1] = (_APART, left[-1][1])
    for box, at in zip((*down, *up), (*left, *right), strict=True):
        _draw_box(axes, box, at, largest)
    _draw_arrows(axes, left, right)
    figure.suptitle(heading, x=0.01, ha="left", fontsize=11, fontweight="bold", color=INK)
    return figure


def _draw_box(axes: Axes, box: _Box, at: tuple[float, float], largest: int) -> None:
    # As wide as the logarithm of what flows through: the bottleneck is seen.
    share = math.log(math.prod(box.shape) + 1) / math.log(largest + 1)
    width = _NARROWEST + (_WIDEST - _NARROWEST) * share
    corner = (at[0] - width / 2, at[1] - _HIGH / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner,
            width,
            _HIGH,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=_FILL[box.kind],
            edgecolor=_EDGE[box.kind],
            linewidth=1.2,
        )
    )
    first = ", ".join([box.text, *box.tail])
    axes.text(at[0], at[1] + 0.095, first, ha="center", va="center", fontsize=_fitting(first, width), color=INK)
    weights = f"   {box.parameters:,} parameters" if box.parameters else ""
    axes.text(at[0], at[1] - 0.115, "×".join(map(str, box.shape)) + weights, ha="center", va="center", fontsize=7.5,
              color=MUTED)  # fmt: skip


def _fitting(text: str, width: float) -> float:
    """The largest font size, up to 9, at which a text is about as wide as its box."""
    return min(9.0, 72 * (width - 0.15) / (0.6 * len(text)))


def _draw_arrows(axes: Axes, left: Sequence[tuple[float, float]], right: Sequence[tuple[float, float]]) -> None:
    arrow = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    half = _HIGH / 2
    for (x, y), (next_x, next_y) in pairwise(left):
        if x == next_x:
            axes.annotate("", (x, next_y + half), (x, y - half), arrowprops=arrow)
        else:
            axes.annotate("", (next_x - _NARROWEST / 4, next_y + half), (x, y - half), arrowprops=arrow)
    if right:
        (x, y), (next_x, next_y) = left[-1], right[0]
        axes.annotate("", (next_x, next_y - half), (x + _NARROWEST / 4, y + half), arrowprops=arrow)
    for (x, y), (_, next_y) in pairwise(right):
        axes.annotate("", (x, next_y - half), (x, y + half), arrowprops=arrow)
