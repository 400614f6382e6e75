"""Searches: never worse than where they start, within the budget, repeatable, shared by processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.budget import All, Global, Macs, Memory, Params, Uniform, by_ratio
from compressor.errors import (
    BudgetError,
    EvaluationError,
    FileError,
    InputError,
    MissingExtraError,
    UnreachableBudgetError,
)
from compressor.search import Found, find, sensitivity
from tests.search.conftest import Counting
from tests.search.evaluations import WIDTHS, by_width, network, widths

optuna = pytest.importorskip("optuna")

ROOT = Path(__file__).resolve().parents[2]
HALF = Macs(0.5)


def work(kept: tuple[int, ...]) -> int:
    """The MACs of the network with these widths."""
    return 6 * kept[0] + kept[0] * kept[1] + kept[1] * kept[2] + 3 * kept[2]


def best_of_all(fraction: float) -> float:
    """The best quality of all widths within the fraction, by trying them all."""
    choices = product(*(range(1, width + 1) for width in WIDTHS))
    fitting = (kept for kept in choices if work(kept) <= fraction * work(WIDTHS))
    lost = ([1 - now / before for now, before in zip(kept, WIDTHS, strict=True)] for kept in fitting)
    return max(1 - 3 * a**2 - b**2 - 0.5 * c**2 for a, b, c in lost)


def shares(found: Found) -> list[tuple[str, float]]:
    return [(p.name, p.quality) for p in found.frontier.points]


def test_the_best_is_within_the_budget_proved_and_better_than_the_heuristics(net, x) -> None:
    found = find(net, x, evaluate=by_width, budget=HALF, trials=60)
    assert work(tuple(widths(found.model))) <= 0.5 * work(WIDTHS)
    assert found.quality == by_width(found.model) == max(p.quality for p in found.frontier.points[1:])
    assert found.proof.error < 1e-9
    by_hand = [by_width(cp.prune(net, x, budget=budget)) for budget in (HALF, Macs(0.5, order=by_ratio))]
    assert found.start == max(by_hand)
    assert found.quality > found.start
    assert found.quality > best_of_all(0.5) - 0.05
    assert torch.equal(cp.apply(net, found.plan)(torch.ones(2, 6)), found.model(torch.ones(2, 6)))
    assert all(p.costs["macs"] <= 0.5 * work(WIDTHS) for p in found.frontier.points[1:])
    assert str(found).startswith(f"tests.search.evaluations.by_width {found.quality:.4g} (")


def test_the_starts_are_exactly_what_the_heuristics_choose(net, x, counting: Counting) -> None:
    curves = sensitivity(net, x, evaluate=by_width, ratios=(0.25, 0.5, 0.75))
    budget = All([Macs(0.4), Memory(0.9)], round_to=2)
    more = [Uniform(0.6, round_to=2)]
    find(net, x, evaluate=counting, budget=budget, sensitivity=curves, starts=more, trials=1, name="w")
    scores = cp.score(cp.capture(net, x), cp.scoring.DEFAULT)
    heuristics = [
        budget,
        All(budget.parts, round_to=2, order=by_ratio),
        cp.search.LeastDrop(curves, budget.parts, round_to=2),
    ]
    expected = [widths(cp.apply(net, cp.plan(scores, each))) for each in heuristics]
    assert counting.asked[: len(expected)] == expected
    assert len(counting.asked) in (len(expected) + 1, len(expected) + 2)  # `more`, and the original


def test_limits_of_the_budget_hold_in_every_trial(net, x) -> None:
    budget = Macs(0.7, ignore="4", ratios={"2": 0.25}, round_to=3, min_channels=6)
    found = find(net, x, evaluate=by_width, budget=budget, trials=15)
    for p in found.frontier.points[1:]:
        assert p.plan is not None
        kept = {cut.tensor: len(cut.keep) for cut in p.plan.cuts if cut.role == "writer"}
        assert "4.weight" not in kept
        assert kept["2.weight"] == 15
        assert kept.get("0.weight", 12) in (6, 9, 12)


def test_a_seed_repeats_a_search_and_going_on_is_as_if_it_had_not_stopped(net, x, tmp_path: Path) -> None:
    at_once = find(net, x, evaluate=by_width, budget=HALF, trials=25, seed=3)
    assert shares(find(net, x, evaluate=by_width, budget=HALF, trials=25, seed=3)) == shares(at_once)
    assert shares(find(net, x, evaluate=by_width, budget=HALF, trials=25, seed=4)) != shares(at_once)
    options = {"evaluate": by_width, "budget": HALF, "seed": 3, "storage": tmp_path / "study.log"}
    find(net, x, trials=14, **options)
    assert shares(find(net, x, trials=25, **options)) == shares(at_once)


def test_no_cut_is_asked_twice(net, x, counting: Counting, tmp_path: Path) -> None:
    options = {"budget": Params(0.05), "name": "w", "storage": f"sqlite:///{tmp_path}/study.db"}
    find(net, x, evaluate=counting, trials=30, **options)
    assert counting.asked.pop() == list(WIDTHS)
    assert len({tuple(asked) for asked in counting.asked}) == len(counting.asked)
    before = len(counting.asked)
    find(net, x, evaluate=counting, trials=30, **options)
    assert counting.asked[before:] == [list(WIDTHS)]


SCRIPT = """
import sys, torch
from compressor.budget import Macs
from compressor.search import find
from tests.search.evaluations import logged, network
found = find(network(), torch.ones(1, 6), evaluate=logged, budget=Macs(0.5), trials=int(sys.argv[2]),
             storage=sys.argv[1])
