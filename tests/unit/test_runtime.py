"""The runtime: full batches, any number of pictures, and padding that is never scored."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oddment.artifact import read_model
from oddment.errors import ModelFileError, ParameterError
from oddment.models import Autoencoder, Batch, Leftover, Shape
from oddment.runtime import OUTPUTS, Runtime
from oddment.scoring import ScoringGraph, export

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FULL = np.array([[0, 0, 8, 8]], np.int64)


def pictures(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 1, 8, 8), dtype=np.float32)


@pytest.fixture(scope="module")
def runtime(tiny_model: Path) -> Runtime:
    model = read_model(tiny_model)
    return Runtime(model.graph, shape=model.shape, batch=model.scoring_batch)


class Pixelwise(Autoencoder):
    """Redraws each pixel from that pixel alone, so that only the graph's own masking is at work."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.pooled_share = share
        self.level = torch.nn.Parameter(torch.tensor(0.5))

    def leftover(self, batch: Batch) -> Leftover:
        """Return a map of squared errors that depends on nothing around a pixel."""
        drawn = batch.images * self.level
        return Leftover((batch.images - drawn).square().mean(1), drawn, drawn.flatten(1)[:, :3])


@pytest.fixture(scope="module", params=[1.0, 0.1])
def pixelwise(request: pytest.FixtureRequest) -> Runtime:
    graph = export(ScoringGraph(Pixelwise(request.param), Shape(1, 8, 8)))
    return Runtime(graph, shape=(1, 8, 8), batch=4)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 65])
def test_any_number_of_pictures(runtime: Runtime, count: int) -> None:
    """Any number of pictures gives as many rows of every output."""
    outputs = runtime.run(pictures(count), np.repeat(FULL, count, axis=0))
    assert set(outputs) == set(OUTPUTS)
    assert outputs["anomaly_score"].shape == (count,)
    assert outputs["anomaly_map"].shape == (count, 8, 8)
    assert outputs["reconstruction"].shape == (count, 1, 8, 8)
    assert outputs["latent"].shape[0] == count


def test_some_outputs(runtime: Runtime) -> None:
    """Only what was asked for comes back, the same as when all is asked for."""
    everything = runtime.run(pictures(3), np.repeat(FULL, 3, axis=0))
    some = runtime.run(pictures(3), np.repeat(FULL, 3, axis=0), ("latent", "anomaly_score"))
    assert list(some) == ["latent", "anomaly_score"]
    assert all(np.array_equal(some[name], everything[name]) for name in some)


def test_rows_are_independent(runtime: Runtime) -> None:
    """A picture's row is the same to the bit alone, in a full batch, in another place and after another batch."""
    images = pictures(70)
    together = runtime.run(images, np.repeat(FULL, 70, axis=0))
    for index in (0, 31, 32, 69):
        alone = runtime.run(images[index : index + 1], FULL)
        assert all(alone[name][0].tobytes() == together[name][index].tobytes() for name in OUTPUTS)


