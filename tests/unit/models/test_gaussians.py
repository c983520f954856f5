"""The mixture of Gaussians: what is likely, what is between, and what a cluster makes of a code."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import MultivariateNormal

from oddment.models._gaussians import Gaussians, empty, fit_gaussians, judge, usual_form


def two_kinds(count: int, width: int = 8) -> torch.Tensor:
    """Codes around two places, 6 apart along the first axis, that vary most along the second."""
    chance = torch.Generator().manual_seed(0)
    spread = torch.full((width,), 0.2)
    spread[1] = 1
    codes = torch.randn(count, width, generator=chance) * spread
    codes[::2, 0] += 6
    return codes


@pytest.fixture(scope="module")
def fitted() -> Gaussians:
    return fit_gaussians(two_kinds(600), seed=3)


def test_unlikely_is_minus_twice_the_likelihood(fitted: Gaussians) -> None:
    """But for a constant, the same as densities of normal laws with these means and axes, added by share."""
    codes = two_kinds(40) + 0.3
    covariances = torch.linalg.inv(fitted.axes.mT @ fitted.axes)
    laws = MultivariateNormal(fitted.means, covariances)
    shares = (-(fitted.constants - fitted.variances.log().sum(1)) / 2).softmax(0)
    direct = -2 * (laws.log_prob(codes[:, None]) + shares.log()).logsumexp(1)
    found = judge(codes, fitted)[0]
    torch.testing.assert_close(found - found[0], direct - direct[0], atol=1e-3, rtol=1e-4)
    assert (found >= 0).all()


def test_a_place_between_two_kinds_is_unlikely(fitted: Gaussians) -> None:
    """The mean of all codes, where there are none, against the middle of either kind."""
    between = torch.zeros(1, 8)
    between[0, 0] = 3
    usual = torch.cat([between - between, 2 * between])
    assert judge(between, fitted)[0] > 5 * judge(usual, fitted)[0].amax()
    assert len(set(judge(usual, fitted)[1].tolist())) == 2


def test_the_usual_form_keeps_what_varies(fitted: Gaussians) -> None:
    """A step along the axis of the large variance mostly stays; one along another is mostly taken back."""
    step = torch.eye(8)[[1, 5]] * 0.5
    cluster = judge(torch.zeros(1, 8), fitted)[1].expand(2)
    start = usual_form(torch.zeros(2, 8), cluster, fitted)
    moved = usual_form(step, cluster, fitted) - start
    assert moved[0, 1] > 0.3
    assert abs(moved[1, 5]) < 0.25


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_or_equal_codes_give_finite_numbers(count: int) -> None:
    """Fewer codes than directions, or all the same."""
    for codes in (two_kinds(count), two_kinds(1).expand(count, -1).contiguous()):
        found = fit_gaussians(codes, seed=0)
        unlikely, cluster = judge(two_kinds(5), found)
        assert torch.isfinite(unlikely).all()
        assert torch.isfinite(usual_form(two_kinds(5), cluster, found)).all()


def test_equal_seeds_give_equal_mixtures() -> None:
    """Chance enters by the first means only, and these follow the seed."""
    first, second = (fit_gaussians(two_kinds(900), seed=1) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_the_empty_mixture_is_a_ball() -> None:
    """Before it is fitted, a code is as unlikely as it is long."""
    codes = two_kinds(4)
    torch.testing.assert_close(judge(codes, empty(8))[0], codes.square().sum(1))
