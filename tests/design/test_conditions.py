"""Which filters a condition flags, by loops over pairs and weights planted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.design import Copies, Dead, Judged, degenerate
from compressor.design.conditions import flagged
from compressor.errors import InputError
from compressor.filters import FilterBank
from compressor.filters.quality import Verdict


def bank(weight: Tensor, groups: int = 1) -> FilterBank:
    return FilterBank(weight, "conv", groups=groups)


def test_a_dead_filter_has_only_small_kernels() -> None:
    weight = torch.ones(4, 3, 3, 3)
    weight[0] = 0.009
    weight[1, :2] = 0  # one kernel lives
    weight[2] = 0
    assert Dead()(bank(weight)).tolist() == [True, False, True, False]
    assert Dead(1e-3)(bank(weight)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("groups", [1, 3])
def test_copies_are_those_of_a_naive_loop(groups: int) -> None:
    weight = torch.randn(18, 2, 3, 3)
    for target, source, factor in ((4, 1, 2.0), (5, 1, 1.0), (9, 2, -1.0), (16, 13, 0.1), (17, 4, 1.0)):
        weight[target] = factor * weight[source] + 0.01 * torch.randn(2, 3, 3)
    rows = functional.normalize(weight.flatten(1), dim=1)
    expected: list[bool] = []
    for j in range(18):
        earlier = (i for i in range(j) if not expected[i] and i // (18 // groups) == j // (18 // groups))
        expected.append(any(float(rows[i] @ rows[j]) >= 0.95 for i in earlier))
    assert Copies()(bank(weight, groups)).tolist() == expected
    assert sum(expected) == (4 if groups == 1 else 3)


def test_one_of_each_kind_stays() -> None:
    assert Copies()(bank(torch.ones(5, 2, 3))).tolist() == [False, True, True, True, True]


def test_a_copy_of_a_dead_filter_is_the_one_that_stays() -> None:
    weight = torch.randn(4, 2, 3, 3)
    weight[0] = 1e-4 * weight[2]
    assert Copies()(bank(weight)).tolist() == [False, False, True, False]
    assert degenerate(bank(weight)).tolist() == [True, False, False, False]


def test_a_layer_is_judged_as_a_whole() -> None:
    drawn = torch.randn(16, 16, 3, 3)
    learnt = torch.ones(16, 16, 3, 3) * torch.randn(16, 16, 1, 1)
    assert Judged()(bank(drawn)).all() and not Judged()(bank(learnt)).any()
    assert Judged((Verdict.LOW_DIVERSITY,))(bank(learnt)).all()


def test_a_norm_behind_kills_where_the_example_shows_it() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3)).eval()
    with torch.no_grad():
        net[1].weight[2] = 1e-5
    assert flagged(net, Dead(), (), {}) == {}
    found = flagged(net, Dead(), (torch.rand(1, 3, 8, 8),), {})
    assert {path: flags.tolist() for path, flags in found.items()} == {"0": [False, False, True, False]}


def test_the_model_itself_can_be_a_layer() -> None:
    conv = nn.Conv2d(3, 4, 3)
    with torch.no_grad():
        conv.weight[1] = 0
    assert flagged(conv, degenerate, (), {})[""].tolist() == [False, True, False, False]


def test_any_function_is_a_condition() -> None:
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ConvTranspose1d(4, 6, 2), nn.Linear(5, 5))
    found = flagged(net, lambda bank: bank.weight.flatten(1).norm(dim=1) >= 0, (), {})
    assert {path: len(flags) for path, flags in found.items()} == {"0": 4, "1": 6}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (lambda bank: torch.ones(len(bank.weight)), r"bool tensor \[4\], it returned torch.float32 \[4\]"),
        (lambda bank: torch.tensor(True), r"it returned torch.bool \[\]"),
        (lambda bank: [True] * 4, "it returned list"),
        (Dead, r"a condition such as Dead\(\), got the class Dead"),
    ],
)
def test_conditions_are_checked(where: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        flagged(nn.Conv2d(3, 4, 3), where, (), {})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="positional or by name"):
        flagged(nn.Conv2d(3, 4, 3), Dead(), (torch.ones(1, 3, 4, 4),), {"x": 1})
