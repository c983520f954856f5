"""A frozen front end as ONNX Runtime runs it, beside what torch gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from oddment.models._frontend import FrontEnd

if TYPE_CHECKING:
    from collections.abc import Iterator


class Described(nn.Module):
    """A picture under a mask, filtered, and its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the filtered picture and its mean."""
        found = self.filter(images * mask)
        return found, found.mean((2, 3))


def pictures(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(torch.rand(1, 1, 12, 16, generator=generator), torch.ones(1, 1, 12, 16)) for _ in range(count)]


@pytest.mark.parametrize("threads", [1, 3])
def test_it_gives_what_torch_gives_in_order(threads: int) -> None:
    """Every picture gets its own features, however many are worked on at once."""
    module, given = Described().eval(), pictures(20)
    with torch.no_grad():
        found = list(FrontEnd(module, given[0], threads)(given))
        expected = [module(*item) for item in given]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pictures_are_drawn_only_as_fast_as_they_are_taken() -> None:
    """A long source is not read to its end before the first result is there."""
    drawn = []

    def source() -> Iterator[tuple[Tensor, ...]]:
        for number, item in enumerate(pictures(50)):
            drawn.append(number)
            yield item

    front = FrontEnd(Described().eval(), pictures(1)[0], 2)
    next(iter(front(source())))
    assert len(drawn) < 10
