"""The same scores as Torch-Pruning's importance classes, where both define the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compressor.core.graph import Graph
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    GeometricMedian,
    Norm,
    Scorer,
    Taylor,
    WeightFunction,
    score,
)

peer = pytest.importorskip("torch_pruning")

WEIGHTED = [nn.modules.conv._ConvNd, nn.Linear]
ROOTS = ("stem", "inner", "last")


def theirs(graph: Graph, importance: Any, root: str) -> np.ndarray:
    """Their scores of the group that is reached from the outputs of layer `root`."""
    # Their walk sees only parameters with gradients, and follows the layer it starts from.
    dependencies = peer.DependencyGraph().build_dependency(graph.model, graph.args)
    layer = graph.model.get_submodule(root)
    prune = peer.prune_conv_out_channels
    group = dependencies.get_pruning_group(layer, prune, idxs=list(range(layer.out_channels)))
    return importance(group).detach().double().numpy()


def ours(graph: Graph, scorer: Scorer, root: str) -> np.ndarray:
    key = (f"{root}.weight", 0)
    units = next(axis.units for axis in graph.axes if (axis.tensor, axis.axis) == key)
    return score(graph, scorer).values[units]


def assert_agree(graph: Graph, scorer: Scorer, importance: Any, roots: tuple[str, ...]) -> None:
    for root in roots:
        expected = theirs(graph, importance, root)
        np.testing.assert_allclose(ours(graph, scorer, root), expected, rtol=1e-4, err_msg=root)


@pytest.mark.parametrize("normalize", ["none", "mean", "max"])
@pytest.mark.parametrize("reduce", ["sum", "mean", "max"])
def test_l1_magnitude_of_groups(residual: Graph, reduce: Any, normalize: Any) -> None:
    importance = peer.importance.GroupMagnitudeImportance(
        p=1,
        group_reduction=reduce,
        normalizer=None if normalize == "none" else normalize,
        target_types=WEIGHTED,
    )
    assert_agree(residual, Norm(1, reduce=reduce, normalize=normalize), importance, ROOTS)


def test_l1_magnitude_of_the_first_layer(residual: Graph) -> None:
    importance = peer.importance.GroupMagnitudeImportance(
        p=1, group_reduction="first", normalizer=None, target_types=WEIGHTED
    )
    scorer = Norm(1, reduce="first", normalize="none")
    assert_agree(residual, scorer, importance, ROOTS)


def test_squared_magnitude_of_groups(residual: Graph) -> None:
    """Their p = 2 leaves out the root; as a plain function it is one line."""

    def squares(weight: torch.Tensor, axis: int) -> torch.Tensor:
        return weight.square().transpose(0, axis).flatten(1).sum(dim=1)

    importance = peer.importance.GroupMagnitudeImportance(p=2, target_types=WEIGHTED)
    assert_agree(residual, WeightFunction(squares), importance, ROOTS)


def test_geometric_median(residual: Graph) -> None:
    # Theirs compares |w|^p: for p = 1 and weights above zero these are the filters of the paper.
    with torch.no_grad():
        for parameter in residual.model.parameters():
            parameter.abs_()
    importance = peer.importance.FPGMImportance(p=1)
    scorer = GeometricMedian(roles=("writer", "reader"))
    assert_agree(residual, scorer, importance, ROOTS)


def test_lamp(residual: Graph) -> None:
    importance = peer.importance.LAMPImportance(p=2, group_reduction="first")
    # Theirs normalises a group; a group with one writing layer is that layer.
    assert_agree(residual, LAMP(), importance, ("inner", "last"))


def test_batch_norm_scale(residual: Graph) -> None:
    importance = peer.importance.BNScaleImportance()
    scorer = BatchNormScale(normalize="mean", otherwise=Norm())
    assert_agree(residual, scorer, importance, ("stem", "inner"))


@pytest.mark.parametrize(("joint", "multivariable"), [("slice", True), ("weight", False)])
def test_taylor(residual: Graph, joint: Any, multivariable: bool) -> None:
    batch = (torch.randn(4, 3, 6, 6), torch.randint(0, 4, (4,)))
    scorer = Taylor(
        [batch],
        cross_entropy,
        joint=joint,
        roles=("writer", "reader"),
        reduce="mean",
        normalize="mean",
    )
    expected = {root: ours(residual, scorer, root) for root in ROOTS}
    cross_entropy(residual.model(batch[0]), batch[1]).backward()
    importance = peer.importance.GroupTaylorImportance(multivariable=multivariable, target_types=WEIGHTED)
    for root in ROOTS:
        found = theirs(residual, importance, root)
        np.testing.assert_allclose(expected[root], found, rtol=1e-3, err_msg=root)
