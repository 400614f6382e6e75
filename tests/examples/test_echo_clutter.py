"""The recipe of the clutter filter: on phantoms in seconds, on the authors' videos where they are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.examples.test_recipes import run


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of a run's table by their first column."""
    return {row["sequence"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}


def test_it_runs_from_phantoms_to_a_pruned_file(tmp_path: Path) -> None:
    output = run("echo_clutter.py", "--quick", "--out", str(tmp_path))
    found = rows(tmp_path)
    ours, small = found["phantom: ours"], found["phantom: ours, 50% of the MACs"]
    assert small["MACs"] / ours["MACs"] == pytest.approx(0.5, abs=0.01)
    assert found["phantom: ours, not cut, trained on alike"]["MACs"] == ours["MACs"]
    assert small["MAE to unpruned"] == pytest.approx(small["MAE"] / ours["MAE"], abs=0.01)
    assert "onnxruntime agrees" in output
    gates = re.search(r"gates 8 -> (\d+), 4 -> (\d+)", output)
    assert gates is not None and int(gates[1]) < 8 and int(gates[2]) < 4, output
    folder = tmp_path / "phantom"
    for name in ("filter.pt", "plan-0.5.json", "small-0.5.onnx", "sequence.gif", "sequence.png"):
        assert (folder / name).stat().st_size > 0
    assert not list(folder.glob("in-vivo*"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--model", "2d"], ["--linear"], ["--loss", "adversarial"]])
def test_every_option_runs_and_is_not_repeated(tmp_path: Path, options: list[str]) -> None:
    run("echo_clutter.py", "--quick", *options, "--out", str(tmp_path))
    first = rows(tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")}
    again = run("echo_clutter.py", "--quick", *options, "--out", str(tmp_path))
    assert "taking the plan of" in again and len(files) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pt")} == files
    for name, row in rows(tmp_path).items():
        assert {key: row[key] for key in ("MAE", "coherence")} == {
            key: first[name][key] for key in ("MAE", "coherence")
        }


def test_an_unknown_vendor_is_named(tmp_path: Path, shared: Path) -> None:
    data = str(shared / "data/echo_clutter/echo_clutter.npz")
    text = run("echo_clutter.py", "--data", data, "--held-out", "Acme", "--out", str(tmp_path), fails=True)
    assert "--held-out Acme" in text and "GE, Hitachi, Philips, Samsung, Siemens, Toshiba; or say all" in text


@pytest.mark.slow
def test_clutter_of_a_vendor_it_never_saw_is_filtered(tmp_path: Path, shared: Path) -> None:
    data = str(shared / "data/echo_clutter/echo_clutter.npz")
    run("echo_clutter.py", "--data", data, "--steps", "300", "--macs", "--out", str(tmp_path))
    found = rows(tmp_path)
    ours, cluttered = found["Toshiba: ours"], found["Toshiba: cluttered"]
    assert ours["MAE"] <= 0.65 * cluttered["MAE"]
    assert ours["PSNR dB"] >= cluttered["PSNR dB"] + 6
    assert found["Toshiba: authors' 3-D"]["MAE"] == pytest.approx(1.61, abs=0.005)
    assert len(list((tmp_path / "Toshiba").glob("in-vivo*.gif"))) == 6
