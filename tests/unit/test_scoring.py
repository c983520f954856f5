"""Scores by name, pooling by name, and several of them added up: against references, in the graph and in the file."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from scipy import ndimage

from oddment import Detector, load
from oddment.card import model_card
from oddment.errors import ParameterError
from oddment.images.survey import Survey
from oddment.models import Shape, build
from oddment.results import COLUMNS
from oddment.scoring import ScoringGraph, export, parse_pool, parse_scores
from oddment.scoring.residuals import RESIDUALS, residual
from oddment.training.choosing import choose
from oddment.training.losses import binary_cross_entropy
from oddment.training.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"model": "conv-small", "epochs": 2, "quantile": 0.9, "baseline_check": False}
POOLS = ("mean", "max", "top=0.1", "quantile=0.9")


def pair(height: int, width: int, channels: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth pictures, (1, C, H, W), the second a blurred and noisy copy of the first."""
    rng = np.random.default_rng(seed)
    image = ndimage.gaussian_filter(rng.random((channels, height, width)), (0, 1, 1))
    redrawn = np.clip(ndimage.gaussian_filter(image, (0, 1, 1)) + rng.normal(0, 0.02, image.shape), 0, 1)
    first, second = (torch.from_numpy(each[None].astype(np.float32)) for each in (image, redrawn))
    return first, second


def everything(height: int, width: int) -> torch.Tensor:
    return torch.tensor([[0, 0, height, width]])


class TestResiduals:
    """Maps of differences."""

    @pytest.mark.parametrize("channels", [1, 3])
    def test_ssim_is_that_of_the_source(self, channels: int) -> None:
        """It agrees with Wang's formula computed by SciPy's Gaussian filter."""
        image, redrawn = pair(23, 31, channels)

        def blurred(planes: NDArray[Any]) -> NDArray[Any]:
            # A radius of 5 pixels: 11 × 11.
            return np.stack([ndimage.gaussian_filter(plane, 1.5, mode="nearest", truncate=3.4) for plane in planes])

        x, y = image[0].numpy().astype(float), redrawn[0].numpy().astype(float)
        mx, my = blurred(x), blurred(y)
        vx, vy, vxy = blurred(x * x) - mx**2, blurred(y * y) - my**2, blurred(x * y) - mx * my
        ssim = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
        found = residual("ssim", redrawn, image, everything(23, 31))[0].numpy()
        np.testing.assert_allclose(found, ((1 - ssim) / 2).mean(0), atol=2e-5)

    def test_gradient_similarity_is_that_of_the_source(self) -> None:
        """On one scale it agrees with Xue's formula by SciPy's Prewitt filter; a larger picture has two scales."""

        def unlike(x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
            gx, gy = (
                np.hypot(*(ndimage.prewitt(each, axis, mode="nearest") / 3 for axis in (0, 1))) for each in (x, y)
            )
            c = 170 / 255**2
            return np.asarray(1 - (2 * gx * gy + c) / (gx**2 + gy**2 + c))

        image, redrawn = pair(15, 14)
        x, y = image[0, 0].numpy().astype(float), redrawn[0, 0].numpy().astype(float)
        found = residual("msgms", redrawn, image, everything(15, 14))[0].numpy()
        np.testing.assert_allclose(found, unlike(x, y), atol=1e-5)
        image, redrawn = pair(20, 16)
        x, y = image[0, 0].numpy().astype(float), redrawn[0, 0].numpy().astype(float)
        small = unlike(*(each.reshape(10, 2, 8, 2).mean((1, 3)) for each in (x, y)))
        found = residual("msgms", redrawn, image, everything(20, 16))[0].numpy()
        assert float(found.mean()) == pytest.approx((unlike(x, y).mean() + small.mean()) / 2, rel=0.02)

    def test_cross_entropy_is_that_of_training(self) -> None:
        """The graph's own logarithm agrees with torch's from the least value to 1."""
        predicted = torch.cat([torch.logspace(-9, 0, 200), 1 - torch.logspace(-9, -0.01, 200)]).view(1, 1, 20, 20)
        image = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0))
        expected = binary_cross_entropy(predicted, image).mean(1)
        found = residual("bce", predicted, image, everything(20, 20))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("name", RESIDUALS)
    def test_nothing_is_left_of_a_perfect_copy(self, name: str) -> None:
        """The map is 0, cross-entropy's of black and white alone, and positive where a spot was painted in."""
        image = (pair(24, 24)[0] > 0.5).float()
        copy = residual(name, image, image, everything(24, 24))
        assert float(copy.abs().max()) < 1e-5
        spoilt = image.clone()
        spoilt[..., 8:12, 8:12] = 1 - spoilt[..., 8:12, 8:12]
        found = residual(name, image, spoilt, everything(24, 24))[0]
        assert found.shape == (24, 24)
        assert float(found[8:12, 8:12].mean()) > 10 * float(found[20:].mean())
        assert (found >= 0).all()

    @pytest.mark.parametrize("name", RESIDUALS)
    def test_padding_never_matters(self, name: str) -> None:
        """Whatever lies in the padding of image and reconstruction, the map of real pixels is the same to the bit."""
        image, redrawn = pair(32, 24, 3)
        valid = torch.tensor([[5, 3, 29, 20]])
        before = residual(name, redrawn, image, valid)[:, 5:29, 3:20]
        for each, value in ((image, 9.0), (redrawn, -4.0)):
            kept = each[..., 5:29, 3:20].clone()
            each[:] = value
            each[..., 5:29, 3:20] = kept
        assert torch.equal(residual(name, redrawn, image, valid)[:, 5:29, 3:20], before)


