"""Light that changes: one mean and one contrast for every picture, in training and in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from oddment import Detector, load
from oddment.card import model_card
from oddment.images.inputs import as_refs
from oddment.images.prepare import Preparation
from oddment.models import Shape, build
from oddment.models._exposure import standardise_exposure
from oddment.progress import Progress
from oddment.scoring import ScoringGraph, export
from oddment.training.collect import collect

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"model": "dense", "epochs": 3, "quantile": 0.9, "baseline_check": False}


def dimmed(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The pictures under a lamp of half the strength, in a lighter room."""
    return images.astype(np.float32) / 255 * np.float32(0.5) + np.float32(0.2)


def test_real_pixels_get_one_mean_and_one_contrast() -> None:
    """Padding is not looked at, channels keep their ratios, and the way back ends where it began."""
    images = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * 0.3
    mask = torch.ones(3, 1, 12, 10)
    mask[1, :, 8:] = 0
    images[1, :, 8:] = 50.0
    exposed = standardise_exposure(images, mask)
    for index, rows in ((0, 12), (1, 8), (2, 12)):
        real = exposed.images[index, :, :rows]
        assert float(real.mean()) == pytest.approx(0.5, abs=1e-5)
        assert float(real.std(correction=0)) == pytest.approx(0.2, abs=1e-5)
    torch.testing.assert_close(exposed.undo(exposed.images), images, rtol=1e-4, atol=1e-5)
    tinted = exposed.images[0].mean((1, 2)) - 0.5
    torch.testing.assert_close(
        tinted / float(exposed.gain[0]), images[0].mean((1, 2)) - images[0].mean(), rtol=1e-3, atol=1e-5
    )


def test_an_empty_picture_is_not_amplified() -> None:
    """Noise of one level stays a tenth of what a picture shows."""
    images = 0.3 + torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) / 255
    exposed = standardise_exposure(images, torch.ones_like(images))
    assert float(exposed.images.std()) < 0.02
    assert torch.isfinite(standardise_exposure(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)).images).all()


def test_training_sees_what_the_graph_shows(digits: NDArray[np.uint8]) -> None:
    """Batches of the store have one exposure where that was asked for, and their own where not."""
    for exposure in (True, False):
        made = collect(
            as_refs(digits[:20]),
            20,
            Preparation(28, 28, 1),
            max_pixels=10_000,
            seed=0,
            progress=Progress(),
            exposure=exposure,
        )
        images = next(made.store.passes(np.arange(20), 20, torch.device("cpu"))).images
        means = images.mean((1, 2, 3))
        assert bool((means - 0.5).abs().max() < 1e-4) is exposure


def test_the_exported_graph_is_torch_wherever_a_picture_lies() -> None:
    """ONNX Runtime agrees with torch, padding included, and no bit depends on the place in a batch."""
    torch.manual_seed(0)
    shape = Shape(3, 20, 28)
    graph = ScoringGraph(build("conv-small", shape), shape, "mse,ssim", exposure=True).eval()
    images, valid = torch.rand(8, 3, 20, 28), torch.tensor([[0, 0, 20, 28]] * 8)
    valid[3] = torch.tensor([4, 0, 17, 28])
    graph.standardise([(images, valid)])
    session = onnxruntime.InferenceSession(export(graph), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = graph(images, valid)
    found = session.run(None, {"images": images.numpy(), "valid": valid.numpy()})
    order = np.random.default_rng(0).permutation(8)
    moved = session.run(None, {"images": images.numpy()[order], "valid": valid.numpy()[order]})
    for ours, theirs, other in zip(expected, found, moved, strict=True):
        assert np.abs(ours.numpy() - theirs).max() <= 1e-3 * max(1.0, float(ours.abs().max()))
        assert theirs[order].tobytes() == other.tobytes()


def test_a_dimmer_lamp_changes_no_score(digits: NDArray[np.uint8], tmp_path: Path) -> None:
    """With it, scores of dimmed pictures are those of the bright ones; without it, they are not; the file keeps it."""
    detector = Detector(**QUICK, standardise_exposure=True).fit(digits[:120])
    bright = digits[200:230].astype(np.float32) / 255
    scores = detector.anomaly_score(bright)
    np.testing.assert_allclose(detector.anomaly_score(dimmed(digits[200:230])), scores, rtol=1e-3)
    plain = Detector(**QUICK).fit(digits[:120])
    moved = np.abs(plain.anomaly_score(dimmed(digits[200:230])) / plain.anomaly_score(bright) - 1)
    assert moved.min() > 0.01
    assert np.median(moved) > 0.1
    detector.save(tmp_path / "m.oddment")
    again = load(tmp_path / "m.oddment")
    assert again.anomaly_score(bright).tobytes() == scores.tobytes()
    assert "mean 0.5" in model_card(again.model)["Images"]["exposure"]
    assert "exposure" not in model_card(plain.scorer_.model)["Images"]


def test_a_reconstruction_is_shown_at_its_own_exposure(digits: NDArray[np.uint8]) -> None:
    """What people see is as bright as the image was."""
    detector = Detector(**QUICK | {"epochs": 20}, standardise_exposure=True).fit(digits[:200])
    dark = dimmed(digits[:10])
    drawn = np.asarray(detector.reconstruct(dark))[..., 0]
    assert np.abs(drawn.mean((1, 2)) - dark.mean((1, 2))).max() < 0.03


def test_it_is_an_option_of_the_command_line(normal_folder: Path, invoke: Any, tmp_path: Path) -> None:
    """--standardise-exposure reaches the file."""
    chosen = (
        "--model",
        "dense",
        "--epochs",
        1,
        "--quantile",
        0.9,
        "--no-baseline-check",
        "--standardise-exposure",
        "-q",
    )
    invoke("fit", normal_folder, "-o", tmp_path / "m.oddment", *chosen)
    assert load(tmp_path / "m.oddment").model.info["model"]["standardise_exposure"] is True
