"""The path to the score alone: what it leaves out, and that the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import oddment.scorepath as module
from oddment.errors import ModelFileError
from oddment.models import Shape, build, get_spec
from oddment.runtime import Runtime
from oddment.scorepath import score_path
from oddment.scoring import ScoringGraph, export


def exported(name: str, shape: Shape, **how: str) -> bytes:
    torch.manual_seed(0)
    return export(ScoringGraph(build(name, shape).eval(), shape, **how))


@pytest.mark.parametrize("shape", [Shape(1, 28, 28), Shape(3, 12, 20)])
@pytest.mark.parametrize("name", ["dense", "dense-deep", "conv-pooling", "conv-small", "variational", "conv-strided"])
@pytest.mark.parametrize("how", [{}, {"score": "mse,ssim"}, {"pool": "top=0.1"}, {"score": "msgms", "pool": "max"}])
def test_the_same_bits(name: str, shape: Shape, how: dict[str, str]) -> None:
    """Of whole pictures and of padded ones, whatever the score is made of, in any number."""
    if shape.height % get_spec(name).stride or shape.width % get_spec(name).stride:
        pytest.skip("not a size of this model")
    graph = exported(name, shape, **how)
    runtime = Runtime(graph, shape=(shape.channels, shape.height, shape.width), batch=get_spec(name).scoring_batch)
    rng = np.random.default_rng(0)
    images = rng.random((2 * runtime.batch + 3, *runtime.shape), np.float32)
    whole = np.array([[0, 0, shape.height, shape.width]] * len(images))
    padded = np.where(rng.random((len(images), 1)) < 0.1, [[2, 0, shape.height - 1, shape.width]], whole)
    for valid in (whole, padded):
        assert runtime.scores(images, valid).tobytes() == runtime.run(images, valid)["anomaly_score"].tobytes()
    assert runtime._path_to_score is not runtime._session


def test_nothing_else_is_computed() -> None:
    """One output is left, the branches of an `If` have one too, and the graph is a valid one."""
    graph = onnx.load_model_from_string(score_path(exported("dense", Shape(1, 8, 8))))
    onnx.checker.check_model(graph, full_check=True)
    assert [item.name for item in graph.graph.output] == ["anomaly_score"]
    [choice] = [node for node in graph.graph.node if node.op_type == "If"]
    assert list(choice.output) == ["anomaly_score"]
    assert [len(attribute.g.output) for attribute in choice.attribute] == [1, 1]
    made = {name for node in graph.graph.node for name in node.output}
    assert not made & {"anomaly_map", "latent"}


def test_a_path_of_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should a runtime ever compute the score otherwise without the other outputs, all of them are computed."""

    def scaled(graph: bytes) -> bytes:
        model = onnx.load_model_from_string(score_path(graph))
        for node in model.graph.node:
            for names in (node.input, node.output):
                names[:] = ["before" if name == "anomaly_score" else name for name in names]
        model.graph.initializer.append(helper.make_tensor("by", TensorProto.FLOAT, [1], [1.0000001]))
        model.graph.node.append(helper.make_node("Mul", ["before", "by"], ["anomaly_score"]))
        return model.SerializeToString()

    runtime = Runtime(exported("dense", Shape(1, 8, 8)), shape=(1, 8, 8), batch=get_spec("dense").scoring_batch)
    images, valid = np.random.default_rng(1).random((40, 1, 8, 8), np.float32), np.array([[0, 0, 8, 8]] * 40)
    with monkeypatch.context() as patch:
        patch.setattr(module, "score_path", scaled)
        assert runtime.scores(images, valid).tobytes() == runtime.run(images, valid)["anomaly_score"].tobytes()
    assert runtime._path_to_score is runtime._session


def test_large_models_are_loaded_once() -> None:
    """Where products take nearly all of the time, the memory of a second session would buy nothing."""
    graph = exported("conv-small", Shape(1, 104, 104))
    runtime = Runtime(graph, shape=(1, 104, 104), batch=2)
    images, valid = np.zeros((3, 1, 104, 104), np.float32), np.array([[0, 0, 104, 104]] * 3)
    assert runtime.scores(images, valid).tobytes() == runtime.run(images, valid)["anomaly_score"].tobytes()
    assert "_path_to_score" not in vars(runtime)


def test_what_cannot_be_cut_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that this reading of the format does not understand scores all the same."""
    with pytest.raises(ModelFileError, match="cannot be read"):
        score_path(b"\xff\xff not a graph")

    def unread(graph: bytes) -> bytes:
        return score_path(graph[1:])

    runtime = Runtime(exported("dense", Shape(1, 8, 8)), shape=(1, 8, 8), batch=get_spec("dense").scoring_batch)
    monkeypatch.setattr(module, "score_path", unread)
    assert np.isfinite(runtime.scores(np.zeros((2, 1, 8, 8), np.float32), np.array([[0, 0, 8, 8]] * 2))).all()
    assert runtime._path_to_score is runtime._session
