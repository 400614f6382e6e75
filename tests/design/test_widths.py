"""Widths by effective rank: planted ranks are found, budgets met, proposals are what becomes of a model."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.design import (
    ActivationSpectra,
    EnergyRank,
    FilterSpectra,
    ParticipationRatio,
    SpectralRanks,
    SpectralWidths,
    StableRank,
    WidthProposal,
    suggest_widths,
)
from compressor.errors import (
    BudgetError,
    InputError,
    NothingToPruneError,
    NothingToPruneWarning,
    UnreachableBudgetError,
)

X = torch.ones(1, 3, 12, 12)


def plant_(conv: nn.Conv2d | nn.Linear, rank: int) -> None:
    """Filters of `rank` orthogonal directions of equal energy; needs `rank` to divide their number."""
    rows = conv.weight.shape[0]
    flat = torch.linalg.qr(torch.randn(conv.weight[0].numel(), rank).double()).Q.T
    conv.weight.data = flat.repeat(rows // rank, 1).reshape(conv.weight.shape).to(conv.weight)


def planted(*ranks: int, width: int = 16) -> nn.Sequential:
    """Convolutions of one width and of known ranks, each behind a ReLU, and a last layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for position, rank in enumerate(ranks):
        conv = nn.Conv2d(width if position else 3, width, 3, padding=1, bias=False)
        plant_(conv, rank)
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, 4, 1))


def channels(proposal: WidthProposal) -> list[int]:
    return list(proposal.widths.values())


@pytest.mark.parametrize("measure", [ParticipationRatio(), StableRank(), EnergyRank(0.99)])
def test_planted_ranks_are_suggested(measure: ParticipationRatio) -> None:
    proposal = suggest_widths(planted(2, 8, 16), X, ranks=SpectralRanks(measure))
    assert channels(proposal) == [2, 8, 16, 4]
    assert [round(row.rank, 6) for row in proposal.layers if row.rank is not None] == [2, 8, 16]


def test_a_proposal_is_what_becomes_of_the_model() -> None:
    net = planted(2, 8, 4)
    before = [tensor.clone() for tensor in net.state_dict().values()]
    proposal = suggest_widths(net, X)
    assert all(torch.equal(a, b) for a, b in zip(before, net.state_dict().values(), strict=True))
    small = cp.apply(net, proposal.plan)
    found = {name: m.out_channels for name, m in small.named_modules() if isinstance(m, nn.Conv2d)}
    assert found == proposal.widths
    profile = cp.profile(small, X)
    assert (profile.macs, profile.params) == (proposal.suggested_macs, proposal.suggested_params)
    whole = cp.profile(net, X)
    assert (whole.macs, whole.params) == (proposal.macs, proposal.params)
    by_layer = {row.module: row.macs for row in profile.rows}
    assert {row.layer: row.suggested_macs for row in proposal.layers} == {
        row.layer: by_layer[row.layer] for row in proposal.layers
    }
    cp.verify(net, small, proposal.plan, X)


def test_the_plan_fits_a_model_that_is_built_anew() -> None:
    proposal = suggest_widths(planted(2, 8), X)
    fresh = cp.apply(planted(16, 16), proposal.plan)
    assert [m.out_channels for m in fresh.modules() if isinstance(m, nn.Conv2d)] == [2, 8, 4]


def test_widths_are_proportional_to_ranks_where_macs_are_given() -> None:
    ranks = (2, 4, 8, 16)
    net = planted(*ranks, width=64)
    for fraction in (0.05, 0.02):
        order = SpectralRanks()
        small = cp.prune(net, X, budget=cp.budget.Macs(fraction, order=order))
        kept = [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)][:-1]
        # One number alpha for all layers: each keeps alpha * rank, up to channels handed back.
        pairs = list(zip(kept, ranks, strict=True))
        assert max((n - 2) / r for n, r in pairs) <= min((n + 2) / r for n, r in pairs)
        whole, left = cp.profile(net, X).macs, cp.profile(small, X).macs
        assert left <= fraction * whole
        proposal = suggest_widths(net, X, budget=cp.budget.Macs(fraction))
        assert channels(proposal)[:-1] == kept and proposal.suggested_macs == left


