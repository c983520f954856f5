"""Optimisers and learning-rate schedules by name, with the defaults and to the rounding of Keras.

Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015); Duchi, Hazan and Singer, "Adaptive
Subgradient Methods" (2011); Keras 3.15's code. Differs from torch's Adam in where epsilon enters: Keras follows the
last sentence of Adam's section 2 and adds it before the bias correction, which matters for gradients near 1e-7, such
as those of pixels that are nearly always black. Differs from Keras's Adagrad in adding epsilon outside of the root,
where the accumulator's start of 0.1 hides it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

import torch

from oddment.errors import ParameterError
from oddment.training.direct_adam import DirectAdam

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "LEARNING_RATES",
    "OptimizerName",
    "ScheduleName",
    "check_names",
    "descend",
    "flatten_state",
    "make_optimizer",
    "rate_at",
    "restore_state",
    "set_rate",
]

OptimizerName = Literal["adam", "sgd", "adagrad"]
ScheduleName = Literal["cosine", "constant", "inverse-time"]

# Keras's own, for whoever asks for an optimiser and names no rate.
LEARNING_RATES: dict[OptimizerName, float] = {"adam": 1e-3, "sgd": 1e-2, "adagrad": 1e-3}
_EPSILON = 1e-7


def check_names(**chosen: tuple[str, object]) -> None:
    """Check that each name is one of those that its Literal type lists.

    Args:
        chosen: the parameter's name, to what was given and the type.

    Raises:
        ParameterError: one message with all that are not.
    """
    problems = [
        f"{name} must be one of {', '.join(get_args(kind))}; got {given!r}."
        for name, (given, kind) in chosen.items()
        if given not in get_args(kind)
    ]
    if problems:
        raise ParameterError(" ".join(problems))


def make_optimizer(
    name: OptimizerName, parameters: Iterable[torch.nn.Parameter], learning_rate: float, *, in_place: bool = False
) -> torch.optim.Optimizer:
    """Return a new optimiser with Keras's defaults: SGD without momentum, Adagrad's accumulator from 0.1.

    Args:
        name: which.
        parameters: what is learnt.
        learning_rate: of the first step.
        in_place: every parameter is float32 on the CPU and has its gradient in every step, which others write to where
            it is; the parameters then have a gradient, of zeros, from the start.
    """
    parameters = list(parameters)
    usual = all(parameter.device.type == "cpu" and parameter.dtype == torch.float32 for parameter in parameters)
    if usual and name == "adam" and DirectAdam.available:
        return DirectAdam(parameters, learning_rate, _EPSILON, in_place=in_place)
    if in_place:
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
    if name == "sgd":
        return torch.optim.SGD(parameters, learning_rate)
    if name == "adagrad":
        return torch.optim.Adagrad(parameters, learning_rate, initial_accumulator_value=0.1, eps=_EPSILON)
    # One kernel for all of a step, where there is one: half of Adam's time in small models.
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, learning_rate, eps=_EPSILON, fused=fused)


def descend(optimizer: torch.optim.Optimizer) -> None:
    """Take a step, by the shortest way that the optimiser knows."""
    if isinstance(optimizer, DirectAdam):
        optimizer.descend()
    else:
        optimizer.step()


def rate_at(schedule: ScheduleName, peak: float, *, fraction: float, step: int, decay: float) -> float:
    """Return the learning rate of one step.

    Args:
        schedule: "cosine" rises over the first twentieth, then falls along a cosine to a hundredth; "constant" is the
            peak; "inverse-time" is peak / (1 + decay · step), Keras's `decay`.
        peak: the largest rate.
        fraction: share of the training done, 0 to 1.
        step: steps done before this one, over all epochs.
        decay: of "inverse-time".

    Example:
        >>> rate_at("inverse-time", 0.001, fraction=0.0, step=1000, decay=0.001)
        0.0005
    """
    if schedule == "constant":
        return peak
    if schedule == "inverse-time":
        return peak / (1 + decay * step)
    warm = min(1.0, (fraction + 1e-3) / 0.05)
    return peak * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


def set_rate(optimizer: torch.optim.Optimizer, rate: float, step: int) -> None:
    """Prepare the optimiser for the step after `step` others: its rate, and Adam's epsilon where Keras adds it."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if "betas" in group:
            # torch divides the root of the second moment by this before it adds epsilon; Keras does not.
            group["eps"] = _EPSILON / math.sqrt(1 - group["betas"][1] ** (step + 1))


def flatten_state(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """Return copies of all that the optimiser remembers, as "<name>.<index of the parameter>", on the CPU."""
    return {
        f"{name}.{index}": torch.as_tensor(value).detach().cpu().clone()
        for index, known in optimizer.state_dict()["state"].items()
        for name, value in known.items()
        if value is not None
    }


def restore_state(optimizer: torch.optim.Optimizer, flat: dict[str, torch.Tensor]) -> None:
    """Let a new optimiser of the same kind go on from `flatten_state`, exactly."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in flat.items():
        name, _, index = key.rpartition(".")
        parameter = parameters[int(index)]
        # Fused kernels walk memory: a moment must lie there as its parameter does, which a file does not keep.
        like = parameter if value.shape == parameter.shape else value
        state.setdefault(int(index), {})[name] = torch.empty_like(like, dtype=value.dtype, device="cpu").copy_(value)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
