"""One network of the coverage benchmark: the verdicts, and what each check sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks import checking
from benchmarks.checking import Row, check
from benchmarks.zoo import BATCH, Entry, Inputs


class Net(nn.Module):
    """Two layers, a norm, and what a test puts behind them."""

    def __init__(self, after: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(5, 12), nn.Identity(), nn.Linear(12, 3)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.last(torch.sigmoid(self.norm(self.first(x)))))


def entry(make: Callable[[], nn.Module]) -> Entry:
    def build(seed: int) -> tuple[nn.Module, Inputs]:
        torch.manual_seed(seed)
        return make().eval(), Inputs((torch.randn(BATCH, 5),))

    return Entry("tests", "family", "net", build)


def checked(make: Callable[[], nn.Module]) -> Row:
    saved: list[str] = []
    row = check(entry(make), lambda row: saved.append(json.dumps(row)))
    assert json.loads(saved[-1]) == json.loads(json.dumps(row))
    return row


def with_norm() -> nn.Module:
    net = Net()
    net.norm = nn.LayerNorm(12)
    return net


def test_a_network_that_is_cut_exactly() -> None:
    row = checked(Net)
    assert row["status"] == "exact"
    assert row["failures"] == []
    assert [plan["cuts"] for plan in row["plans"].values()] == [3, 3]
    assert all(plan["reference"] < 1e-13 and plan["batch"] < 1e-13 for plan in row["plans"].values())
    assert row["planted_error"] > 1e-6
    assert row["pinned"] == {
        "free": 24,
        "fixed": 8,
        "pinned": 0,
        "share": 0.0,
        "reasons": {
            "reads values whose channels are fixed, such as an input or a constant (addmm)": 5,
            "it is an output of the model": 3,
        },
    }


def test_norms_over_kept_channels_are_told_apart() -> None:
    assert checked(with_norm)["status"] == "exact, kept statistics"


def test_a_network_of_one_layer_is_refused_with_the_reason() -> None:
    row = checked(lambda: nn.Linear(5, 3))
    assert row["status"] == "refused"
    assert row["refused"].startswith("plan random 30 %: NothingToPruneError")


def test_a_wrong_library_is_seen_by_both_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    def disturbed(model: nn.Module, plan: cp.Plan) -> nn.Module:
        small = apply(model, plan)
        with torch.no_grad():
            small.get_parameter("last.weight").copy_(small.get_parameter("last.weight").flip(1))
        return small

    apply = cp.apply
    monkeypatch.setattr(checking.cp, "apply", disturbed)
    row = checked(Net)
    assert row["status"] == "wrong"
    assert any("reference" in failure for failure in row["failures"])


def test_a_forward_that_mixes_examples_is_not_judged_by_batches() -> None:
    row = checked(lambda: Net(lambda x: x - x.mean(0, keepdim=True)))
    assert row["plans"]["norm 50 %"]["batch"].startswith("not of the original either")
    assert row["status"] == "exact"


def test_a_network_that_cannot_be_built_was_not_run() -> None:
    def broken() -> nn.Module:
        raise OSError("no weights here")

    row = checked(broken)
    assert row["status"] == "not run"
    assert row["failures"] == ["build: OSError: no weights here"]


def test_a_crash_of_the_library_fails_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*args: Any, **kwargs: Any) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(checking.cp, "capture", crash)
    row = checked(Net)
    assert row["status"] == "fails"
    assert row["failures"] == ["capture: IndexError: tuple index out of range"]
