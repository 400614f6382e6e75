"""What is measured is what cutting one group alone comes to; nothing is measured twice, nothing lost."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import (
    BudgetError,
    EvaluationError,
    FileError,
    InputError,
    MeasurementError,
    NothingToPruneError,
)
from compressor.search import OutputFidelity, sensitivity
from tests.search.conftest import Counting
from tests.search.evaluations import WIDTHS, by_width, dying, network, noisy

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ("0.weight", "3.weight")


class OfRows(cp.Scorer):
    """The L1 norm of the rows of weights."""

    def site_scores(self, graph: cp.Graph) -> dict:
        tensors = dict(graph.model.named_parameters())
        rows = [a for a in graph.axes if a.role == "writer" and a.axis == 0 and a.tensor in WEIGHTS]
        return {(a.tensor, a.axis): tensors[a.tensor].detach().abs().flatten(1).sum(1) for a in rows}


def test_each_quality_is_that_of_the_network_without_the_weakest_channels_of_one_layer() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten())
    net = nn.Sequential(*net, nn.Linear(64, 3)).eval()
    x = torch.randn(16, 3, 8, 8)
    fidelity = OutputFidelity(net, [x])
    found = sensitivity(net, x, evaluate=fidelity, scorer=OfRows(), ratios=(0.25, 0.5))
    assert [curve.group for curve in found.curves] == ["0.weight", "3.weight"]
    weakest = net[3].weight.detach().abs().flatten(1).sum(1).argsort().tolist()
    for lost, quality, macs in zip(
        found.curves[1].lost, found.curves[1].quality, found.curves[1].macs, strict=True
    ):
        kept = sorted(weakest[lost:])
        by_hand = nn.Sequential(
            *net[:3], nn.Conv2d(8, len(kept), 3), nn.Flatten(), nn.Linear(16 * len(kept), 3)
        )
        with torch.no_grad():
            by_hand[3].weight.copy_(net[3].weight[kept])
            by_hand[3].bias.copy_(net[3].bias[kept])
            by_hand[5].weight.copy_(net[5].weight.view(3, 4, 16)[:, kept].flatten(1))
            by_hand[5].bias.copy_(net[5].bias)
            y, smaller = net(x).double(), by_hand.eval()(x).double()
        assert quality == pytest.approx(1 - float((y - smaller).square().sum() / y.square().sum()), abs=1e-6)
        assert macs == cp.profile(by_hand, x).macs
    assert (found.quality, found.macs) == (1.0, cp.profile(net, x).macs)


def test_ratios_that_come_to_the_same_count_are_asked_once(net, x, counting: Counting) -> None:
    found = sensitivity(net, x, evaluate=counting, ratios=(0.5, 0.1, 0.15, 0.99))
    assert [curve.lost for curve in found.curves] == [(1, 6, 11), (2, 3, 10, 19), (1, 4, 7)]
    assert len(counting.asked) == 1 + 3 + 4 + 3
    assert counting.asked[0] == list(WIDTHS)
    assert all(sum(a != b for a, b in zip(asked, WIDTHS, strict=True)) == 1 for asked in counting.asked[1:])


def test_some_groups_by_pattern(net, x, counting: Counting) -> None:
    found = sensitivity(net, x, evaluate=counting, ratios=(0.5,), groups=["2.*", "4"])
    assert [curve.group for curve in found.curves] == ["2.weight", "4.weight"]


def test_the_model_and_the_random_state_stay_as_they_are(net, x) -> None:
    def spoiling(small: nn.Module) -> float:
        for parameter in small.parameters():
            parameter.data.zero_()
        return random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002

    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.train()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first = sensitivity(net, x, evaluate=spoiling, ratios=(0.5,))
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    random.random(), torch.rand(3)
    assert sensitivity(net, x, evaluate=spoiling, ratios=(0.5,)) == first
    assert sensitivity(net, x, evaluate=spoiling, ratios=(0.5,), seed=1) != first


def test_a_copy_to_be_asked_about_is_in_eval_mode(net, x) -> None:
    net.train()
    assert sensitivity(net, x, evaluate=lambda small: float(small.training), ratios=(0.5,)).quality == 0.0


# -- the cache -----------------------------------------------------------------------------------


def test_what_is_in_the_cache_is_not_asked_again(net, x, counting: Counting, tmp_path: Path) -> None:
    options = {"evaluate": counting, "cache": tmp_path / "c.jsonl", "name": "widths"}
    first = sensitivity(net, x, ratios=(0.25, 0.5), **options)
    asked = len(counting.asked)
    assert sensitivity(net, x, ratios=(0.25, 0.5), **options) == first
    assert len(counting.asked) == asked
    more = sensitivity(net, x, ratios=(0.5, 0.75), **options)
    assert len(counting.asked) == asked + 3
    assert [curve.quality[0] for curve in more.curves] == [curve.quality[1] for curve in first.curves]
    sensitivity(net, x, ratios=(0.5,), scorer=cp.scoring.Random(3), **options)
    assert len(counting.asked) == asked + 6  # other channels, other cuts


def test_an_error_and_an_interruption_keep_what_was_measured(
    net, x, counting: Counting, tmp_path: Path
) -> None:
    def interrupted() -> float:
        raise KeyboardInterrupt

    def failing() -> float:
        raise RuntimeError("the disk is full")

    counting.at = {4: failing, 8: interrupted}
    options = {"evaluate": counting, "cache": tmp_path / "c", "name": "widths", "ratios": (0.25, 0.5, 0.75)}
    with pytest.raises(
        EvaluationError, match=r"0.weight without 9 of 12 ranks: evaluate raised RuntimeError"
    ):
        sensitivity(net, x, **options)
    with pytest.raises(KeyboardInterrupt):
        sensitivity(net, x, **options)
    found = sensitivity(net, x, **options)
    assert len(counting.asked) == 10 + 2
    assert found == sensitivity(net, x, evaluate=by_width, name="widths", ratios=(0.25, 0.5, 0.75))


SCRIPT = """
import sys, torch
from compressor.search import sensitivity
from tests.search.evaluations import by_width, network
import os, signal
count = 0
def evaluate(net):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return by_width(net)
options = {"ratios": (0.25, 0.5), "cache": sys.argv[1], "name": "widths"}
sensitivity(network(), torch.ones(1, 6), evaluate=evaluate, **options)
"""


def test_a_killed_process_loses_only_what_was_under_way(net, x, counting: Counting, tmp_path: Path) -> None:
    cache = tmp_path / "c"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cache)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert run.returncode == -9
    with cache.open("a", encoding="utf-8") as file:
        file.write('{"key": "0123", "qual')  # as a kill in the middle of a write leaves it
    found = sensitivity(net, x, evaluate=counting, ratios=(0.25, 0.5), cache=cache, name="widths")
    assert len(counting.asked) == 7 - 4
    assert found.curves[0].quality == (1 - 3 * 0.25**2, 1 - 3 * 0.5**2)
    assert all(json.loads(line) for line in cache.read_text().splitlines())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "another"}, "is of another evaluation: 'widths', now it is 'another'"),
        ({"seed": 1}, "is of another seed: 0, now it is 1"),
    ],
)
def test_a_cache_of_something_else_is_refused(net, x, tmp_path: Path, change: dict, words: str) -> None:
    options = {"evaluate": by_width, "cache": tmp_path / "c", "name": "widths", "ratios": (0.5,), "seed": 0}
    sensitivity(net, x, **options)
    with pytest.raises(FileError, match=words):
        sensitivity(net, x, **{**options, **change})
    with pytest.raises(FileError, match="is of another weights"):
        sensitivity(network(seed=1), x, **options)


def test_a_cache_that_is_none_is_refused_and_left_alone(net, x, tmp_path: Path) -> None:
    options = {"evaluate": by_width, "ratios": (0.5,)}
    for content, words in (
        ("a letter\n", "line 1 is no entry"),
        ('{"a": 1}\n', "a file of another kind"),
        ("[1]\n", "another kind"),
    ):
        (tmp_path / "c").write_text(content)
        with pytest.raises(FileError, match=words):
            sensitivity(net, x, cache=tmp_path / "c", **options)
        assert (tmp_path / "c").read_text() == content
    sensitivity(net, x, cache=tmp_path / "d", **options)
    lines = (tmp_path / "d").read_text().splitlines()
    (tmp_path / "d").write_text("\n".join([lines[0], "{}", *lines[1:]]) + "\n")
    with pytest.raises(FileError, match="line 2 is no entry of a cache"):
        sensitivity(net, x, cache=tmp_path / "d", **options)
    with pytest.raises(FileError, match="cannot write the cache"):
        sensitivity(net, x, cache=tmp_path / "no" / "folder", **options)


def test_an_evaluation_without_a_name_needs_one_for_a_file(net, x, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name it, name="):
        sensitivity(net, x, evaluate=lambda small: 1.0, cache=tmp_path / "c", ratios=(0.5,))
    assert sensitivity(net, x, evaluate=lambda small: 1.0, ratios=(0.5,)).evaluation == "<lambda>"


# -- processes and threads -----------------------------------------------------------------------


def test_processes_and_threads_find_the_same(net, x) -> None:
    expected = sensitivity(net, x, evaluate=noisy, ratios=(0.5,))
    assert sensitivity(net, x, evaluate=noisy, ratios=(0.5,), workers=2) == expected
    alone = sensitivity(net, x, evaluate=by_width, ratios=(0.25, 0.5))
    state = torch.get_rng_state()
    with ThreadPoolExecutor(3) as threads:
        assert sensitivity(net, x, evaluate=by_width, ratios=(0.25, 0.5), workers=threads) == alone
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_sent_to_other_processes_is_said(net, x) -> None:
    lock = threading.Lock()

    def locking(small: nn.Module) -> float:
        with lock:
            return 1.0

    with pytest.raises(InputError, match=r"cannot be sent to other processes.*workers=1"):
        sensitivity(net, x, evaluate=locking, ratios=(0.5,), workers=2)


@pytest.mark.slow
def test_functions_of_a_function_are_sent_by_cloudpickle(net, x) -> None:
    pytest.importorskip("cloudpickle")
    factor = 2.0

    def doubled(small: nn.Module) -> float:
        return factor * by_width(small)

    assert sensitivity(net, x, evaluate=doubled, ratios=(0.5,), groups=["0"], workers=2).quality == 2.0


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_and_the_rest_is_kept(net, x, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="ended before its time"):
        sensitivity(net, x, evaluate=dying, ratios=(0.5,), workers=2, cache=tmp_path / "c", groups=["2"])
    assert len((tmp_path / "c").read_text().splitlines()) >= 1


# -- what makes no sense -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (float("nan"), "evaluate returned nan, expected a finite number"),
        (float("inf"), "evaluate returned inf"),
        ("0.9", r"returned '0.9' \(str\), expected one number"),
        (True, r"returned True \(bool\)"),
        (None, r"returned None \(NoneType\)"),
        (torch.ones(2), r"\(Tensor\), expected one number"),
    ],
)
def test_an_answer_that_is_no_number_names_the_cut(net, x, returned: object, words: str) -> None:
    def evaluate(small: nn.Module) -> object:
        return 1.0 if len(small[2].weight) == 20 else returned

    with pytest.raises(EvaluationError, match=rf"^2.weight without 10 of 20 ranks: .*{words}"):
        sensitivity(net, x, evaluate=evaluate, ratios=(0.5,))


def test_numbers_of_any_kind_are_numbers(net, x) -> None:
    for one in (1, np.float32(1), np.float64(1), torch.tensor(1.0), torch.ones(1, 1, dtype=torch.float16)):
        assert sensitivity(net, x, evaluate=lambda small, one=one: one, ratios=(0.5,)).quality == 1.0


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"ratios": (0.5, 1.0)}, BudgetError, "ratios = 1 removes every channel"),
        ({"ratios": (0.0,)}, BudgetError, "ratios = 0 removes nothing"),
        ({"ratios": (50,)}, BudgetError, "for 50 % give 0.5"),
        ({"ratios": ()}, InputError, "a list of removed shares is expected"),
        ({"ratios": 0.5}, InputError, "a list of removed shares is expected"),
        ({"groups": ["3.weight"]}, BudgetError, "'3.weight' matches no layer"),
        ({"groups": "2"}, InputError, "a list of name patterns is expected"),
        ({"groups": []}, InputError, "a list of name patterns is expected"),
        ({"groups": ["6"]}, InputError, "no channel that '6' writes can be removed"),
        ({"evaluate": 0.9}, InputError, "evaluate = 0.9: a function is expected"),
        ({"evaluate": Counting}, InputError, "a function is expected"),
        ({"workers": 0}, InputError, "workers = 0: how many processes"),
        ({"workers": True}, InputError, "workers = True"),
    ],
)
def test_what_makes_no_sense_is_refused(net, x, options: dict, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        sensitivity(net, x, **{"evaluate": by_width, **options})


def test_a_model_of_which_nothing_may_go_is_refused_with_the_reasons() -> None:
    with pytest.raises(NothingToPruneError, match=r"no channel of Linear may be removed: .* output"):
        sensitivity(nn.Linear(3, 2), torch.ones(1, 3), evaluate=by_width)


def test_factors_of_one_projection_have_names_of_their_own() -> None:
    net = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    found = sensitivity(net, x, evaluate=OutputFidelity(net, [(x, None)]), ratios=(0.5,))
    names = [curve.group for curve in found.curves]
    assert len(set(names)) == len(names)
    assert any("#2" in name for name in names)
