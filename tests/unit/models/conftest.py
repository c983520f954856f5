"""One thread: these models are so small that a second one costs more than it brings and stalls a busy machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from oddment.models._pretrained import has_weights

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _needs_weights(request: pytest.FixtureRequest) -> None:
    """Leave out what is tested with a model whose weights are an extra that is not installed."""
    asked = getattr(getattr(request.node, "callspec", None), "params", {})
    if {"feature-memory", "feature-autoencoder"} & {str(value) for value in asked.values()} and not has_weights(
        "efficientnet-lite0"
    ):
        pytest.skip("the extra oddment[features] is not installed")