print(found.trials, found.quality)
"""


def test_two_processes_share_one_storage(net, x, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CALLS": str(tmp_path / "calls")}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "study.log"), "40"]
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    outcomes = [process.communicate(timeout=120)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all(40 <= int(trials) <= 44 for trials, _ in outcomes)
    owners = [line.split()[0] for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(set(owners)) == 2
    study = optuna.load_study(
        study_name="compressor",
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
        ),
    )
    drawn = [
        tuple(trial.params.values()) for trial in study.trials if "fixed_params" not in trial.system_attrs
    ]
    assert len(set(drawn)) == len(drawn)  # what they draw is never the same


def test_what_a_killed_process_left_is_given_up_and_its_start_done_again(net, x, tmp_path: Path) -> None:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    )
    options = {"evaluate": by_width, "budget": HALF, "storage": storage}

    class Killed(BaseException):
        pass

    counting = Counting()

    def kill() -> float:
        raise Killed

    counting.at = {1: kill}
    with pytest.raises(Killed):
        find(
            net, x, **{**options, "evaluate": counting, "name": "tests.search.evaluations.by_width"}, trials=5
        )
    study = optuna.load_study(study_name="compressor", storage=storage)
    assert study.trials[0].state.name == "FAIL"
    trial = study.ask()  # a process that is no more began this one
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    trial.set_user_attr("compressor owner", [socket.gethostname(), dead.pid])
    found = find(net, x, trials=5, **options)
    assert study.trials[trial.number].state.name == "FAIL"
    assert found.start == max(
        by_width(cp.prune(net, x, budget=budget)) for budget in (HALF, Macs(0.5, order=by_ratio))
    )


def test_requirements_are_met_by_what_is_found_and_others_are_counted(net, x) -> None:
    first = {"first layer": lambda small: 9.0 - len(small[0].weight)}
    free = find(net, x, evaluate=lambda small: -float(len(small[0].weight)), budget=HALF, trials=30)
    held = find(
        net,
        x,
        evaluate=lambda small: -float(len(small[0].weight)),
        budget=HALF,
        requirements=first,
        trials=30,
    )
    assert widths(free.model)[0] < 9
    assert widths(held.model)[0] == 9
    assert held.infeasible > 0
    assert all(-p.quality >= 9 for p in held.frontier.points)


def test_requirements_that_no_cut_meets_are_said_with_the_nearest(net, x) -> None:
    with pytest.raises(UnreachableBudgetError, match=r"none of \d+ cuts meets .* nearest has width = 1"):
        find(net, x, evaluate=by_width, budget=HALF, trials=4, requirements={"width": lambda small: 1.0})


def test_costs_are_objectives_beside_the_quality(net, x) -> None:
    found = find(net, x, evaluate=by_width, budget=Macs(0.9), minimize=[cp.profiling.macs], trials=40)
    assert found.frontier.by == ("MACs",)
    assert min(p.costs["MACs"] for p in found.frontier.points) < 0.5 * work(WIDTHS)
    assert max(p.costs["MACs"] for p in found.frontier.points[1:]) <= 0.9 * work(WIDTHS)
    for p in found.frontier.points:
        small = net if p.plan is None else cp.apply(net, p.plan)
        assert p.costs["MACs"] == work(tuple(widths(small)))
    assert len(found.frontier.best) > 5


def test_an_error_and_an_interruption_leave_the_study(net, x, counting: Counting, tmp_path: Path) -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    counting.at = {4: lambda: float("nan"), 7: interrupted}
    options = {"budget": HALF, "name": "w", "storage": tmp_path / "s.log", "trials": 8}
    with pytest.raises(EvaluationError, match=r"^trial 3: evaluate returned nan"):
        find(net, x, evaluate=counting, **options)
    with pytest.raises(KeyboardInterrupt):
        find(net, x, evaluate=counting, **options)
    found = find(net, x, evaluate=counting, **options)
    assert found.trials == 8


def test_a_study_of_another_question_is_refused(net, x, tmp_path: Path) -> None:
    options = {"evaluate": by_width, "budget": HALF, "trials": 2, "storage": tmp_path / "s.log"}
    find(net, x, **options)
    for change, words in (
        ({"budget": Macs(0.4)}, r"its budget is 'Macs\(0.5\)', now it is 'Macs\(0.4\)'"),
        ({"name": "other"}, "its evaluation is"),
        ({"seed": 1}, "its seed is 0, now it is 1"),
        ({"scorer": cp.scoring.Norm(1)}, "its scorer is"),
        ({"minimize": [cp.profiling.macs]}, "MACs|directions"),
    ):
        with pytest.raises(FileError, match=words):
            find(net, x, **{**options, **change})
    with pytest.raises(FileError, match="its weights is"):
        find(network(seed=2), x, **options)
    assert find(net, x, **{**options, "study": "another", "seed": 1}).trials == 2


def test_a_study_of_somebody_else_is_refused(net, x, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.create_study(storage=url, study_name="mine").optimize(lambda trial: 1.0, n_trials=1)
    with pytest.raises(FileError, match=r"the study 'mine' .* was not made by search.find"):
        find(net, x, evaluate=by_width, budget=HALF, trials=2, storage=url, study="mine")


def test_a_storage_that_is_none_is_refused(net, x, tmp_path: Path) -> None:
    (tmp_path / "s.log").write_text("no journal\n")
    options = {"evaluate": by_width, "budget": HALF, "trials": 2}
    with pytest.raises(FileError, match="cannot be used for the study"):
        find(net, x, storage=tmp_path / "s.log", **options)
    with pytest.raises(FileError, match="expected a file in a folder that exists"):
        find(net, x, storage=tmp_path / "no" / "s.log", **options)
    with pytest.raises(FileError, match="cannot be used for the study"):
        find(net, x, storage=f"sqlite:///{tmp_path}/no/s.db", **options)
    with pytest.raises(InputError, match="storage = 3: a path, an URL"):
        find(net, x, storage=3, **options)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"budget": Global(0.5)}, BudgetError, r"find searches within fractions .* got Global Global\(0.5\)"),
        ({"budget": 0.5}, BudgetError, "got float 0.5"),
        ({"budget": Macs(0.001)}, UnreachableBudgetError, "is the least that can be left"),
        ({"trials": 0}, InputError, "trials = 0: how many trials"),
        ({"evaluate": None}, InputError, "evaluate = None: a function"),
        ({"minimize": ["macs"]}, InputError, "a list of functions that make a cost"),
        ({"minimize": cp.profiling.macs}, InputError, "a list of functions"),
        ({"requirements": {"recall": 0.7}}, InputError, r"requirements\['recall'\] = 0.7: a function"),
        ({"starts": [0.5]}, InputError, r"starts = \[0.5\]: a list of budgets"),
    ],
)
def test_what_makes_no_sense_is_refused(net, x, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        find(net, x, **{"evaluate": by_width, "budget": HALF, "trials": 2, **options})


def test_a_requirement_that_fails_names_itself(net, x) -> None:
    def broken(small: nn.Module) -> float:
        raise ValueError("no class 3")

    with pytest.raises(EvaluationError, match=r"trial 0, requirement 'recall': evaluate raised Value"):
        find(net, x, evaluate=by_width, budget=HALF, requirements={"recall": broken})


def test_without_optuna_the_command_that_installs_it_is_said(net, x, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"needs optuna.*pip install 'compressor\[search\]'"):
        find(net, x, evaluate=by_width, budget=HALF)


def test_optuna_speaks_as_loudly_as_before(net, x) -> None:
    before = optuna.logging.get_verbosity()
    find(net, x, evaluate=by_width, budget=HALF, trials=1)
    assert optuna.logging.get_verbosity() == before
