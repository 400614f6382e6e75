"""Thresholds of scores: the authors' numbers, and plans that keep what is above them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.budget import OptimalThreshold, Threshold, optimal_threshold
from compressor.errors import BudgetError, NothingToPruneWarning
from compressor.scoring import BatchNormScale, Scores
from tests.training.sparsity.resnet14 import ResNet14


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "masksparsity_thresholds.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_optimal_thresholds_are_the_authors(golden: dict[str, np.ndarray]) -> None:
    for layer in golden["norm_layers"].tolist():
        scales = golden[f"{layer}/abs_gamma"]
        for delta in ("1e-4", "1e-2"):
            expected = float(golden[f"{layer}/OT_{delta}"])
            assert optimal_threshold(scales, float(delta)) == pytest.approx(expected, abs=1e-12), layer
    assert optimal_threshold(golden["all_small/abs_gamma"]) == float(golden["all_small/OT"]) == 1.0


def _sparse_net(golden: dict[str, np.ndarray]) -> tuple[ResNet14, cp.Graph]:
    net = ResNet14()
    with torch.no_grad():
        for layer in golden["norm_layers"].tolist():
            net.get_submodule(layer).weight.copy_(torch.from_numpy(golden[f"{layer}/abs_gamma"]))
    return net, cp.capture(net, torch.rand(1, 3, 16, 16))


@pytest.mark.parametrize(
    ("budget", "key"), [(Threshold(1e-2), "th_1e-2"), (OptimalThreshold(1e-2), "OT_1e-2")]
)
def test_inner_channels_are_kept_as_the_authors_keep_them(
    budget: cp.budget.Budget, key: str, golden: dict[str, np.ndarray]
) -> None:
    """Layers of their own, outside of the residual streams: where there is nothing to vote about."""
    _, graph = _sparse_net(golden)
    plan = cp.plan(cp.score(graph, BatchNormScale()), budget)
    kept = {cut.tensor: set(cut.keep) for cut in plan.cuts}
    for layer in [name for name in golden["norm_layers"].tolist() if name.endswith("a_bn")]:
        scales = golden[f"{layer}/abs_gamma"]
        expected = set(np.flatnonzero(scales > float(golden[f"{layer}/{key}"])).tolist())
        assert kept.get(f"{layer}.weight", set(range(len(scales)))) == expected, layer


def test_a_stream_is_scored_by_all_its_norms_together(golden: dict[str, np.ndarray]) -> None:
    _, graph = _sparse_net(golden)
    plan = cp.plan(cp.score(graph, BatchNormScale()), Threshold(0.2))
    stream = [f"{name}/abs_gamma" for name in ("stem.bn", "s1.b1.f.b_bn", "s1.b2.f.b_bn")]
    expected = np.flatnonzero(np.mean([golden[name] for name in stream], axis=0) > 0.2).tolist()
    (cut,) = (cut for cut in plan.cuts if cut.tensor == "stem.bn.weight")
    assert list(cut.keep) == expected


def _scores(values: list[float]) -> Scores:
    net = nn.Sequential(nn.Linear(3, len(values)), nn.ReLU(), nn.Linear(len(values), 2))
    return Scores(cp.capture(net, torch.zeros(1, 3)), np.array(values), "by hand")


def _kept(scores: Scores, budget: cp.budget.Budget) -> list[int]:
    return np.flatnonzero(~budget.choose(scores)).tolist()


def test_the_threshold_itself_goes() -> None:
    assert _kept(_scores([0.5, 0.1, 0.2, 0.3]), Threshold(0.2)) == [0, 3]


def test_the_largest_stays_where_all_would_go() -> None:
    assert _kept(_scores([0.1, 0.3, 0.2]), Threshold(1.0)) == [1]
    assert _kept(_scores([1e-5, 3e-5, 2e-5]), OptimalThreshold()) == [1]


def test_limits_hold_whatever_the_threshold() -> None:
    assert len(_kept(_scores([0.1] * 8), Threshold(1.0, max_ratio=0.5))) == 4
    assert len(_kept(_scores([0.1] * 6 + [2.0] * 2), Threshold(1.0, round_to=4))) == 4


def test_a_threshold_under_all_scores_is_said_to_remove_nothing() -> None:
    with pytest.warns(NothingToPruneWarning, match="removed nothing"):
        assert _kept(_scores([0.5, 0.6]), Threshold(0.1)) == [0, 1]


def test_senseless_thresholds_are_refused() -> None:
    with pytest.raises(BudgetError, match="number to compare"):
        Threshold(float("nan"))
    with pytest.raises(BudgetError, match="OptimalThreshold"):
        OptimalThreshold(1.5)
