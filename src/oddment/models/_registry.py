"""The list of models. Each family registers itself; a file dropped into this folder is found without being listed."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from oddment.models._base import Autoencoder

__all__ = ["ModelSpec", "Shape", "build", "get_spec", "model_names", "register", "spec_for"]


# Four pictures of 256×256 in colour: a decoder's maps of them are 16 times as much.
_NUMBERS_AT_ONCE = 4 * 256 * 256 * 3


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of one prepared image."""

    channels: int
    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.channels * self.height * self.width


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What the library must know of a model before it is built.

    Args:
        name: what `--model` calls it.
        summary: one line for lists and help.
        build: makes the module for a shape, with the options of `options` overridden by the user's.
        trains: whether it descends by gradients; otherwise `Autoencoder.settle` fits it in one pass, without epochs.
        baseline: whether it is one of the plain methods that others must beat to be worth their time.
        remembers: whether an image that was fitted finds itself in the model, so that training scores are too low.
        stride: height and width must be multiples of this.
        side: pixels on the longer side that larger photographs are brought to, where no size is asked for.
        options: names and defaults of what the user may set, such as latent_dim.
        learning_rate: peak of Adam's schedule.
        batch_size: images a step.
        steps: gradient steps that a full training takes, spread over the epochs.
        epochs: least and most epochs, whatever the number of images.
        scoring_batch: pictures scored at once if they are small; see `scored_at_once`.
        draws: whether its score looks at the pixels of its reconstruction. Where not, the reconstruction is a drawing
            for people, and scores of pixels by name are refused.
        gains_from_bfloat16: whether it was measured to train faster in bfloat16, to the same validation loss.
    """

    name: str
    summary: str
    build: Callable[..., Autoencoder]
    trains: bool = True
    baseline: bool = False
    remembers: bool = False
    stride: int = 1
    side: int = 256
    options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 1e-3
    batch_size: int = 64
    steps: int = 4000
    epochs: tuple[int, int] = (4, 200)
    scoring_batch: int = 32
    draws: bool = True
    gains_from_bfloat16: bool = False

    def scored_at_once(self, shape: Shape) -> int:
        """Return how many pictures are scored at once; part of a fitted model, since it fixes the order of additions.

        Large ones are scored few at a time, since their maps must stay in the processor's caches.
        """
        return max(1, min(self.scoring_batch, _NUMBERS_AT_ONCE // shape.pixels))


_SPECS: dict[str, ModelSpec] = {}


def register(spec: ModelSpec) -> ModelSpec:
    """Add a model to the registry and return its spec.

    Raises:
        ParameterError: if the name is taken.
    """
    if spec.name in _SPECS:
        msg = f"model name {spec.name!r} is registered already."
        raise ParameterError(msg)
    _SPECS[spec.name] = spec
    return spec


@cache
def _discover() -> None:
    import oddment.models as package

    for info in pkgutil.iter_modules(package.__path__):
        if not info.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{info.name}")


def model_names() -> list[str]:
    """Return the names of all models, sorted."""
    _discover()
    return sorted(_SPECS)


def get_spec(name: str) -> ModelSpec:
    """Return the spec of a model.

    Raises:
        ParameterError: if there is none of that name; the message suggests the nearest.
    """
    _discover()
    if name not in _SPECS:
        near = difflib.get_close_matches(name, _SPECS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        msg = f"model={name!r} is not one of auto, {', '.join(model_names())}.{hint}"
        raise ParameterError(msg)
    return _SPECS[name]


def build(name: str, shape: Shape, options: dict[str, Any] | None = None) -> Autoencoder:
    """Return a new, untrained model.

    Args:
        name: a registered name.
        shape: channels, height and width of the prepared images.
        options: overrides of the spec's options.

    Raises:
        ParameterError: if name or an option is unknown, or the shape is not a multiple of the stride.
    """
    spec = get_spec(name)
    unknown = sorted(set(options or {}) - set(spec.options))
    if unknown:
        known = ", ".join(spec.options) or "none"
        msg = f"model {name!r} has no option {', '.join(unknown)}; its options: {known}."
        raise ParameterError(msg)
    if shape.height % spec.stride or shape.width % spec.stride:
        msg = (
            f"model {name!r} needs height and width that are multiples of {spec.stride}; "
            f"got {shape.height}×{shape.width}. Round them up."
        )
        raise ParameterError(msg)
    _check_kinds(spec, options or {})
    return spec.build(shape, **{**spec.options, **(options or {})})


def spec_for(name: str, options: dict[str, Any]) -> ModelSpec:
    """Return what to know of a model with these options: a baseline on an autoencoder's latent trains as that one does.

    Raises:
        ParameterError: if there is no such model.
    """
    spec = get_spec(name)
    inner = options.get("on", spec.options.get("on"))
    if "on" not in spec.options or inner == spec.options["on"]:
        return spec
    kept = {item: getattr(spec, item) for item in ("name", "summary", "build", "options")}
    return replace(get_spec(str(inner)), **kept)


def _check_kinds(spec: ModelSpec, options: dict[str, Any]) -> None:
    """Refuse text for a number and numbers for text; what a number must be, the model knows."""
    for name, value in options.items():
        default = spec.options[name]
        if isinstance(default, str) != isinstance(value, str):
            kind = "text" if isinstance(default, str) else "a number"
            msg = f"option {name} of model {spec.name!r} is {kind}, such as {default!r}; got {value!r}."
            raise ParameterError(msg)