def test_no_layer_could_have_a_channel_back() -> None:
    net = planted(2, 4, 8)
    proposal = suggest_widths(net, X, budget=cp.budget.Macs(0.4))
    widths = [3, *channels(proposal)]
    positions = 144

    def macs(sizes: list[int]) -> int:
        taps = [9, 9, 9, 1]
        return sum(positions * t * a * b for t, a, b in zip(taps, sizes, sizes[1:], strict=False))

    assert macs(widths) == proposal.suggested_macs <= 0.4 * proposal.macs
    for layer in range(1, 4):
        more = [*widths]
        more[layer] += 1
        assert macs(more) > 0.4 * proposal.macs


class Residual(nn.Module):
    """Two branches are written into one stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)
        plant_(self.stem, 2)
        plant_(self.branch, 8)

    def forward(self, x: Tensor) -> Any:
        y = self.stem(x)
        return self.out(F.relu(y + self.branch(F.relu(y))))


def test_the_layers_of_a_stream_have_the_largest_of_their_ranks() -> None:
    torch.manual_seed(0)
    with pytest.warns(NothingToPruneWarning, match="removed nothing"):
        proposal = suggest_widths(Residual(), X)
    assert channels(proposal) == [8, 8, 2]
    assert "one width: the max of their ranks" in str(proposal)


def test_or_what_is_asked_for() -> None:
    torch.manual_seed(0)
    ranks = SpectralRanks(reconcile=statistics.fmean)
    assert channels(suggest_widths(Residual(), X, ranks=ranks)) == [5, 5, 2]
    assert repr(ranks) == "SpectralRanks(reconcile=fmean)"


def test_a_layer_of_zeros_gets_the_least_width_and_is_named() -> None:
    net = planted(2, 8)
    weight = net.get_parameter("2.weight")
    weight.data.zero_()
    proposal = suggest_widths(net, X)
    assert channels(proposal) == [2, 1, 4]
    assert "nothing but zeros, the least width suggested: 2.weight" in str(proposal)
    assert proposal.layers[1].dead == 16


def test_dead_filters_do_not_count() -> None:
    net = planted(16)
    net.get_parameter("0.weight").data[5:] *= 1e-3
    proposal = suggest_widths(net, X, ranks=SpectralRanks(EnergyRank(1.0)))
    assert (proposal.layers[0].dead, channels(proposal)) == (11, [5, 4])


def test_depthwise_layers_follow_their_producer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 2, 1)
    )
    first = net[0]
    assert isinstance(first, nn.Conv2d)
    plant_(first, 2)
    proposal = suggest_widths(net, X)
    assert proposal.widths == {"0": 2, "2": 2, "4": 2}
    assert proposal.layers[1].rank is None


def test_a_model_without_filters_is_refused() -> None:
    net = nn.Sequential(nn.Embedding(5, 8), nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(InputError, match="no convolution or matrix with channels that may change"):
        suggest_widths(net, torch.zeros(1, 2, dtype=torch.int64))


def test_the_groups_of_a_convolution_keep_as_many_filters_each() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 16, 3, groups=2), nn.ReLU(), nn.Conv2d(16, 4, 1, groups=2))
    first = net[0]
    assert isinstance(first, nn.Conv2d)
    halves = []
    for rank in (2, 4):
        half = nn.Conv2d(2, 8, 3)
        plant_(half, rank)
        halves.append(half.weight.data)
    first.weight.data = torch.cat(halves)
    proposal = suggest_widths(net, torch.ones(1, 4, 12, 12))
    # The larger of the two ranks for both halves.
    assert channels(proposal) == [8, 4]
    assert proposal.layers[0].rank == pytest.approx(6)


def test_one_filter_stays() -> None:
    net = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Conv2d(1, 2, 1))
    with pytest.raises(NothingToPruneError):
        suggest_widths(net, X)


def test_rounding_is_that_of_the_budget() -> None:
    net = planted(2, 8, 16)
    assert channels(suggest_widths(net, X, round_to=4)) == [4, 8, 16, 4]
    assert channels(suggest_widths(net, X, budget=SpectralWidths(min_channels=6))) == [6, 8, 16, 4]
    proposal = suggest_widths(net, X, budget=cp.budget.Params(0.5), round_to=4)
    assert all(width % 4 == 0 for width in channels(proposal))
    assert proposal.suggested_params <= proposal.params / 2


def test_several_steps_end_at_the_same_widths() -> None:
    net = planted(2, 8, 16)
    small = cp.prune(net, X, budget=SpectralWidths(), steps=3)
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)] == [2, 8, 16, 4]
    half = SpectralWidths().at_step(1, 2)
    small = cp.prune(net, X, budget=half)
    assert [m.out_channels for m in small.modules() if isinstance(m, nn.Conv2d)] == [6, 12, 16, 4]


def test_heads_of_attention_stay_and_are_named() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    net = nn.Sequential(nn.Linear(3, 16), layer, nn.Linear(16, 2)).eval()
    x = torch.randn(1, 5, 3)
    proposal = suggest_widths(net, x)
    assert "heads and dims of attention), taken to be in full use: 1.self_attn.in_proj_weight" in str(
        proposal
    )
    small = cp.apply(net, proposal.plan)
    assert cp.profile(small, x).macs == proposal.suggested_macs
    halved = cp.prune(net, x, budget=cp.budget.Macs(0.5, order=SpectralRanks()))
    assert cp.profile(halved, x).macs <= proposal.macs / 2


def test_batches_are_run_once() -> None:
    runs = []

    class Counted:
        def __iter__(self):  # type: ignore[no-untyped-def]
            runs.append(1)
            return iter([torch.randn(2, 3, 12, 12)])

    ranks = SpectralRanks(spectra=ActivationSpectra(Counted()))
    suggest_widths(planted(2, 8), X, ranks=ranks, budget=cp.budget.Macs(0.5))
    assert len(runs) == 1


def test_a_graph_is_taken_as_well() -> None:
    net = planted(2, 8)
    graph = cp.capture(net, X)
    assert suggest_widths(graph).widths == suggest_widths(net, X).widths
    with pytest.raises(InputError, match="takes no inputs"):
        suggest_widths(graph, X)


def test_a_budget_that_cannot_be_met_says_how_far_one_gets() -> None:
    with pytest.raises(UnreachableBudgetError, match="is the least that can be left"):
        suggest_widths(planted(2, 8), X, budget=cp.budget.Macs(1e-4))


@pytest.mark.parametrize(
    "budget", [cp.budget.Uniform(0.5), cp.budget.Macs(0.5, order=cp.budget.by_ratio), "half"]
)
def test_budgets_with_widths_of_their_own_are_refused(budget: object) -> None:
    with pytest.raises(BudgetError, match="does not leave the widths open"):
        suggest_widths(planted(2, 8), X, budget=budget)  # type: ignore[arg-type]


def test_what_is_said_twice_is_refused() -> None:
    net = planted(2, 8)
    with pytest.raises(BudgetError, match="ranks of its own"):
        suggest_widths(net, X, budget=SpectralWidths(), ranks=SpectralRanks())
    with pytest.raises(BudgetError, match="round_to of its own"):
        suggest_widths(net, X, budget=SpectralWidths(round_to=2), round_to=4)


def test_options_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match="a function of a spectrum"):
        SpectralRanks(StableRank)  # type: ignore[arg-type] # the class, not an object of it
    with pytest.raises(InputError, match="FilterSpectra"):
        SpectralRanks(spectra=FilterSpectra)  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match="SpectralRanks"):
        SpectralWidths(ParticipationRatio())  # type: ignore[arg-type]
    with pytest.raises(BudgetError, match="above 0"):
        SpectralWidths(way=0)


@pytest.mark.parametrize("rank", [float("nan"), -1.0])
def test_a_measure_that_gives_no_rank_is_refused(rank: float) -> None:
    with pytest.raises(InputError, match="a rank is a finite number"):
        suggest_widths(planted(2, 8), X, ranks=SpectralRanks(lambda spectrum: rank))


def test_a_layer_with_a_computed_weight_has_its_own_name() -> None:
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3))
    proposal = suggest_widths(nn.Sequential(normed, nn.ReLU(), nn.Conv2d(8, 2, 1)), X)
    first, last = proposal.layers
    assert (first.layer, last.layer) == ("0", "2")
    assert first.macs + last.macs == proposal.macs


def test_nan_weights_are_named() -> None:
    net = planted(2, 8)
    net.get_parameter("2.weight").data[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"2\.weight"):
        suggest_widths(net, X)
