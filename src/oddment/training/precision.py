"""How training computes: float32 throughout, or products in bfloat16 where the processor has units for them."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

__all__ = ["Precision", "PrecisionName", "pick_precision", "products_in"]

Precision = Literal["float32", "bfloat16"]
PrecisionName = Literal["auto", "float32", "bfloat16"]


def pick_precision(name: PrecisionName, device: torch.device, *, gains: bool) -> Precision:
    """Return the precision to train in.

    "auto" goes by what the processor is, not by a race on it: a race may end differently tomorrow, and the same seed
    must give the same scores.

    Args:
        name: what was asked for.
        device: where training runs.
        gains: whether the model was measured to train faster in bfloat16, to the same loss.
    """
    if name != "auto":
        return name
    return "bfloat16" if gains and _has_units(device) else "float32"


def products_in(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which convolutions and matrix products take their factors as bfloat16, sums as float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _has_units(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    # Without such units, bfloat16 is emulated and several times slower than float32.
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 - no public name
