"""Scores of heads and of dims of heads, against naive loops over slices of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.scoring import LAMP, BatchNormScale, GeometricMedian, Norm, Random, Scorer, Taylor, score
from compressor.scoring.weights import factor_layers
from tests.core.transformers import ENTERING, TOKENS, Sizes, transformer

HEADS, DIMS, VALUES = 3, 4, 5


@pytest.fixture(scope="module")
def graph() -> Graph:
    return transformer(Sizes(heads=HEADS, groups=HEADS, dims=DIMS, values=VALUES))


def slabs(graph: Graph, letter: str, *, of_dims: bool) -> list[Tensor]:
    """The rows of a head (or of a dim in every head) of a weight, as one filter each."""
    weight = graph.model.get_parameter(f"attentions.0.{letter}.weight").detach().double()
    cube = weight.view(HEADS, -1, weight.shape[1])
    return list(cube.unbind(1) if of_dims else cube.unbind(0))


def found(graph: Graph, scorer: Scorer, letter: str, factor: int) -> list[float]:
    """The scores of the units of a factor, in the order of its heads or dims."""
    axis = next(a for a in graph.axes if (a.tensor, a.axis) == (f"attentions.0.{letter}.weight", 0))
    cube = axis.units.reshape(2, HEADS, -1)
    units = cube[0, :, 0] if factor == 0 else cube[1, 0]
    return score(graph, scorer).values[units].tolist()


def over_tensors(per_letter: Callable[[str], list[float]], letters: str) -> list[float]:
    """The mean of what each of the weights says."""
    return np.mean([per_letter(letter) for letter in letters], axis=0).tolist()


# Heads are written by queries, keys and values; dims of queries by queries and keys.
WRITTEN = [("q", 0, "qkv", False), ("q", 1, "qk", True), ("v", 1, "v", True)]


@pytest.mark.parametrize(("letter", "factor", "letters", "of_dims"), WRITTEN)
@pytest.mark.parametrize("p", [1, 2, math.inf])
def test_the_norm_of_a_head_is_the_mean_over_its_rows(
    p: float, letter: str, factor: int, letters: str, of_dims: bool, graph: Graph
) -> None:
    rows = [
        torch.cat(parts) for parts in zip(*(slabs(graph, x, of_dims=of_dims) for x in letters), strict=True)
    ]
    expected = [float(np.mean([row.norm(p).item() for row in unit])) for unit in rows]
    scorer = Norm(p, roles="writer", normalize="none")
    assert found(graph, scorer, letter, factor) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("letter", "factor", "letters", "of_dims"), WRITTEN)
def test_lamp_is_the_share_among_heads_or_among_dims(
    letter: str, factor: int, letters: str, of_dims: bool, graph: Graph
) -> None:
    def shares(x: str) -> list[float]:
        squares = [slab.square().sum().item() for slab in slabs(graph, x, of_dims=of_dims)]
        return [s / sum(other for other in squares if other >= s) for s in squares]

    assert found(graph, LAMP(), letter, factor) == pytest.approx(over_tensors(shares, letters), rel=1e-5)
    assert max(shares("q")) == 1.0


@pytest.mark.parametrize(("letter", "factor", "letters", "of_dims"), WRITTEN)
def test_distances_are_those_between_whole_heads_or_whole_dims(
    letter: str, factor: int, letters: str, of_dims: bool, graph: Graph
) -> None:
    def distances(x: str) -> list[float]:
        filters = slabs(graph, x, of_dims=of_dims)
        return [sum((one - other).norm().item() for other in filters) for one in filters]

    expected = over_tensors(distances, letters)
    scorer = GeometricMedian(normalize="none")
    assert found(graph, scorer, letter, factor) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("letter", "factor", "of_dims"), [("q", 0, False), ("v", 1, True)])
def test_taylor_of_a_head_is_the_effect_of_zeroing_what_reads_it(
    letter: str, factor: int, of_dims: bool, graph: Graph
) -> None:
    """The loss is linear in the output projection of the last layer before a linear head."""
    torch.manual_seed(0)
    inputs, target = torch.randn(2, TOKENS, ENTERING), torch.randn(2, 3)
    scorer = Taylor([(inputs, target)], mse_loss, roles="reader")
    weight = graph.model.get_parameter("attentions.0.out.weight")
    gradient = torch.autograd.grad(mse_loss(graph.model(inputs), target), weight)[0]
    products = (gradient * weight).detach().sum(0).view(HEADS, VALUES)
    expected = products.sum(0 if of_dims else 1).abs().tolist()
    assert found(graph, scorer, letter, factor) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_a_factor_draws_one_random_number_for_each_unit(graph: Graph) -> None:
    numbers = np.random.default_rng(5).random(graph.n_units)
    np.testing.assert_array_equal(score(graph, Random(5)).values, numbers)


def test_slimming_scores_of_a_head_are_the_mean_scale_of_its_channels() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.ModuleList(nn.Conv1d(6, 12, 1) for _ in range(3))
            self.norms = nn.ModuleList(nn.BatchNorm1d(12) for _ in range(3))
            self.out = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (
                norm(part(x)).unflatten(1, (3, -1)) for part, norm in zip(self.qkv, self.norms, strict=True)
            )
            return self.out((v @ (q.transpose(-2, -1) @ k).softmax(-1)).flatten(1, 2).mean(-1))

    net = Net().eval()
    for norm in net.norms:
        nn.init.normal_(norm.weight)
    graph = capture(net, torch.randn(2, 6, 5))
    axis = next(a for a in graph.axes if (a.tensor, a.axis) == ("qkv.2.weight", 0))
    values = score(graph, BatchNormScale()).values
    scales = torch.stack([norm.weight.detach().abs().view(3, 4) for norm in net.norms])
    assert values[axis.units[0, ::4]].tolist() == pytest.approx(scales.mean((0, 2)).tolist())
    assert values[axis.units[1, :4]].tolist() == pytest.approx(scales[2].mean(0).tolist())


def test_queries_and_keys_of_one_matrix_are_another_layer_than_values() -> None:
    graph = transformer(Sizes("torch", heads=2, dims=3))
    axis = next(a for a in graph.axes if a.tensor.endswith("in_proj_weight") and a.axis == 0)
    heads, *dims = [(factor, channels.tolist()) for factor, channels in factor_layers(graph, axis)]
    assert heads == (0, [[0, 1, 2, 6, 7, 8, 12, 13, 14], [3, 4, 5, 9, 10, 11, 15, 16, 17]])
    assert dims == [
        (1, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        (1, [[12, 15], [13, 16], [14, 17]]),
    ]
