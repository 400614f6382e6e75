"""What a report is made from: widths and groups counted by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.verify import TOLERANCE, removed_units, verify
from compressor.profiling import profile
from compressor.reporting.case import Case, GroupCut, Width

from .conftest import Cut


def case_of(model: nn.Module, removed: list[int], *args: Tensor) -> Case:
    graph = cp.capture(model, *args)
    plan = graph.plan(np.isin(np.arange(graph.n_units), removed))
    small = cp.apply(model, plan)
    proof = verify(model, small, plan, *args, graph=graph)
    before, after = profile(model, *args), profile(small, *args)
    return Case(graph, plan, removed_units(graph, plan), proof, TOLERANCE, 0, before, after)


def test_widths_are_those_of_layers_with_a_matrix_or_kernels(cut: Cut) -> None:
    found = case_of(cut.model, [1, 4, 5], cut.x).widths
    assert found == (Width("conv1", "Conv2d", 8, 5, 8), Width("conv2", "Conv2d", 4, 4, 0))


def test_a_group_says_which_of_its_channels_went(cut: Cut) -> None:
    (group,) = case_of(cut.model, [1, 4, 5], cut.x).groups
    # conv1.weight, four vectors of the norm, conv2's input side
    assert group == GroupCut("conv1.weight", 8, ((1, 4, 5),), 6, False)
    assert group.lost == 3


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.place = nn.Parameter(torch.rand(1, 5, 6))
        self.out = nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.embed(tokens) + self.place))


def test_rows_of_an_embedding_and_places_are_no_widths() -> None:
    case = case_of(Words().eval(), [0, 3], torch.zeros(2, 5, dtype=torch.long))
    kept = {width.layer: (width.size, width.kept) for width in case.widths}
    assert kept == {"embed": (6, 4), "place": (6, 4), "out": (3, 3)}


def test_what_is_pinned_is_named_with_its_reason_and_not_for_each_vector(cut: Cut) -> None:
    pinned = case_of(cut.model, [], cut.x).pinned
    assert pinned == {"it is an output of the model": ["conv2 (4 of 4)"]}


def test_cells_of_a_group_are_counted_together_and_lose_as_many() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 2, 1))
    # The first two channels of each of the two groups of the second convolution's input.
    graph = cp.capture(net, torch.rand(1, 3, 5, 5))
    first = next(group for group in graph.groups if group.name == "0.weight")
    removed = [int(unit) for cell in first.cells for unit in cell[:2]]
    found = {group.name: group for group in case_of(net, removed, torch.rand(1, 3, 5, 5)).groups}
    assert found["0.weight"].units == 8 and found["0.weight"].removed == ((0, 1), (0, 1))
    assert (found["0.weight"].ranks, found["0.weight"].lost) == (2, 4)


def test_groups_of_one_name_are_told_apart() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True).eval()
    names = [group.name for group in case_of(layer, [], torch.rand(1, 3, 8)).groups]
    assert len(set(names)) == len(names) > 2
    assert "self_attn.in_proj_weight#2" in names
