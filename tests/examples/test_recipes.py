"""The recipes from end to end at a small size, in one process and under torchrun."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import compressor as cp
from compressor.data.video import read_frames
from tests.conftest import ROOT

FOLDER = ROOT / "examples/recipes"


def run(recipe: str, *arguments: str, processes: int = 1, fails: bool = False, timeout: int = 250) -> str:
    """What a recipe prints; it has to end well, or with an error where `fails`."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [*start, str(FOLDER / recipe), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=ROOT,
        timeout=timeout,
    )
    assert (result.returncode != 0) is fails, result.stderr[-3000:]
    return result.stdout + result.stderr if fails else result.stdout


def macs(output: str) -> float:
    """The change of the MACs that a recipe prints, in per cent."""
    found = re.search(r"MACs: .* \(([-+.\d]+)%\)", output)
    assert found is not None, output
    return float(found[1])


@pytest.mark.parametrize(
    ("recipe", "model", "options", "expected"),
    [
        ("resnet110_cifar10.py", "resnet20_cifar", {}, -63.03),
        ("resnet50_imagenet.py", "resnet50", {"width": 8, "n_classes": 10}, -51.07),
        ("medical_folders.py", "resnet20_cifar", {"n_classes": 3}, -45.0),
    ],
)
def test_quick_reaches_the_macs_that_are_asked_for(
    tmp_path: Path, recipe: str, model: str, options: dict[str, int], expected: float
) -> None:
    output = run(recipe, "--quick", "--out", str(tmp_path))
    assert macs(output) == pytest.approx(expected, abs=0.3)
    small = cp.load(tmp_path / "small", lambda: cp.models.create(model, **options))
    assert cp.plan_of(small) == cp.Plan.load(tmp_path / "plan.json")
    if recipe != "medical_folders.py":  # it cuts at once, the others what training has driven to zero
        differ = re.search(r"outputs differ by at most ([-.\de]+) \(they are up to ([.\d]+)", output)
        assert differ is not None and float(differ[1]) < 1e-5 * max(1.0, float(differ[2]))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["resnet110_cifar10.py", "resnet50_imagenet.py", "medical_folders.py"])
def test_no_training_is_repeated(tmp_path: Path, recipe: str) -> None:
    run(recipe, "--quick", "--out", str(tmp_path))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")}
    weights = (tmp_path / "small" / "weights.safetensors").read_bytes()
    again = run(recipe, "--quick", "--out", str(tmp_path))
    assert "taking the plan of" in again and len(files) >= 2
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")} == files
    assert (tmp_path / "small" / "weights.safetensors").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["medical_folders.py", "resnet50_imagenet.py"])
def test_a_recipe_runs_in_two_processes(tmp_path: Path, recipe: str) -> None:
    output = run(recipe, "--quick", "--out", str(tmp_path), processes=2)
    assert macs(output) < -40 and output.count("MACs:") == 1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["ecg_rhythms.py", "echo_clutter.py", "pmrf_faces.py"])
def test_a_system_is_trained_in_two_processes(tmp_path: Path, recipe: str) -> None:
    output = run(recipe, "--quick", "--out", str(tmp_path), processes=2)
    tables = [path.read_text().splitlines()[0] for path in sorted(tmp_path.glob("*.md"))]
    assert tables and all(output.count(f"{title}\n") == 1 for title in tables)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_without_torchvision_it_says_what_is_needed(tmp_path: Path) -> None:
    text = run("medical_folders.py", "--data", str(tmp_path), "--out", str(tmp_path / "out"), fails=True)
    assert "needs torchvision" in text and "pip install torchvision" in text and "--quick" in text


def test_data_has_to_be_named(tmp_path: Path) -> None:
    text = run("resnet110_cifar10.py", "--out", str(tmp_path), fails=True)
    assert "name the data with --data" in text


def test_super_resolution_goes_from_training_to_pruned_files_and_is_not_repeated(tmp_path: Path) -> None:
    output = run("espcn_t91.py", "--quick", "--scale", "2", "--out", str(tmp_path))
    rows = {line.split("|")[1].strip(): line for line in output.splitlines() if line.startswith("|")}
    original, small = rows["ESPCN"], next(line for name, line in rows.items() if "50%" in name)
    before, after = (int(line.split("|")[3].replace(",", "")) for line in (original, small))
    assert before == 24 * 24 * 21_184 and 0.45 < after / before <= 0.5
    assert {"results.json", "results.md", "pruned-0.5.onnx", "pruned-0.5.int8.onnx", "plan-0.5.json"} <= {
        file.name for file in tmp_path.iterdir()
    }
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")}
    again = run("espcn_t91.py", "--quick", "--scale", "2", "--out", str(tmp_path))
    assert "taking the plan of" in again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")} == files


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_minutes_of_training_are_well_above_bicubic_interpolation(tmp_path: Path, shared: Path) -> None:
    """Bicubic: 30.39 dB on Set5, 27.54 on Set14."""
    sets = [str(shared / "data" / name) for name in ("sr_t91_train", "sr_set5/HR", "sr_set14/HR_mod3")]
    options = ("--data", sets[0], "--test", *sets[1:], "--macs", "--out", str(tmp_path))
    output = run("espcn_t91.py", *options, timeout=1100)
    found = re.search(r"^HR, dB ([\d.]+) HR_mod3, dB ([\d.]+)$", output, re.MULTILINE)
    assert found is not None and float(found[1]) >= 31.3 and float(found[2]) >= 28.2


def test_a_generated_clip_is_enlarged_by_a_module_and_by_a_file(tmp_path: Path) -> None:
    target = tmp_path / "large.mp4"
    output = run("upscale_video.py", "unused", str(target), "--quick")
    assert output.startswith("24 frames") and "decode" in output
    assert sum(1 for _ in read_frames(target)) == 24 and next(read_frames(target)).shape == (3, 144, 192)
    cp.export.onnx(
        cp.models.create("espcn", scale=2), torch.rand(1, 1, 8, 8), tmp_path / "a.onnx", dynamic=(0, 2, 3)
    )
    larger = tmp_path / "larger.mp4"
    by_file = ("--onnx", str(tmp_path / "a.onnx"), "--frames", "2")
    assert run("upscale_video.py", str(target), str(larger), *by_file).startswith("2 frames")
    assert next(read_frames(larger)).shape == (3, 288, 384)
    assert "name the network" in run("upscale_video.py", str(target), str(larger), fails=True)
