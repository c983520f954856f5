"""Which score is taken where it is left open: the one that finds synthetic defects best, never by labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment import Detector
from oddment.images.prepare import Placement, Preparation, Prepared
from oddment.models import Autoencoder, get_spec
from oddment.scoring import BEST, MODEL
from oddment.training.scores import CANDIDATES, POOLS, choose_score, wants_choice
from oddment.training.settings import Settings
from oddment.training.store import PixelStore

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Blurs(Autoencoder):
    """It redraws every picture blurred, and darker by something that differs from picture to picture."""

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Nothing is lost."""
        return images

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """A blurred copy, dimmed."""
        dim = 0.5 + 0.5 * (latent.sum((1, 2, 3), keepdim=True) * 37).frac()
        return dim * F.avg_pool2d(latent, 5, 1, 2, count_include_pad=False)


def store_of(pixels: NDArray[np.uint8]) -> PixelStore:
    """A store of pictures (N, 28, 28)."""
    store = PixelStore(Preparation(28, 28, 1), len(pixels))
    for index, image in enumerate(pixels):
        store.append(Prepared(image[None, :, :, None], (Placement((0, 0, 28, 28), (0, 0, 28, 28)),), (28, 28)), index)
    return store


@pytest.fixture(scope="module")
def store(digits: NDArray[np.uint8]) -> PixelStore:
    """Some digits."""
    return store_of(digits[:120])


def test_another_score_is_taken_where_it_does_better(store: PixelStore) -> None:
    """Squared errors of a blurring, dimming model are mostly about strokes and light; structure tells more."""
    found = choose_score(Blurs().eval(), store, np.arange(120), pool=MODEL, seed=0)
    assert set(found.auroc) == {(score, pool) for score in CANDIDATES for pool in POOLS}
    assert (found.score, found.pool) != (MODEL, MODEL)
    assert found.auroc[found.score, found.pool] == max(found.auroc.values())
    assert f"{found.auroc[MODEL, MODEL]:.3f}" in found.describe()


def test_a_pool_that_was_asked_for_stays(store: PixelStore) -> None:
    """Scores alone are tried then."""
    found = choose_score(Blurs().eval(), store, np.arange(120), pool="max", seed=0)
    assert set(found.auroc) == {(score, "max") for score in CANDIDATES}
    assert found.pool == "max"


def test_the_own_score_stays_where_none_is_better(store: PixelStore) -> None:
    """Of a model that redraws everything exactly, nothing is left over whatever the score: no interval is above 0."""

    class Copies(Blurs):
        """It redraws every picture as it is."""

        def decode(self, latent: torch.Tensor) -> torch.Tensor:
            """A copy."""
            return latent

    found = choose_score(Copies().eval(), store, np.arange(120), pool=MODEL, seed=0)
    assert (found.score, found.pool) == (MODEL, MODEL)
    assert "none of 9 others" in found.describe()


def test_few_pictures_tell_nothing(store: PixelStore) -> None:
    """Below twenty there is no choice to make."""
    assert choose_score(Blurs().eval(), store, np.arange(19), pool=MODEL, seed=0) is None


@pytest.mark.parametrize(
    ("settings", "model", "wanted"),
    [
        (Settings(), "conv-small", True),
        (Settings(score=BEST, model="dense"), "dense", True),
        (Settings(model="conv-small"), "conv-small", False),
        (Settings(score="ssim"), "conv-small", False),
        (Settings(score=BEST), "gradient-memory", False),
        (Settings(score=BEST, model="pca"), "pca", False),
    ],
)
def test_when_it_is_left_open(settings: Settings, model: str, *, wanted: bool) -> None:
    """By name, or where the model is chosen as well; never of a model without a choice."""
    assert wants_choice(settings, get_spec(model)) is wanted


def test_the_model_file_names_what_was_tried(digits: NDArray[np.uint8], new_digits: NDArray[np.uint8]) -> None:
    """A detector fitted with "best" scores by what its file names, and keeps how the others did."""
    fitted = Detector(model="dense", score_mode=BEST, quantile=0.9, epochs=3, random_state=0).fit(digits[:400])
    about = fitted.scorer_.model.info["model"]
    assert len(about["scores_tried"]["auroc"]) == len(CANDIDATES) * len(POOLS)
    assert about["score"] != BEST
    again = Detector(
        model="dense", score_mode=about["score"], pool=about["pool"], quantile=0.9, epochs=3, random_state=0
    ).fit(digits[:400])
    np.testing.assert_array_equal(fitted.anomaly_score(new_digits[:20]), again.anomaly_score(new_digits[:20]))
