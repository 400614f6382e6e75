"""Sensitivities and searches on the command line: as in the library, with files between the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.search import Frontier, LeastDrop, Sensitivity, find, sensitivity
from tests.cli.conftest import IMAGE, Outcome

NET = "tiny_net:Tiny"
EVALUATE = ("--evaluate", "tiny_net:by_width")
MORE = """

def by_width(net):
    lost = [1 - len(net.conv1.weight) / 8, 1 - len(net.conv2.weight) / 6]
    return 1 - 3 * lost[0] ** 2 - lost[1] ** 2


def too_narrow(net):
    return 5.0 - len(net.conv2.weight)


def nan(net):
    return float("nan")
"""
Run = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _evaluations(here: Path) -> Iterator[None]:
    with (here / "tiny_net.py").open("a", encoding="utf-8") as file:
        file.write(MORE)
    yield


@pytest.fixture
def x() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, 8, 8, generator=generator)


def test_sensitivity_measures_what_the_library_does(
    run: Run, here: Path, module: ModuleType, tiny: nn.Module, x: torch.Tensor
) -> None:
    options = (
        *EVALUATE,
        "--ratios",
        "0.25",
        "0.5",
        "--cache",
        "c.jsonl",
        "-o",
        "s.json",
        "--max-drop",
        "0.3",
    )
    outcome = run("sensitivity", NET, *IMAGE, *options)
    assert outcome.code == 0, outcome.err
    name = "tiny_net:by_width"
    expected = sensitivity(tiny, x, evaluate=module.by_width, name=name, ratios=(0.25, 0.5))
    assert Sensitivity.load(here / "s.json") == expected
    assert outcome.out.startswith(str(expected))
    assert "conv1.weight  0.25\nconv2.weight  0.5" in outcome.out
    data = run("sensitivity", NET, *IMAGE, *options[:-4], "--json").data
    assert data["curves"] == json.loads(json.dumps(expected.to_dict()))["curves"]
    assert len((here / "c.jsonl").read_text().splitlines()) == 1 + 5


def test_fidelity_needs_batches_alone(run: Run, here: Path) -> None:
    options = ("--fidelity", "tiny_net:batches", "--ratios", "0.5", "--groups", "conv1")
    data = run("sensitivity", NET, *IMAGE, *options, "--json").data
    assert data["quality"] == 1.0
    assert [curve["group"] for curve in data["curves"]] == ["conv1.weight"]


def test_plan_takes_the_file_and_several_budgets(
    run: Run, here: Path, tiny: nn.Module, x: torch.Tensor
) -> None:
    assert run("sensitivity", NET, *IMAGE, *EVALUATE, "-o", "s.json").code == 0
    outcome = run("plan", NET, *IMAGE, "--macs", "0.6", "--params", "0.7", "--sensitivity", "s.json")
    assert outcome.code == 0, outcome.err
    budget = LeastDrop(Sensitivity.load(here / "s.json"), [cp.budget.Macs(0.6), cp.budget.Params(0.7)])
    scores = cp.score(cp.capture(tiny, x), cp.scoring.DEFAULT)
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, budget)


def test_search_finds_what_the_library_does(
    run: Run, here: Path, module: ModuleType, tiny: nn.Module, x: torch.Tensor
) -> None:
    pytest.importorskip("optuna")
    options = (*EVALUATE, "--macs", "0.6", "--trials", "12", "--frontier", "f.json", "--storage", "study.log")
    outcome = run("search", NET, *IMAGE, *options)
    assert outcome.code == 0, outcome.err
    expected = find(
        tiny, x, evaluate=module.by_width, name="tiny_net:by_width", budget=cp.budget.Macs(0.6), trials=12
    )
    assert cp.Plan.load(here / "net.plan.json") == expected.plan
    assert Frontier.load(here / "f.json") == expected.frontier
    assert str(expected) in outcome.out
    data = run("search", NET, *IMAGE, *options, "--overwrite", "--json").data
    assert (data["quality"], data["trials"]) == (expected.quality, 12)
    required = ("--require", "width=tiny_net:too_narrow", "-o", "b.json")
    held = run("search", NET, *IMAGE, *EVALUATE, "--macs", "0.6", "--trials", "12", *required)
    assert held.code == 0, held.err
    small = cp.apply(tiny, cp.Plan.load(here / "b.json"))
    assert len(small.conv2.weight) >= 5


FAULTS = {
    "nothing to ask": (("sensitivity", NET, *IMAGE), 2, "--evaluate package.module:function, or --fidelity"),
    "two things to ask": (
        ("sensitivity", NET, *IMAGE, *EVALUATE, "--fidelity", "tiny_net:batches"),
        2,
        "one of the two",
    ),
    "no such function": (
        ("sensitivity", NET, *IMAGE, "-e", "tiny_net:by_widht"),
        2,
        "did you mean 'by_width'",
    ),
    "no function": (
        ("sensitivity", NET, *IMAGE, "-e", "tiny_net:number"),
        2,
        "expected a function of a model",
    ),
    "a class": (("sensitivity", NET, *IMAGE, "-e", "tiny_net:Tiny"), 2, "expected a function of a model"),
    "no number": (("sensitivity", NET, *IMAGE, "-e", "tiny_net:nan"), 1, "evaluate returned nan"),
    "a ratio of 1": (("sensitivity", NET, *IMAGE, *EVALUATE, "--ratios", "1"), 1, "removes every channel"),
    "no such groups": (
        ("sensitivity", NET, *IMAGE, *EVALUATE, "--groups", "cnv1"),
        1,
        "did you mean 'conv1'",
    ),
    "no such folder": (("sensitivity", NET, *IMAGE, *EVALUATE, "-o", "no/s.json"), 1, "a folder that exists"),
    "a negative drop": (("sensitivity", NET, *IMAGE, *EVALUATE, "--max-drop", "-1"), 1, "max_drop = -1"),
    "no budget": (("search", NET, *IMAGE, *EVALUATE), 2, "give one budget, or several"),
    "a ratio to search within": (
        ("search", NET, *IMAGE, *EVALUATE, "--uniform", "0.5"),
        1,
        "find searches within fractions of costs",
    ),
    "steps": (
        ("search", NET, *IMAGE, *EVALUATE, "--macs", "0.5", "--steps", "2"),
        2,
        "a search has no steps",
    ),
    "a requirement without a name": (
        ("search", NET, *IMAGE, *EVALUATE, "--macs", "0.5", "--require", "tiny_net:too_narrow"),
        2,
        "NAME=MODULE:FUNCTION",
    ),
    "a sensitivity that is none": (
        ("plan", NET, *IMAGE, "--macs", "0.5", "--sensitivity", "tiny_net.py"),
        1,
        "'tiny_net.py' is not complete JSON",
    ),
    "a sensitivity for a ratio": (
        ("plan", NET, *IMAGE, "--uniform", "0.5", "--sensitivity", "s.json"),
        2,
        "how to meet fractions of costs",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_is_one_readable_message(run: Run, case: str) -> None:
    args, code, words = FAULTS[case]
    outcome = run(*args)
    assert words in outcome.words
    assert (outcome.code, outcome.out) == (code, "")
    assert "Traceback" not in outcome.err
