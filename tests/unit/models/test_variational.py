"""The variational autoencoder: its bound, its variance, and what its score adds to a squared error."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from oddment import Detector
from oddment.models import Batch, Shape, build
from oddment.models.variational import VariationalAutoencoder
from oddment.scoring import ScoringGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = Shape(1, 12, 16)


@pytest.fixture
def model() -> VariationalAutoencoder:
    torch.manual_seed(0)
    made = build("variational", SHAPE, {"latent_dim": 5})
    assert isinstance(made, VariationalAutoencoder)
    return made.eval()


@pytest.fixture
def batch() -> Batch:
    """Six pictures, the last columns of three of them padding."""
    images = torch.rand(6, 1, 12, 16, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(6, 1, 12, 16)
    mask[:3, ..., 11:] = 0
    return Batch(images, mask)


def law(model: VariationalAutoencoder, images: torch.Tensor) -> Normal:
    """The law of the latent, from the layers themselves."""
    features = model.encoder(images)
    return Normal(model.mean(features), (model.log_variance(features) / 2).exp())


def test_the_loss_is_minus_the_bound_of_a_calibrated_decoder(model: VariationalAutoencoder, batch: Batch) -> None:
    """Torch's own densities give the same: Gaussian pixels of the best variance, less the divergence, per number."""
    with torch.no_grad():
        loss = float(model.loss(batch, torch.Generator().manual_seed(3)))
        latent = law(model, batch.images)
        noise = torch.randn(6, 5, generator=torch.Generator().manual_seed(3))
        drawn = model.decode(latent.mean + latent.stddev * noise)
        numbers = float(batch.mask.sum())
        error = float(((drawn - batch.images).square() * batch.mask).sum()) / numbers
        likelihood = (Normal(drawn, error**0.5).log_prob(batch.images) * batch.mask).sum()
        divergence = kl_divergence(latent, Normal(0.0, 1.0)).sum()
    constant = 0.5 + 0.5 * math.log(2 * math.pi)
    assert loss == pytest.approx(float(divergence - likelihood) / numbers - constant, rel=1e-4)


def test_the_score_is_error_and_divergence(model: VariationalAutoencoder, batch: Batch) -> None:
    """The score is the mean of the map over real pixels plus the divergence per real number; the map skips padding."""
    with torch.no_grad():
        model.settle(lambda: iter([batch]))
        valid = torch.tensor([[0, 0, 12, 11]] * 3 + [[0, 0, 12, 16]] * 3)
        score, anomaly_map, drawn, latent = ScoringGraph(model, SHAPE)(batch.images, valid)
        numbers = batch.mask.sum((1, 2, 3))
        divergence = kl_divergence(law(model, batch.images), Normal(0.0, 1.0)).sum(1)
    expected = anomaly_map.sum((1, 2)) / numbers + divergence / numbers
    torch.testing.assert_close(score, expected)
    errors = (batch.images - drawn).square()[:, 0] * batch.mask[:, 0] / (2 * model.variance)
    torch.testing.assert_close(anomaly_map, errors)
    torch.testing.assert_close(latent, law(model, batch.images).mean)


def test_the_variance_is_that_of_pictures_that_did_not_train(model: VariationalAutoencoder, batch: Batch) -> None:
    """It is the mean squared error over real pixels of the last pass, never less than one level of eight bits."""
    with torch.no_grad():
        other = batch._replace(images=batch.images * 0.5)
        model.settle(lambda: iter([batch]), lambda: iter([other]))
        errors = (model(other.images) - other.images).square() * other.mask
        assert float(model.variance) == pytest.approx(float(errors.sum() / other.mask.sum()), rel=1e-5)
        model.decode = lambda _: batch.images  # type: ignore[method-assign]
        model.settle(lambda: iter([batch]))
    assert float(model.variance) == pytest.approx((1 / 255) ** 2)


def test_it_finds_what_it_never_saw(
    digits: NDArray[np.uint8], new_digits: NDArray[np.uint8], articles: NDArray[np.uint8]
) -> None:
    """After a short training on digits, clothing scores higher than most new digits."""
    quick: dict[str, Any] = {"epochs": 12, "quantile": 0.9, "baseline_check": False}
    detector = Detector(model="variational", **quick).fit(digits)
    normal, odd = detector.anomaly_score(new_digits), detector.anomaly_score(articles)
    assert (odd[:, None] > normal[None]).mean() > 0.75
    assert detector.latent(new_digits).shape == (len(new_digits), 32)