def test_every_call_is_a_full_batch(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime is only ever given batches of the size that the model file fixes."""
    seen = []
    run = runtime._run_full

    def watched(images: Any, valid: Any, outputs: Any) -> Any:
        seen.append((len(images), len(valid)))
        return run(images, valid, outputs)

    monkeypatch.setattr(runtime, "_run_full", watched)
    runtime.run(pictures(70), np.repeat(FULL, 70, axis=0))
    assert seen == [(32, 32)] * 3


@st.composite
def rectangles(draw: st.DrawFn) -> tuple[int, int, int, int]:
    top, left = draw(st.integers(0, 7)), draw(st.integers(0, 7))
    return top, left, draw(st.integers(top + 1, 8)), draw(st.integers(left + 1, 8))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(valid=rectangles(), seed=st.integers(0, 9), noise=st.floats(-1000, 1000, width=32))
def test_padding_is_never_scored(pixelwise: Runtime, valid: tuple[int, int, int, int], seed: int, noise: float) -> None:
    """Whatever stands in the padding, neither the score nor the map inside change by one bit; the map outside is 0."""
    top, left, bottom, right = valid
    image = pictures(1, seed)
    other = np.full_like(image, noise)
    inside = np.s_[0, :, top:bottom, left:right]
    other[inside] = image[inside]
    first, second = (pixelwise.run(item, np.array([valid])) for item in (image, other))
    assert first["anomaly_score"].tobytes() == second["anomaly_score"].tobytes()
    assert first["anomaly_map"].tobytes() == second["anomaly_map"].tobytes()
    outside = np.ones((8, 8), bool)
    outside[top:bottom, left:right] = False
    assert (first["anomaly_map"][0][outside] == 0).all()


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(valid=rectangles(), seed=st.integers(0, 9))
def test_score_is_the_mean_inside(runtime: Runtime, valid: tuple[int, int, int, int], seed: int) -> None:
    """Of a model that pools by the mean, the score is the mean of the map over the real pixels."""
    top, left, bottom, right = valid
    outputs = runtime.run(pictures(1, seed), np.array([valid]))
    expected = outputs["anomaly_map"][0, top:bottom, left:right].mean()
    assert outputs["anomaly_score"][0] == pytest.approx(expected, rel=1e-5)


@settings(deadline=None, max_examples=50)
@given(valid=rectangles(), seed=st.integers(0, 9))
def test_score_is_the_mean_of_the_largest(valid: tuple[int, int, int, int], seed: int) -> None:
    """With a pooled share the score is the mean of that share of the real pixels' largest values, at least one."""
    top, left, bottom, right = valid
    graph = ScoringGraph(Pixelwise(0.1), Shape(1, 8, 8))
    score, anomaly_map, _, _ = graph(torch.from_numpy(pictures(1, seed)), torch.tensor([valid]))
    values = np.sort(anomaly_map.detach().numpy()[0, top:bottom, left:right].ravel())[::-1]
    expected = values[: max(1, int(np.ceil(np.float32(0.1) * values.size)))].mean()
    assert score.item() == pytest.approx(expected, rel=1e-5)


def test_no_graph() -> None:
    """Bytes that ONNX Runtime cannot load are a model file error of one line."""
    with pytest.raises(ModelFileError, match="cannot be loaded by ONNX Runtime") as caught:
        Runtime(b"nothing", shape=(1, 8, 8), batch=4)
    assert "\n" not in str(caught.value)


def test_failure_while_scoring(runtime: Runtime) -> None:
    """A graph that fails on a batch is a model file error."""
    with pytest.raises(ModelFileError, match="failed while scoring"):
        runtime.run(np.zeros((32, 2, 8, 8), np.float32), np.repeat(FULL, 32, axis=0))


def test_threads(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ODDMENT_THREADS sets the threads where none are given; what is no number is refused by name."""
    model = read_model(tiny_model)
    for text in ("two", "-1", "1.5", ""):
        monkeypatch.setenv("ODDMENT_THREADS", text)
        with pytest.raises(ParameterError, match="ODDMENT_THREADS must be a whole number"):
            Runtime(model.graph, shape=model.shape, batch=32)
        Runtime(model.graph, shape=model.shape, batch=32, threads=1)
    monkeypatch.setenv("ODDMENT_THREADS", "1")
    runtime = Runtime(model.graph, shape=model.shape, batch=32)
    assert runtime._session.get_session_options().intra_op_num_threads == 1


def test_nothing_is_kept_or_reported_about_the_user(tmp_path: Path, model_file: Path) -> None:
    """Loading and scoring write nothing to the home folder: ONNX Runtime's telemetry is off unless asked for."""
    code = (
        f"import numpy as np, oddment; oddment.load({str(model_file)!r}).anomaly_score(np.zeros((1, 28, 28), np.uint8))"
    )
    quiet = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "CI", "ORT_RUNNING_UNIT_TESTS"}
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    done = subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(tmp_path)}, check=False)
    assert done.returncode == 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("model", ["gradient-memory", "gradient-mixture", "gradient-autoencoder", "knn", "dense"])
def test_rows_of_odd_length_are_independent(model: str) -> None:
    """Rows whose length fits no register give the same to the bit wherever they lie in the batch."""
    from oddment import Detector

    rng = np.random.default_rng(0)
    images = (rng.random((90, 9, 11)) * np.linspace(0, 255, 11)).astype(np.uint8)
    given = {} if model in ("gradient-memory", "gradient-mixture", "knn") else {"epochs": 1}
    runtime = Detector(model=model, target_fpr=0.1, baseline_check=False, **given).fit(images).scorer_.runtime
    new, where = rng.random((64, 1, 9, 11), dtype=np.float32), np.tile([[0, 0, 9, 11]], (64, 1))
    together = runtime.run(new, where)
    for turn in (1, 31, 32, 63):
        turned = runtime.run(np.roll(new, turn, axis=0), where)
        for name in OUTPUTS:
            assert np.roll(turned[name], -turn, axis=0).tobytes() == together[name].tobytes(), name
