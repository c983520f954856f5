"""Where no picture of a batch is padded, graphs do without masks: the same bits as with them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from oddment.models import Shape, build, get_spec
from oddment.runtime import Runtime
from oddment.scoring import ScoringGraph, export
from oddment.scoring import graph as scoring_graph
from oddment.scoring.unpadded import skip_masks

SHAPE = Shape(1, 28, 28)


def as_is(graph: bytes, height: int, width: int) -> bytes:
    return graph


def graphs(name: str, monkeypatch: pytest.MonkeyPatch, **how: str) -> tuple[bytes, bytes]:
    """The exported graph with masks in every case, and as it is."""
    torch.manual_seed(0)
    graph = ScoringGraph(build(name, SHAPE).eval(), SHAPE, **how)
    with monkeypatch.context() as patch:
        patch.setattr(scoring_graph, "skip_masks", as_is)
        before = export(graph)
    return before, skip_masks(before, SHAPE.height, SHAPE.width)


@pytest.mark.parametrize("name", ["dense", "dense-deep", "conv-pooling", "conv-small"])
def test_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whole pictures, of padded ones, and of whole ones in the company of a padded one."""
    before, after = graphs(name, monkeypatch)
    assert "If" in {node.op_type for node in onnx.load_model_from_string(after).graph.node}
    onnx.checker.check_model(onnx.load_model_from_string(after), full_check=True)
    batch = get_spec(name).scoring_batch
    old, new = (Runtime(graph, shape=(1, 28, 28), batch=batch) for graph in (before, after))
    images = np.random.default_rng(0).random((batch, 1, 28, 28), np.float32)
    whole = np.array([[0, 0, 28, 28]] * batch)
    padded = np.where(np.arange(batch)[:, None] == 1, [[3, 0, 25, 28]], whole)
    for valid in (whole, padded):
        ours, theirs = new.run(images, valid), old.run(images, valid)
        assert all(np.array_equal(ours[output], theirs[output]) for output in old.outputs)
    scores = [new.run(images, valid)["anomaly_score"] for valid in (whole, padded)]
    assert np.array_equal(*(np.delete(row, 1) for row in scores))
    assert scores[0][1] != scores[1][1]


@pytest.mark.parametrize("how", [{"pool": "max"}, {"pool": "top=0.1"}, {"score": "ssim"}, {"score": "mse,mae"}])
def test_other_uses_of_masks_are_left_alone(how: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a mask does more than to keep padding out of a mean, the graph stays as it is."""
    before, after = graphs("dense", monkeypatch, **how)
    assert after == before
