"""Adam that goes straight to torch's kernel.

Of a step of a small dense network, torch's fused Adam takes 0.2 to 0.4 ms, of which its kernel takes 0.1: the rest is
spent on looking at each parameter, its gradient and its state anew, and on hooks. Where gradients stay where they are
from step to step, what the kernel is given is looked up once. To make one of torch's optimisers, and each of its
methods, imports torch's compiler, which takes a second: they are called here without what does so.

Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015), algorithm 1.
"""

from __future__ import annotations

from inspect import unwrap
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["DirectAdam"]


class DirectAdam(torch.optim.Adam):
    """Adam for float32 parameters on the CPU, each of which has a gradient in every step or in none.

    `descend` and not `step` takes a step.

    Args:
        parameters: what is learnt.
        learning_rate: of the first step.
        epsilon: added to the root of the second moment.
        in_place: gradients stay where they are, zeros at first, and are never set to None.

    Attributes:
        available: whether this torch has the kernel under the name that it is called by here.
    """

    available = hasattr(torch, "_fused_adam_")

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], learning_rate: float, epsilon: float, *, in_place: bool
    ) -> None:
        parameters = list(parameters)
        super().__init__(parameters, learning_rate, eps=epsilon, fused=True)
        # Of what is frozen, as networks for features are, no moments are kept.
        self.owned = [parameter for parameter in parameters if parameter.requires_grad]
        self.in_place = in_place
        for parameter in self.owned:
            parameter.grad = torch.zeros_like(parameter) if in_place else None
            moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
            self.state[parameter] = {"step": torch.tensor(0.0), **moments}
        self._look_up()

    def _look_up(self) -> None:
        """Find what the kernel is given, in the order of the parameters; all of them count the same steps."""
        self.count = self.state[self.owned[0]]["step"]
        for parameter in self.owned:
            self.state[parameter]["step"] = self.count
        self.given = self._given()

    def _given(self) -> list[list[torch.Tensor]]:
        """What the kernel is given: all parameters that have a gradient."""
        parameters = [parameter for parameter in self.owned if parameter.grad is not None]
        states = [self.state[parameter] for parameter in parameters]
        return [
            [parameter.detach() for parameter in parameters],
            [parameter.grad for parameter in parameters if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [self.count] * len(states),
        ]

    @torch.no_grad()
    def descend(self) -> None:
        """Take the step that `step` would, without the hooks that torch puts around a method of that name."""
        [group] = self.param_groups
        first, second = group["betas"]
        self.count += 1
        given = self.given if self.in_place else self._given()
        torch._fused_adam_(
            *given,
            lr=group["lr"],
            beta1=first,
            beta2=second,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)
        self._look_up()
