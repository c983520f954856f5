"""Denormal numbers are zero while a model trains, and as before afterwards."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch

from oddment.training.denormals import flushed


def halved() -> float:
    """The half of a denormal number, as the processor has it."""
    return float(torch.full((64,), 1e-40).mul(0.5)[0])


@pytest.mark.parametrize("before", [False, True])
def test_only_inside(*, before: bool) -> None:
    """Zero in the block, and after it whatever they were, even where the block raises."""
    if not torch.set_flush_denormal(before):
        pytest.skip("this processor cannot")
    try:
        outside = halved()
        with suppress(KeyError), flushed():
            assert halved() == 0
            raise KeyError
        assert halved() == outside
        assert (outside == 0) is before
    finally:
        torch.set_flush_denormal(False)
