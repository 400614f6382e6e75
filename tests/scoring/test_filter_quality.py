"""Filter quality against its terms by hand, planted dead filters, and bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import FilterQuality, Scorer, Term, score
from compressor.scoring.filter_quality import unread_units
from compressor.scoring.weights import weights_of
from compressor.testing import ScorerContract
from tests.core.transformers import Sizes, transformer
from tests.scoring.conftest import scrambled


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


class TestFilterQuality(ScorerContract):
    def make(self) -> Scorer:
        return FilterQuality()


class TestAllTermsOfRawWeights(ScorerContract):
    def make(self) -> Scorer:
        return FilterQuality(terms=list(Term), fold_batch_norm=False, epsilon=0.3)


class TestFilterQualityOfReaders(ScorerContract):
    def make(self) -> Scorer:
        return FilterQuality(roles="reader", terms=("norm", "distinct", "diverse"), normalize="max")


def units(graph: Graph, tensor: str, axis: int = 0) -> np.ndarray:
    return next(a.units for a in graph.axes if (a.tensor, a.axis) == (tensor, axis))


def net_of(*, norm: bool = False) -> nn.Sequential:
    layers = [nn.Conv2d(3, 8, 3), *([nn.BatchNorm2d(8)] if norm else []), nn.ReLU(), nn.Conv2d(8, 2, 3)]
    return scrambled(nn.Sequential(*layers))  # type: ignore[return-value]


def graph_of(net: nn.Module) -> Graph:
    return capture(net, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("scorer", "among"),
    [
        (FilterQuality(normalize="none"), "the longer"),
        (FilterQuality(terms=("live", "norm", "distinct", "read"), normalize="none"), "all"),
    ],
)
def test_it_is_live_share_times_norm_times_distance_in_a_naive_loop(
    scorer: FilterQuality, among: str
) -> None:
    net = net_of()
    with torch.no_grad():
        net[0].weight[2, :2] = 1e-6
        net[0].weight[5, 1] = 0
    weight = net[0].weight.detach().double().numpy()
    threshold = 0.01 * np.abs(weight).max()
    expected = []
    for i, own in enumerate(weight):
        live = np.mean([np.abs(kernel).max() >= threshold for kernel in own])
        cosines = [
            abs((own * other).sum()) / np.linalg.norm(own) / np.linalg.norm(other)
            for j, other in enumerate(weight)
            if j != i and (among == "all" or np.linalg.norm(other) > np.linalg.norm(own))
        ]
        expected.append(live * np.linalg.norm(own) * (1 - max(cosines, default=0)))
    graph = graph_of(net)
    found = score(graph, scorer).values[units(graph, "0.weight")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert min(expected[2], expected[5]) > 0


def test_a_dead_row_and_a_dead_column_are_worth_nothing() -> None:
    net = net_of()
    with torch.no_grad():
        net[0].weight[3] = 1e-6
        net[2].weight[:, 6] = -1e-6
    graph = graph_of(net)
    own = units(graph, "0.weight")
    values = score(graph, FilterQuality()).values[own]
    assert np.flatnonzero(values == 0).tolist() == [3, 6]
    assert np.flatnonzero(score(graph, FilterQuality(terms="live")).values[own] == 0).tolist() == [3]
    assert np.flatnonzero(score(graph, FilterQuality(terms="read")).values[own] == 0).tolist() == [6]
    plan = cp.plan(cp.score(graph, FilterQuality()), cp.budget.Uniform(0.25))
    (cut,) = [cut for cut in plan.cuts if (cut.tensor, cut.axis) == ("0.weight", 0)]
    assert cut.keep == (0, 1, 2, 4, 5, 7)


def test_a_channel_that_its_norm_silences_is_dead_only_where_norms_are_folded() -> None:
    net = net_of(norm=True)
    with torch.no_grad():
        net[1].weight[4] = 1e-9
    graph = graph_of(net)
    own = units(graph, "0.weight")
    assert np.flatnonzero(score(graph, FilterQuality()).values[own] == 0).tolist() == [4]
    assert score(graph, FilterQuality(fold_batch_norm=False)).values[own].min() > 0


def test_the_folded_norm_and_what_is_live_are_those_of_the_folded_network() -> None:
    net, plain = net_of(norm=True), net_of()
    fused = torch.nn.utils.fuse_conv_bn_eval(net[0], net[1])
    plain[0].load_state_dict(fused.state_dict())
    plain[2].load_state_dict(net[3].state_dict())
    terms = ("live", "folded norm", "distinct", "diverse", "read")
    found = score(graph_of(net), FilterQuality(terms=terms, epsilon=0.3, normalize="none")).values
    by_hand = score(graph_of(plain), FilterQuality(terms=terms, epsilon=0.3, normalize="none")).values
    np.testing.assert_allclose(found, by_hand, rtol=1e-5)
    same = FilterQuality(terms=("live", "norm", "distinct", "diverse", "read"), epsilon=0.3, normalize="none")
    np.testing.assert_allclose(by_hand, score(graph_of(plain), same).values, rtol=1e-5)


def test_the_norm_is_that_of_the_weights_as_they_are() -> None:
    net = net_of(norm=True)
    graph = graph_of(net)
    values = score(graph, FilterQuality(terms="norm", normalize="none")).values[units(graph, "0.weight")]
    np.testing.assert_allclose(values, net[0].weight.detach().double().flatten(1).norm(dim=1), rtol=1e-6)


def test_a_channel_is_read_as_long_as_one_of_its_readers_does() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left, self.right = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return torch.cat([self.left(x), self.right(x)], 1).mean((2, 3))

    net = scrambled(Two())
    with torch.no_grad():
        net.left.weight[:, [1, 4]] = 0
        net.right.weight[:, [2, 4]] = 0
    graph = graph_of(net)
    gone = unread_units(graph, weights_of(graph))
    assert np.flatnonzero(gone[units(graph, "stem.weight")]).tolist() == [4]


def test_of_grouped_filters_only_those_that_read_the_same_are_compared() -> None:
    net = scrambled(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 2, 1))
    )
    with torch.no_grad():
        net[2].weight[6] = net[2].weight[1]  # alike, on other channels
        net[2].weight[3] = 2 * net[2].weight[0]
    graph = capture(net, torch.randn(1, 4, 6, 6))
    values = score(graph, FilterQuality(terms="distinct", normalize="none")).values[units(graph, "2.weight")]
    assert values[[0, 3]] == pytest.approx(0, abs=1e-6)
    assert values[[1, 6]].min() > 0.01


def test_depthwise_kernels_are_never_copies_of_one_another() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 2, 1)))
    with torch.no_grad():
        net[1].weight[:] = net[1].weight[:1].clone()
    graph = graph_of(net)
    sites = FilterQuality(terms="distinct").site_scores(graph)
    assert sites["1.weight", 0].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("layer", "behind", "shape", "elements"),
    [
        (nn.Conv1d(3, 6, 5), nn.Conv1d(6, 5, 1), (1, 3, 9), 5),
        (nn.Conv3d(3, 6, (1, 2, 3)), nn.Conv3d(6, 5, 1), (1, 3, 3, 4, 5), 6),
        (nn.ConvTranspose2d(3, 6, 2), nn.Conv2d(6, 5, 1), (1, 3, 4, 4), 4),
        (nn.Linear(3, 6), nn.Linear(6, 5), (2, 3), 1),
    ],
)
def test_kernels_of_any_number_of_dimensions(
    layer: nn.Module, behind: nn.Module, shape: tuple[int, ...], elements: int
) -> None:
    net = scrambled(nn.Sequential(layer, nn.ReLU(), behind))
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    with torch.no_grad():
        filters = net[0].weight.detach().movedim(axis, 0)
        filters[4, 1] = 0  # one of three kernels
        filters[2] = 0
    graph = capture(net, torch.randn(shape))
    own = units(graph, "0.weight", axis)
    live = score(graph, FilterQuality(terms="live", normalize="none")).values[own]
    assert live == pytest.approx([1, 1, 0, 1, 2 / 3, 1])
    assert filters[0, 0].numel() == elements
    assert np.flatnonzero(score(graph, FilterQuality()).values[own] == 0).tolist() == [2]


def test_heads_and_dims_are_filters_of_their_own() -> None:
    graph = transformer(Sizes(heads=3, groups=3, dims=4, values=5))
    weight = graph.model.get_parameter("attentions.0.v.weight").detach().double()
    axis = next(a for a in graph.axes if (a.tensor, a.axis) == ("attentions.0.v.weight", 0))
    heads = weight.reshape(3, -1)
    dims = weight.view(3, 5, -1).transpose(0, 1).reshape(5, -1)
    sites = FilterQuality(terms=("norm", "distinct")).site_scores(graph)["attentions.0.v.weight", 0]
    for factor, slabs in enumerate((heads, dims)):
        directions = nn.functional.normalize(slabs)
        cosines = (directions @ directions.T).abs().fill_diagonal_(0)
        expected = slabs.norm(dim=1) * (1 - cosines.max(dim=1).values)
        members = sites[factor].view(3, 5)
        found = members[:, 0] if factor == 0 else members[0]
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert axis.units.shape == sites.shape


def test_layers_of_zeros_and_of_one_filter_get_finite_scores() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.Conv2d(1, 2, 1)))
    nn.init.zeros_(net[0].weight)
    for terms in (FilterQuality().terms, tuple(Term)):
        scores = score(graph_of(net), FilterQuality(terms=terms))
        assert np.isfinite(scores.values).all()
        assert (scores.values[units(scores.graph, "0.weight")] == 0).all()


def test_networks_without_convolutions_are_scored_too(chain: Graph) -> None:
    weight = chain.model.get_parameter("0.weight").detach().double()
    values = score(chain, FilterQuality(terms="norm", normalize="none")).values[units(chain, "0.weight")]
    np.testing.assert_allclose(values, weight.norm(dim=1), rtol=1e-6)


@pytest.mark.parametrize("terms", ["live", "norm", "folded norm", "distinct", "diverse", "read"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_named_whatever_the_terms(terms: str, bad: float) -> None:
    net = net_of()
    with torch.no_grad():
        net[0].weight[1, 0, 0, 0] = bad
    with pytest.raises(ScoreError, match=r"'0\.weight' holds \d+ of 216 weights that are NaN or infinite"):
        score(graph_of(net), FilterQuality(terms=terms))  # type: ignore[arg-type]


def test_a_reader_that_is_not_finite_is_named() -> None:
    net = net_of()
    with torch.no_grad():
        net[2].weight[1, 0, 0, 0] = math.nan
    with pytest.raises(ScoreError, match=r"'2\.weight' holds"):
        score(graph_of(net), FilterQuality())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": ()}, "terms is empty"),
        ({"terms": ("live", "alive")}, r"one of 'live', 'norm'.* got 'alive'"),
        ({"epsilon": 0}, "epsilon must lie between 0 and 1"),
        ({"epsilon": "1 %"}, "epsilon must lie between 0 and 1"),
        ({"roles": "both"}, "roles must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FilterQuality(**options)  # type: ignore[arg-type]


def test_terms_are_a_set_in_one_order() -> None:
    assert FilterQuality(terms=["read", "norm", "original", "live"]) == FilterQuality()
    assert repr(FilterQuality(terms="norm")) == "FilterQuality(terms=('norm',))"
