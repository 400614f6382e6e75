"""How the accuracy benchmark compares runs and goes on after an interruption."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch_pruning")

import torch

import compressor as cp
from benchmarks import accuracy, accuracy_tables, cifar, modelopt, results, resuming, torch_pruned
from benchmarks.figures import accuracy as figures
from benchmarks.methods import LONG, MAIN, ONCE, PEER_SCORERS, SCORERS, TUNING, Cutter, Method, chosen

OPTIONS = argparse.Namespace(
    quick=True,
    network="resnet20_cifar",
    epochs=1,
    train=64,
    test=8,
    held=16,
    rate=0.1,
    rates=[0.1, 0.2],
    seeds=[0, 1],
    fractions=[0.5],
    every=False,
    only=None,
    tune=False,
)
SCHEDULE = {"network": "resnet20_cifar", "epochs": 1, "train": 64, "test": 8, "rate": 0.1}


def row(method: Method, right: str, *, seed: int = 0, **changed: Any) -> dict[str, Any]:
    stages = dict.fromkeys(accuracy_tables.STAGES, right)
    facts = {"macs_left": 0.5, "params_left": 0.4, "right": stages, "schedule": SCHEDULE}
    return {**vars(method), "fraction": 0.5, "seed": seed, "rate": 0.1, **facts, **changed}


def options(**changed: Any) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(OPTIONS), **changed})


OURS = Method("ours", "Norm(2, power=2)", "inner", "global")
PEER = Method("torch-pruning", "Norm(2)", "inner", "global")


def test_the_difference_is_paired_image_by_image() -> None:
    # +1 on two images, -1 on one, 0 on one: mean 1/4, variance (2 * 9/16 + 25/16 + 1/16) / 3
    assert accuracy_tables.difference([row(OURS, "1101")], [row(PEER, "0011")]) == "+25.0 ± 47.9"


def test_runs_of_different_seeds_are_not_compared() -> None:
    assert accuracy_tables.difference([row(OURS, "1101", seed=1)], [row(PEER, "0011", seed=0)]) == "-"


def test_errors_over_seeds_stand_beside_those_over_images() -> None:
    ours = [row(OURS, "1100"), row(OURS, "1111", seed=1), row(OURS, "0000", seed=2)]
    theirs = [row(PEER, "0000", seed=1), row(PEER, "1100")]
    (table,) = accuracy_tables.tables([*ours, *theirs])
    cells = dict(zip(zip(table.columns, range(99), strict=False), table.rows[0], strict=True))
    found = {name: cell for (name, _), cell in cells.items() if name != "seeds ±"}
    spreads = [cell for (name, _), cell in cells.items() if name == "seeds ±"]
    assert found["fine-tuned %"] == "50.0 ± 25.0" and found["seeds"] == "3"
    # 50, 100 and 0 %: 50 points; of the two seeds that both have +0 and +100 points: 70.7.
    assert spreads == ["50.0", "70.7"]
    assert found["− torch-pruning"] == "+50.0 ± 0.0"


def test_runs_that_are_done_are_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    keys = accuracy.keys(OPTIONS)
    assert len(keys) == len(set(keys)) == 2 * (1 + len(chosen(quick=True)))
    results.write_json(tmp_path / "accuracy-quick.json", {"rows": [row(OURS, "1101")]})
    left = accuracy._todo(resuming.kept("accuracy-quick", accuracy._schedule(OPTIONS)), OPTIONS)
    assert set(keys) - set(left) == {(OURS, 0.5, 0, 0.1)}
    some = accuracy._todo([], options(only=["torch"]))
    assert some and all(key[0].library == "torch-pruning" for key in some)


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.write_json(tmp_path / "accuracy.json", {"rows": [row(OURS, "1", schedule={"epochs": 9})]})
    with pytest.raises(SystemExit, match="'epochs': 9"):
        resuming.kept("accuracy", accuracy._schedule(OPTIONS))


def test_a_failure_is_a_row_of_its_own() -> None:
    failed = {**row(PEER, "0011"), "failure": "IndexError: 5"}
    del failed["right"], failed["macs_left"], failed["params_left"]
    (table,) = accuracy_tables.tables([row(OURS, "1101"), failed])
    assert table.rows[1][-1] == "IndexError: 5"


def test_the_default_and_all_that_is_recommended_is_compared() -> None:
    assert repr(SCORERS[chosen(quick=True)[0].scorer](None, 0)) == repr(cp.scoring.DEFAULT)  # type: ignore[arg-type]
    names = [str(method) for method in (*MAIN, *ONCE)]
    assert len(set(names)) == len(names) and {*LONG, *TUNING} <= {*MAIN}
    full = accuracy.keys(options(quick=False, fractions=[0.5, 0.3]))
    assert {key[0] for key in full if key[1] == 0.3} == {*MAIN}
    assert {key[0] for key in full} == {accuracy_tables.DENSE, *MAIN, *ONCE}
    every = {method.scorer for method in chosen(quick=False, every=True) if method.library == "ours"}
    assert every == set(SCORERS)
    assert {key[0] for key in accuracy.keys(options(tune=True))} == {*TUNING}
    assert {key[0] for key in accuracy.keys(options(quick=False, epochs=5))} == {accuracy_tables.DENSE, *LONG}


def test_rates_are_compared_on_training_images_that_are_held_out() -> None:
    x, y = torch.arange(5.0)[:, None], torch.arange(5)
    held = cifar.Data(x, y, -x, -y).held_out(2)
    assert held.y_train.tolist() == [0, 1, 2] and held.y_test.tolist() == [3, 4]
    assert held.x_train[:, 0].tolist() == [0, 1, 2] and held.x_test[:, 0].tolist() == [3, 4]
    rows = [row(OURS, "1101", rate=0.1), row(OURS, "0001", rate=0.2), row(PEER, "0000", rate=0.2)]
    (table,) = accuracy_tables.rates_table(rows)
    assert table.columns[2:] == ("rate 0.1", "rate 0.2")
    assert [cells[2:] for cells in table.rows] == [("75.0 ± 21.7", "25.0 ± 21.7"), ("-", "0.0 ± 0.0")]


def test_torch_pruning_is_brought_to_a_fraction_and_leaves_the_network_as_it_is(shared: Path) -> None:
    model, data = cifar.load(shared, train=64, test=4, name="resnet20_cifar")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cutter, x = Cutter(model, data), data.x_test[:1]
    small = cutter.cut(Method("torch-pruning", "Taylor", "inner", "global"), 0.5, 0)
    assert 0.45 < cp.profile(small, x).macs / cp.profile(model, x).macs <= 0.5
    assert small.get_submodule("conv1").weight.shape == model.get_submodule("conv1").weight.shape
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    ignored = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Conv2d)]
    with pytest.raises(RuntimeError, match=r"no ratio reaches 0\.5 of the MACs"):
        options_ = {"fraction": 0.5, "together": True, "ignored": [*ignored, "linear"]}
        torch_pruned.prune(model, x, PEER_SCORERS["Norm(2)"], **options_)


def test_the_figure_shows_accuracy_against_macs_beside_the_network_as_it_is() -> None:
    rows = [row(accuracy_tables.DENSE, "1111", fraction=1.0, macs_left=1.0), row(PEER, "0001")]
    rows += [row(OURS, right, fraction=f, macs_left=f) for f, right in ((0.5, "0111"), (0.3, "0011"))]
    rows.append(row(OURS, "0000", seed=1, macs_left=0.4))
    figure = figures.against_macs([{"rows": [row(PEER, "1")]}, {"rows": rows}])
    (axes,) = figure.axes
    assert axes.get_title() == "ResNet-20, an epoch of 64 images"
    lines = {label: line for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    x, y = lines["ours: default, inside blocks"].lines[0].get_data()
    assert list(x) == pytest.approx([30, 45]) and list(y) == pytest.approx([50, 37.5])
    assert list(lines["Torch-Pruning: norm, global"].lines[0].get_ydata()) == [25]
    assert list(lines["not pruned, trained as long"].get_ydata()) == [100, 100]


def test_a_peer_that_is_not_installed_is_said_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modelopt, "find_spec", lambda name: None)
    todo = accuracy._todo([], options(quick=False))
    assert todo and all(key[0].library != "modelopt" for key in todo)
    assert (
        "skipped: ModelOpt needs modelopt, torchprofile, huggingface_hub: pip install"
        in capsys.readouterr().out
    )


def test_the_quick_mode_runs_and_does_not_repeat_itself(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    words = ["accuracy", "--quick", "--train", "64", "--test", "20", "--shared", str(shared)]
    monkeypatch.setattr(sys, "argv", words)
    assert accuracy.main() == 0
    rows = (results.read("accuracy-quick") or {})["rows"]
    assert [accuracy_tables.method_of(found) for found in rows] == [
        accuracy_tables.DENSE,
        *chosen(quick=True),
    ]
    assert all("failure" not in found and len(found["right"]["fine_tuned"]) == 20 for found in rows)
    assert all(found["macs_left"] <= 0.5 for found in rows[1:])
    assert accuracy.main() == 0
    assert f"{len(rows)} runs are done, 0 to go" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*words, "--tune", "--rates", "0.01", "--only", "torch"])
    assert accuracy.main() == 0
    (tuned,) = (results.read("accuracy-rates-quick") or {})["rows"]
    assert len(tuned["right"]["fine_tuned"]) == 16 and tuned["rate"] == 0.01
