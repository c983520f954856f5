"""Isolation forest: how few random cuts it takes to part an image from all others.

Source: Liu, Ting and Zhou, "Isolation forest" (2008), eq. 2, as scikit-learn has it. Its trees become arrays of nodes,
and an image walks down all trees at once, one gather a level.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from oddment.models._baseline import PIXELS, SIDE, Baseline, check_options
from oddment.models._registry import ModelSpec, Shape, register

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["IsolationForestBaseline"]


class IsolationForestBaseline(Baseline):
    """The score is scikit-learn's with the sign turned: 2^(-mean path / usual path), from 0 to 1, about 0.5 for normal.

    Args:
        shape: channels, height and width of the images.
        on: "pixels" or an autoencoder.
        n_estimators: trees.
        max_samples: images that each tree is grown on.
        n_components: principal components that are cut; 0 for the features as they are.
        references: most images that are kept to fit.
    """

    feature: Tensor
    cut: Tensor
    leads: Tensor
    path: Tensor
    roots: Tensor

    def __init__(
        self, shape: Shape, *, on: str, n_estimators: int, max_samples: int, n_components: int, references: int
    ) -> None:
        super().__init__(shape, on=on, references=references, n_components=n_components)
        check_options(n_estimators=(n_estimators, 1), max_samples=(max_samples, 2))
        self.n_estimators, self.max_samples = n_estimators, max_samples
        leaf = {"feature": [0], "cut": [0.0], "leads": [0, 0], "path": [1.0], "roots": [0]}
        for name, values in leaf.items():
            self.register_buffer(name, torch.tensor(values))
        # As many as the deepest tree has levels: scikit-learn grows none deeper than this.
        self.depth = max(1, int(np.ceil(np.log2(max_samples))))

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Grow the trees and lay them out as arrays."""
        from sklearn.ensemble import IsolationForest

        samples = min(self.max_samples, len(rows))
        forest = IsolationForest(n_estimators=self.n_estimators, max_samples=samples, random_state=self.seed).fit(rows)
        trees = [_nodes(tree.tree_) for tree in forest.estimators_]
        starts = np.cumsum([0, *(len(tree.cut) for tree in trees)])
        self.roots = torch.from_numpy(starts[:-1].astype(np.int64))
        self.feature = torch.from_numpy(np.concatenate([tree.feature for tree in trees]))
        self.cut = torch.from_numpy(np.concatenate([tree.cut for tree in trees]))
        moved = [tree.children + start for tree, start in zip(trees, starts, strict=False)]
        # Where a node leads: [2 i] left, [2 i + 1] right.
        self.leads = torch.from_numpy(np.concatenate(moved).ravel())
        usual = float(_usual_path(np.array([samples]))[0])
        self.path = torch.from_numpy((np.concatenate([tree.path for tree in trees]) / usual).astype(np.float32))

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score, and the mean path in usual ones as the latent."""
        node = self.roots.expand(features.shape[0], -1)  # (N, trees)
        for _ in range(self.depth):  # a leaf leads to itself
            right = features.gather(1, self.feature[node]) > self.cut[node]
            node = self.leads[2 * node + right.long()]
        path = self.path[node].mean(1, keepdim=True)
        return torch.exp(-math.log(2) * path), path


class _Nodes(NamedTuple):
    """One tree: the feature that a node cuts, where, its children, and the path of an image that ends in it."""

    feature: NDArray[np.int64]
    cut: NDArray[np.float32]
    children: NDArray[np.int64]
    path: NDArray[np.float64]


def _nodes(tree: Any) -> _Nodes:  # noqa: ANN401 - scikit-learn ships no types
    leaf = tree.children_left < 0
    itself = np.arange(tree.node_count)
    children = np.stack([np.where(leaf, itself, side) for side in (tree.children_left, tree.children_right)], axis=1)
    depth = np.zeros(tree.node_count)
    for node in np.flatnonzero(~leaf):  # a parent comes before its children
        depth[children[node]] = depth[node] + 1
    path = depth + _usual_path(tree.n_node_samples)
    return _Nodes(np.where(leaf, 0, tree.feature), _not_above(tree.threshold), children.astype(np.int64), path)


def _not_above(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 that is not above: pixels are float32, so that each goes the same way as with float64."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near)


def _usual_path(count: NDArray[Any]) -> NDArray[np.float64]:
    """Mean path of an unsuccessful search in a binary tree of `count` images: eq. 1 of the source."""
    inner = np.maximum(count, 3) - 1.0
    usual = 2 * (np.log(inner) + np.euler_gamma) - 2 * inner / (inner + 1)
    return np.where(count > 2, usual, np.where(count == 2, 1.0, 0.0))


register(
    ModelSpec(
        name="isolation-forest",
        summary="how few random cuts part an image from all others; fitted in one pass",
        build=IsolationForestBaseline,
        trains=False,
        baseline=True,
        side=SIDE,
        options={"on": PIXELS, "n_estimators": 100, "max_samples": 256, "n_components": 0, "references": 10_000},
        scoring_batch=64,
    )
)