class TestPools:
    """From a map to a number."""

    @pytest.mark.parametrize("pool", POOLS)
    def test_real_pixels_alone(self, pool: str) -> None:
        """Each pool is what NumPy computes over the real pixels, in a picture with and without padding."""
        graph = ScoringGraph(build("dense", Shape(1, 10, 12)), Shape(1, 10, 12), pool=pool)
        levels = torch.rand(2, 10, 12, generator=torch.Generator().manual_seed(0))
        mask = torch.ones(2, 10, 12)
        mask[1, 7:], mask[1, :, 9:] = 0, 0
        found = graph.pool(levels * mask, mask)
        for score, values in zip(
            found.tolist(), (levels[0].numpy().ravel(), levels[1, :7, :9].numpy().ravel()), strict=True
        ):
            ordered = np.sort(values)[::-1]
            expected = {
                "mean": values.mean(),
                "max": values.max(),
                "top=0.1": ordered[: int(np.ceil(0.1 * values.size))].mean(),
                "quantile=0.9": ordered[int(0.1 * values.size)],
            }[pool]
            assert score == pytest.approx(float(expected), rel=1e-6)

    @pytest.mark.parametrize(
        "text", ["median", "top", "top=0", "top=1.5", "top=x", "quantile=1", "quantile=nan", "max=3", ""]
    )
    def test_others_are_refused(self, text: str) -> None:
        """The message says what there is."""
        with pytest.raises(ParameterError, match="pool must be one of model, mean, max, top=SHARE"):
            parse_pool(text)

    @pytest.mark.parametrize("text", ["l2", "", "mse,", "mse;ssim", "MSE"])
    def test_other_scores_are_refused(self, text: str) -> None:
        """The message says what there is."""
        with pytest.raises(ParameterError, match="score must be one of best, model, mse, mae, bce, ssim, msgms"):
            parse_scores(text)
        with pytest.raises(ParameterError, match="each part once"):
            parse_scores("mse, mse")

    def test_a_pool_replaces_a_score_that_is_no_pool(self) -> None:
        """A model whose score is not the pool of its map scores by the map where a pool is asked for."""
        torch.manual_seed(0)
        shape = Shape(1, 16, 16)
        model, images = build("conv-small", shape).eval(), torch.rand(2, 1, 16, 16)
        valid = everything(16, 16).repeat(2, 1)
        with torch.no_grad():
            own, anomaly_map, *_ = ScoringGraph(model, shape)(images, valid)
            largest, *_ = ScoringGraph(model, shape, pool="max")(images, valid)
        assert torch.equal(largest, anomaly_map.flatten(1).amax(1))
        assert not torch.allclose(own, largest)


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Eight colour pictures, some of them with padding."""
    images = torch.cat([pair(20, 28, 3, seed)[0] for seed in range(8)])
    valid = everything(20, 28).repeat(8, 1)
    valid[1], valid[6] = torch.tensor([2, 0, 17, 28]), torch.tensor([0, 9, 20, 19])
    return images, valid


@pytest.mark.parametrize(
    ("score", "pool"),
    [("mae", "max"), ("bce", "mean"), ("ssim", "top=0.1"), ("msgms", "quantile=0.9"), ("mse,ssim,msgms", "model")],
)
def test_the_exported_graph_is_torch_wherever_a_picture_lies(
    score: str, pool: str, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """ONNX Runtime agrees with torch, and a picture's outputs do not depend on its place by one bit."""
    torch.manual_seed(0)
    graph = ScoringGraph(build("conv-small", Shape(3, 20, 28)), Shape(3, 20, 28), score, pool).eval()
    graph.standardise([batch])
    session = onnxruntime.InferenceSession(export(graph), providers=["CPUExecutionProvider"])
    assert [item.name for item in session.get_outputs()] == list(graph.outputs)
    with torch.no_grad():
        expected = graph(*batch)
    images, valid = (each.numpy() for each in batch)
    found = session.run(None, {"images": images, "valid": valid})
    for ours, theirs in zip(expected, found, strict=True):
        assert ours.shape == theirs.shape
        assert np.abs(ours.numpy() - theirs).max() <= 2e-4 * max(1.0, float(ours.abs().max()))
    order = np.random.default_rng(1).permutation(8)
    moved = session.run(None, {"images": images[order], "valid": valid[order]})
    for before, after in zip(found, moved, strict=True):
        assert before[order].tobytes() == after.tobytes()


