"""Torch-Pruning's importance classes: our scores are theirs where both define the same, and the adapter."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, MissingExtraError, ScoreError
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    GeometricMedian,
    Norm,
    Scorer,
    Taylor,
    TorchPruning,
    WeightFunction,
    score,
)
from compressor.testing import ScorerContract

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
    transposed = isinstance(graph.model.get_submodule(root), nn.ConvTranspose2d)
    key = (f"{root}.weight", 1 if transposed else 0)
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


# -- the adapter ----------------------------------------------------------------------------------


class TestTorchPruning(ScorerContract):
    def make(self) -> Scorer:
        return TorchPruning(peer.importance.GroupMagnitudeImportance())


class TestTorchPruningOfSingleLayers(ScorerContract):
    def make(self) -> Scorer:
        return TorchPruning(peer.importance.GroupMagnitudeImportance(1, "first"), normalize="rank")


IMPORTANCES = {
    "magnitude": lambda: peer.importance.GroupMagnitudeImportance(),
    "magnitude with biases": lambda: peer.importance.GroupMagnitudeImportance(p=1, bias=True),
    "largest magnitude": lambda: peer.importance.GroupMagnitudeImportance(group_reduction="max"),
    "first layer": lambda: peer.importance.GroupMagnitudeImportance(group_reduction="first", normalizer=None),
    "product": lambda: peer.importance.GroupMagnitudeImportance(group_reduction="prod", normalizer="sum"),
    "geometric median": lambda: peer.importance.FPGMImportance(),
    "LAMP": lambda: peer.importance.LAMPImportance(),
    "Taylor": lambda: peer.importance.GroupTaylorImportance(),
    "Taylor of slices": lambda: peer.importance.GroupTaylorImportance(multivariable=True, bias=True),
}


@pytest.mark.parametrize("name", IMPORTANCES)
def test_the_adapter_gives_what_the_importance_gives_in_its_own_library(residual: Graph, name: str) -> None:
    cross_entropy(residual.model(torch.randn(4, 3, 6, 6)), torch.randint(0, 4, (4,))).backward()
    for root in ROOTS:
        expected = theirs(residual, IMPORTANCES[name](), root)
        found = ours(residual, TorchPruning(IMPORTANCES[name]()), root)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=root)


def test_the_adapter_of_accumulated_squares(residual: Graph) -> None:
    """Their Hessian importance holds gradients of single examples, and uses them up."""
    results = []
    for of in (lambda i: theirs(residual, i, "inner"), lambda i: ours(residual, TorchPruning(i), "inner")):
        torch.manual_seed(0)
        importance = peer.importance.GroupHessianImportance()
        for loss in residual.model(torch.randn(3, 3, 6, 6)).square().sum(dim=1):
            residual.model.zero_grad()
            loss.backward(retain_graph=True)
            importance.accumulate_grad(residual.model)
        results.append(of(importance))
    np.testing.assert_allclose(*results, rtol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_adapter_follows_flattened_pixels(reduction: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    graph = capture(net, torch.randn(2, 1, 5, 5))
    importance = peer.importance.GroupMagnitudeImportance(group_reduction=reduction)
    expected = theirs(graph, importance, "0")
    np.testing.assert_allclose(ours(graph, TorchPruning(importance), "0"), expected, rtol=1e-5)


def test_the_adapter_follows_depthwise_and_transposed_convolutions() -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ConvTranspose2d(6, 5, 3), nn.ReLU(),
        nn.Conv2d(5, 2, 1),
    )  # fmt: skip
    graph = capture(net, torch.randn(1, 2, 5, 5))
    importance = peer.importance.GroupMagnitudeImportance(normalizer=None)
    for root in ("0", "3"):
        expected = theirs(graph, importance, root)
        np.testing.assert_allclose(ours(graph, TorchPruning(importance), root), expected, rtol=1e-5)


def test_the_adapter_follows_blocks_of_grouped_convolutions(grouped: Graph) -> None:
    """By a naive loop: their walk couples the groups of a convolution, this library does not."""
    importance = peer.importance.GroupMagnitudeImportance(p=1, normalizer=None)
    weights = {name: p.detach().abs() for name, p in grouped.model.named_parameters()}
    columns = weights["2.weight"].sum((0, 2, 3)).tolist() * 3  # theirs sums over the rows of all groups
    expected = [(weights["0.weight"][i].sum().item() + columns[i]) / 2 for i in range(6)]
    np.testing.assert_allclose(ours(grouped, TorchPruning(importance), "0"), expected, rtol=1e-5)


def test_a_criterion_of_ones_own_sees_layers_and_indices(residual: Graph) -> None:
    seen = []

    def importance(group: Any) -> torch.Tensor:
        seen.append([(dep.target.name.split(" ")[0], idxs, item.root_idxs) for item in group.items
                     for dep, idxs in [item]])  # fmt: skip
        return torch.arange(float(len(group[0].idxs)))

    score(residual, TorchPruning(importance))
    (inner,) = [items for items in seen if items[0][0] == "inner"]
    assert [name for name, _, _ in inner] == ["inner", "bn2", "outer"]
    assert all(idxs == roots == list(range(6)) for _, idxs, roots in inner)


def test_gradients_that_are_missing_are_asked_for(residual: Graph) -> None:
    with pytest.raises(
        ScoreError, match=r"group 'stem.weight': the importance failed with AttributeError.*backward"
    ):
        score(residual, TorchPruning(peer.importance.GroupTaylorImportance()))


def test_scores_of_another_length_or_not_finite_are_refused(residual: Graph) -> None:
    with pytest.raises(ScoreError, match=r"expected 8 scores, one for each channel, got \(2,\)"):
        score(residual, TorchPruning(lambda group: torch.ones(2)))
    with pytest.raises(ScoreError, match="8 of 8 scores are not finite"):
        score(residual, TorchPruning(lambda group: torch.full((len(group[0].idxs),), float("nan"))))


def test_a_class_instead_of_an_object_is_refused() -> None:
    with pytest.raises(InputError, match="must be an object such as"):
        TorchPruning(peer.importance.GroupMagnitudeImportance)


def test_units_on_parameters_without_a_module_are_named() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x @ self.first) @ self.second

    graph = capture(Bare(), torch.randn(2, 3))
    importance = peer.importance.GroupMagnitudeImportance()
    with pytest.raises(ScoreError, match=r"1 of the 1 groups lie on no module.*'first'.*otherwise=Norm"):
        score(graph, TorchPruning(importance))
    values = score(graph, TorchPruning(importance, otherwise=Norm())).values
    np.testing.assert_array_equal(values, score(graph, Norm()).values)


def test_a_missing_library_says_how_to_get_it(residual: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compressor\[torch-pruning\]'"):
        score(residual, TorchPruning(lambda group: None))
