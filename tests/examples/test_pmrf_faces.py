"""The faces' recipe from end to end at a small size: all estimators, cuts of both stages, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from tests.examples.test_recipes import run


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    return found


def test_quick_compares_cuts_and_exports(tmp_path: Path) -> None:
    run("pmrf_faces.py", "--quick", "--out", str(tmp_path))
    compared = rows(tmp_path, "results")
    assert len(compared) == 2 + 4 * 3  # four flows at three numbers of steps
    assert all(0 < row["MSE"] < 1 and row["Fréchet"] > 0 for row in compared)
    original, small = rows(tmp_path, "pruned")
    assert (original["MACs removed"], original["MSE, relative"]) == ("0.0%", 1.0)
    assert float(small["MACs removed"].rstrip("%")) == pytest.approx(50, abs=1.5)
    assert small["MSE, relative"] == pytest.approx(small["MSE"] / original["MSE"])
    file = onnxruntime.InferenceSession(str(tmp_path / "unet-1.onnx"))
    y, noise = np.full((1, 1, 16, 16), 0.5, np.float32), np.zeros((1, 1, 16, 16), np.float32)
    (restored,) = file.run(None, {"y": y, "noise": noise})
    assert restored.shape == (1, 1, 16, 16) and 0 <= restored.min() <= restored.max() <= 1
    # Eight faces beside each other, five rows below each other, three times as large.
    assert Image.open(tmp_path / "faces.png").size == (10 * 16 * 3, 5 * 16 * 3)


@pytest.mark.slow
def test_it_goes_on_and_takes_weights_that_are_given(tmp_path: Path) -> None:
    arguments = ("pmrf_faces.py", "--quick", "--no-baselines")
    run(*arguments, "--out", str(tmp_path / "a"))
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("*-*.pt")}
    again = run(*arguments, "--out", str(tmp_path / "a"))
    assert "taking the plan of" in again
    trained = {path: time for path, time in files.items() if "restorer" not in path.name}
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
    first = rows(tmp_path / "a", "results")
    checkpoint = str(tmp_path / "a" / "unet-restorer.pt")
    run(*arguments, "--checkpoint", checkpoint, "--out", str(tmp_path / "b"))
    assert not (tmp_path / "b" / "posterior-mean.pt").exists()
    for row, other in zip(first, rows(tmp_path / "b", "results"), strict=True):
        assert row["MSE"] == pytest.approx(other["MSE"], rel=1e-6)


@pytest.mark.slow
def test_the_transformer_is_cut_as_well(tmp_path: Path) -> None:
    run("pmrf_faces.py", "--quick", "--no-baselines", "--velocity", "hdit", "--out", str(tmp_path))
    _, small = rows(tmp_path, "hdit-pruned")
    assert float(small["MACs removed"].rstrip("%")) == pytest.approx(50, abs=3)


def test_data_has_to_be_named(tmp_path: Path) -> None:
    assert "name the data with --data" in run("pmrf_faces.py", "--out", str(tmp_path), fails=True)
