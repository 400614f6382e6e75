"""The guard on a runtime whose times are arithmetic, and the promise."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import InputError, LatencyWarning
from compressor.profiling import guard, keeps_promise, latency_table
from compressor.profiling.latency_table import fastest_multiple
from compressor.runtimes import Eager
from tests.profiling.latency_table.synthetic import Synthetic

BLOCKS = Synthetic(block=16, odd=3.0)
X = torch.zeros(1, 3, 16, 16)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 8, 1),
    ).eval()


def cut(model: nn.Module, budget: cp.budget.Budget) -> nn.Module:
    return cp.prune(model, X, budget=budget, check=False)


def test_a_model_that_is_slower_is_warned_of_with_the_multiple_that_helps(model: nn.Sequential) -> None:
    small = cut(model, cp.budget.Uniform(0.05, min_channels=61))
    with pytest.warns(LatencyWarning, match=r"widths that this runtime is slow at; prune with round_to=16"):
        gain = guard(model, small, X, runtime=BLOCKS, rounds=5)
    assert gain.speedup < 1 < gain.macs_ratio
    assert (gain.round_to, gain.unaligned, gain.layers) == (16, 3, 3)
    better = guard(
        model, cut(model, cp.budget.Uniform(0.3, round_to=gain.round_to)), X, runtime=BLOCKS, rounds=5
    )
    assert better.speedup > 1


def test_a_model_that_is_as_fast_as_its_macs_say_is_not_warned_of(model: nn.Sequential) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", LatencyWarning)
        gain = guard(model, cut(model, cp.budget.Macs(0.4, round_to=16)), X, runtime=BLOCKS, rounds=5)
    assert gain.is_good
    assert gain.round_to is None
    assert str(gain).startswith(f"{gain.macs_ratio:.2f}x fewer MACs, {gain.speedup:.2f}x the speed")


def test_where_no_rounding_would_help_none_is_proposed(model: nn.Sequential) -> None:
    slow = Synthetic(block=16, ms_per_layer=10.0)
    with pytest.warns(LatencyWarning, match="no rounding of widths would help"):
        gain = guard(model, cut(model, cp.budget.Macs(0.1, round_to=16)), X, runtime=slow, rounds=5)
    assert gain.round_to is None


def test_a_table_proposes_without_measuring_layers(
    model: nn.Sequential, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = latency_table(cp.capture(model, X), runtime=BLOCKS, path=f"{tmp_path}/t.json")
    monkeypatch.setattr(sys.modules["compressor.profiling.guard"], "fastest_multiple", None)
    with pytest.warns(LatencyWarning, match="round_to=16"):
        guard(model, cut(model, cp.budget.Uniform(0.05, min_channels=61)), X, table=table, rounds=5)


def test_what_was_measured_already_is_not_measured_again(model: nn.Sequential) -> None:
    small = cut(model, cp.budget.Macs(0.4, round_to=16))
    before = cp.profiling.latency(small, model, X, runtime=BLOCKS, rounds=5)  # as if it had got slower
    with pytest.warns(LatencyWarning):
        gain = guard(model, small, X, runtime=BLOCKS, measured=before)
    assert gain.measured is before
    assert gain.speedup < 1 < gain.macs_ratio


@pytest.mark.parametrize(("runtime", "multiple"), [(BLOCKS, 16), (Synthetic(block=8, odd=2.0), 8)])
def test_the_multiple_is_that_of_the_runtime(model: nn.Sequential, runtime: Synthetic, multiple: int) -> None:
    assert fastest_multiple(cp.capture(model, X), runtime) == multiple


def test_a_promise_tells_both_numbers(model: nn.Sequential) -> None:
    small = cut(model, cp.budget.Macs(0.5, round_to=16))
    ratio = BLOCKS.ms(small, [X], {}) / BLOCKS.ms(model, [X], {})
    kept = keeps_promise(model, small, X, fraction=ratio / 1.09, runtime=BLOCKS, rounds=5)
    broken = keeps_promise(model, small, X, fraction=ratio / 1.11, runtime=BLOCKS, rounds=5)
    assert kept.is_kept and not broken.is_kept
    assert kept.measured_fraction == pytest.approx(ratio)
    assert f"{ratio:.3g} is" in str(broken) and "NOT kept" in str(broken)


def test_a_promise_of_nothing_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(InputError, match="fraction=0"):
        keeps_promise(model, model, X, fraction=0, runtime=Eager())