class TestCombined:
    """Several scores as one."""

    def test_it_is_the_sum_of_standardised_parts(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """Over the pictures that standardise it each part has mean 0 and deviation 1; alone each is its own score."""
        torch.manual_seed(0)
        shape = Shape(3, 20, 28)
        model = build("conv-small", shape).eval()
        graph = ScoringGraph(model, shape, "mse,ssim")
        graph.standardise([(batch[0][:5], batch[1][:5]), (batch[0][5:], batch[1][5:])])
        with torch.no_grad():
            score, anomaly_map, _, _, parts = graph(*batch)
            single = [ScoringGraph(model, shape, name)(*batch) for name in ("mse", "ssim")]
        torch.testing.assert_close(score, parts.sum(1))
        torch.testing.assert_close(parts.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
        torch.testing.assert_close(parts.std(0), torch.ones(2), atol=1e-3, rtol=0)
        for index, alone in enumerate(single):
            torch.testing.assert_close(parts[:, index] * graph.spread[index] + graph.centre[index], alone[0])
        weighted = sum(alone[1] / graph.spread[index] for index, alone in enumerate(single))
        torch.testing.assert_close(anomaly_map, weighted)

    def test_one_picture_cannot_blow_a_part_up(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        """With a single picture to standardise on, no part is divided by nothing."""
        shape = Shape(3, 20, 28)
        graph = ScoringGraph(build("conv-small", shape).eval(), shape, "mse,ssim")
        graph.standardise([(batch[0][:1], batch[1][:1])])
        with torch.no_grad():
            assert torch.isfinite(graph(*batch)[0]).all()

    def test_from_the_command_line_to_the_tables(
        self, normal_folder: Path, new_folder: Path, invoke: Any, tmp_path: Path
    ) -> None:
        """`fit --score mse,ssim` says so in the card, `find` names the parts in results.jsonl, the CSV is as ever."""
        model = tmp_path / "m.oddment"
        chosen = (
            "--model",
            "dense",
            "--epochs",
            3,
            "--target-fpr",
            0.1,
            "--score",
            "mse,ssim",
            "--pool",
            "top=0.5",
            "-q",
        )
        invoke("fit", normal_folder, "-o", model, *chosen, "--no-baseline-check")
        card = model_card(load(model).model)["Model"]["score"]
        assert card == "mse + ssim, each in standard deviations of normal images, pooled by top=0.5"
        invoke("find", new_folder, "-m", model, "-o", tmp_path / "out", "-q")
        rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
        for row in rows:
            assert list(row["parts"]) == ["mse", "ssim"]
            assert sum(row["parts"].values()) == pytest.approx(row["anomaly_score"], abs=1e-4)
        with (tmp_path / "out" / "results.csv").open() as file:
            assert tuple(next(csv.reader(file))) == COLUMNS
        assert '"parts":{"' in (tmp_path / "out" / "report.html").read_text()

    def test_parts_come_with_detections_and_survive_a_file(self, digits: NDArray[Any], tmp_path: Path) -> None:
        """A saved model gives the same parts; calibration images were not among those that standardise."""
        detector = Detector(**QUICK, score_mode="model,msgms").fit(digits[:120])
        detector.save(tmp_path / "m.oddment")
        before, after = detector.detect(digits[:5]), load(tmp_path / "m.oddment").detect(digits[:5])
        assert before == after
        assert set(before[0].parts) == {"model", "msgms"}  # type: ignore[union-attr]
        assert Detector(**QUICK, score_mode="ssim").fit(digits[:120]).detect(digits[:1])[0].parts == {}  # type: ignore[union-attr]


class TestChoosing:
    """Which models score pixels."""

    LOOKED = Survey(100, 28, 28, same_aspect=True, is_colour=False, ranges={"uint8": (0.0, 255.0)}, reasons={})

    def test_a_score_of_pixels_needs_a_model_of_pixels(self) -> None:
        """A model that scores features refuses it with what to do; "auto" takes another model and says why."""
        with pytest.raises(ParameterError, match=r"gradient-memory scores features.*Leave score out"):
            choose(Settings(model="gradient-memory", score="mse,ssim"), self.LOOKED)
        chosen = choose(Settings(score="ssim"), self.LOOKED)
        assert chosen.spec.name == "conv-small"
        assert "compares pixels" in chosen.reason
        assert choose(Settings(), self.LOOKED).spec.name == "gradient-memory"

    def test_mistakes_are_told_before_an_image_is_read(self) -> None:
        """Score and pool are refused together with all else."""
        with pytest.raises(ParameterError, match=r"(?s)epochs must.*score must be one of.*pool must be one of"):
            Settings(epochs=0, score="l2", pool="median").check()
