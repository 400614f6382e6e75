"""What `report` takes, what it proves, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import CaptureError, InputError, PlanMismatchError, VerifyError
from compressor.profiling import Latency
from compressor.search import Frontier, Point

from .conftest import TIMES, Cut, Net


def test_only_what_is_given_or_known_is_in_it(cut: Cut) -> None:
    report = cp.report(cut.model, cut.small, cut.x)
    assert [section.key for section in report.sections] == [
        "summary",
        "costs",
        "channels",
        "certificate",
        "plan",
    ]
    assert report.title == "Net, pruned"
    assert cp.report(cut.model, cut.small, cut.x, title="<b>").title == "<b>"


def test_both_models_are_left_as_they_were(cut: Cut) -> None:
    before = [
        {name: tensor.clone() for name, tensor in net.state_dict().items()} for net in (cut.model, cut.small)
    ]
    cut.small.train()
    cp.report(cut.model, cut.small, cut.x)
    assert cut.small.training
    cut.small.eval()
    for net, state in zip((cut.model, cut.small), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_a_model_that_was_trained_since_has_a_report(cut: Cut) -> None:
    small = cp.apply(cut.model, cut.plan)
    with torch.no_grad():
        for tensor in small.parameters():
            tensor.mul_(3)
    assert cp.report(cut.model, small, cut.x)["certificate"].data["error"] < 1e-12


def test_the_plan_of_an_unknown_model_has_to_be_given(cut: Cut) -> None:
    small = Net()
    small.load_state_dict(cut.model.state_dict())
    cp.apply_(small, cut.plan)
    copied = nn.Sequential(small)[0].__class__.__new__(Net)
    copied.__dict__ = dict(small.__dict__)
    with pytest.raises(InputError, match=r"not known which plan made the small Net.*plan=Plan\.load"):
        cp.report(cut.model, copied, cut.x)
    assert cp.report(cut.model, copied, cut.x, plan=cut.plan)["plan"].data["groups"][0]["removed"] == [
        [1, 4, 5]
    ]


def test_a_model_that_is_not_what_its_plan_makes_has_no_report(cut: Cut) -> None:
    other = cp.apply(cut.model, cut.graph.plan([unit == 0 for unit in range(8)]))
    with pytest.raises(VerifyError, match="not what the plan makes of the original"):
        cp.report(cut.model, other, cut.x, plan=cut.plan)


def test_a_model_that_computes_otherwise_has_no_report(cut: Cut) -> None:
    small = cp.apply(cut.model, cut.plan)
    small.conv1.stride = (2, 2)
    with pytest.raises(VerifyError):
        cp.report(cut.model, small, cut.x, plan=cut.plan)


def test_the_plan_of_another_model_is_refused(cut: Cut) -> None:
    with pytest.raises(PlanMismatchError, match="made for another"):
        cp.report(nn.Linear(3, 2), cut.small, torch.rand(1, 3))


def test_inputs_that_do_not_fit_are_named(cut: Cut) -> None:
    with pytest.raises(CaptureError, match=r"\[1, 4, 6, 6\]"):
        cp.report(cut.model, cut.small, torch.rand(1, 4, 6, 6))


def test_keyword_inputs_are_taken(cut: Cut) -> None:
    assert cp.report(cut.model, cut.small, x=cut.x)["costs"].data["inputs"] == ["[2, 3, 6, 6] float32"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"plan": "net.plan.json"}, r"`plan` must be a Plan, got str; Plan\.load reads a file"),
        ({"quality": 0.9}, "`quality` takes finite numbers.*got 0.9"),
        ({"quality": {"accuracy": 0.9}}, "`quality` takes finite numbers"),
        ({"quality": {"accuracy": (0.9, math.nan)}}, "of the original and of the small model"),
        ({"latency": 3.0}, "`latency` takes what profiling.latency"),
        (
            {"latency": Latency(TIMES.timings[:1], 5, "a clock")},
            "timings of the original and the small model",
        ),
        ({"filters": True}, "`filters` takes two filter reports.*got bool"),
        ({"filters": ("a", "b")}, "`filters` takes two filter reports"),
        ({"scores": [1.0]}, "those of another list"),
        ({"sensitivity": 0.3}, "`sensitivity` takes what search.sensitivity"),
        ({"frontier": [(1, 2)]}, r"`frontier` takes a search\.Frontier"),
    ],
)
def test_what_is_of_the_wrong_kind_is_said(cut: Cut, wrong: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        cp.report(cut.model, cut.small, cut.x, **wrong)


@pytest.mark.parametrize("place", [0, 1])
def test_models_that_are_none_are_said(cut: Cut, place: int) -> None:
    models = [cut.model, cut.small]
    models[place] = cut.graph  # type: ignore[call-overload]
    with pytest.raises(
        InputError, match=f"`{['model', 'small'][place]}` must be a torch.nn.Module, got Graph"
    ):
        cp.report(*models, cut.x)


def test_scores_of_another_model_are_refused(cut: Cut) -> None:
    other = cp.score(cp.capture(Net().eval(), cut.x), cp.scoring.Norm())
    with pytest.raises(InputError, match="those of another Net"):
        cp.report(cut.model, cut.small, cut.x, scores=other)


@pytest.mark.parametrize(
    ("quality", "macs"), [(math.nan, 1.0), (math.inf, 1.0), (0.5, math.nan)], ids=["nan", "inf", "cost"]
)
def test_points_that_are_not_finite_are_named(cut: Cut, quality: float, macs: float) -> None:
    points = (Point("good", 0.9, {"macs": 2}), Point("broken", quality, {"macs": macs}))
    with pytest.raises(InputError, match=r"point 'broken' of the frontier.*not finite"):
        cp.report(cut.model, cut.small, cut.x, frontier=Frontier(points, "accuracy"))


def test_a_sensitivity_of_another_model_or_without_numbers_is_refused(cut: Cut) -> None:
    curve = cut.sensitivity.curves[0]
    other = replace(cut.sensitivity, curves=(replace(curve, size=9),))
    with pytest.raises(InputError, match=r"9 ranks in conv1.weight"):
        cp.report(cut.model, cut.small, cut.x, sensitivity=other)
    broken = replace(cut.sensitivity, curves=(replace(curve, quality=(0.9, math.nan, 0.5)),))
    with pytest.raises(InputError, match=r"sensitivity of conv1.weight has a quality that is not finite"):
        cp.report(cut.model, cut.small, cut.x, sensitivity=broken)


@pytest.mark.parametrize(
    "model", [nn.Linear(8, 4), nn.Sequential(nn.Conv2d(2, 6, 1), nn.ReLU(), nn.Conv2d(6, 2, 1))]
)
def test_a_model_of_which_nothing_was_removed_has_a_report(model: nn.Module) -> None:
    x = torch.rand(1, 8) if isinstance(model, nn.Linear) else torch.rand(1, 2, 4, 4)
    graph = cp.capture(model, x)
    small = cp.apply(model, graph.plan([False] * graph.n_units))
    text = cp.report(model, small, x, scores=cp.score(graph, cp.scoring.Norm())).to_markdown()
    assert "Nothing was removed" in text and "No channel is removed." in text
    assert text.count("| 100.0% |") == 5
