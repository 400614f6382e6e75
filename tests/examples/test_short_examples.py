"""The short examples from end to end, as a newcomer runs them, and the table that lists them."""

from __future__ import annotations

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

import compressor as cp
from tests.conftest import ROOT
from tests.examples.test_recipes import run

EXAMPLES = ROOT / "examples"


def short(name: str, folder: Path) -> str:
    """What an example prints in its quick mode."""
    return run(f"../{name}", "--quick", "--out", str(folder))


def macs_left(output: str) -> float:
    """The MACs that stay, in per cent, in the table of `cp.compare`."""
    found = re.search(r"^MACs +[\d,]+ +[\d,]+ +([\d.]+)%", output, re.MULTILINE)
    assert found is not None, output
    return float(found[1])


def test_a_phone_bundle_takes_fewer_than_40_lines(tmp_path: Path) -> None:
    assert len((EXAMPLES / "phone_bundle.py").read_text().splitlines()) < 40
    output = short("phone_bundle.py", tmp_path / "bundle")
    factor = re.search(r"([\d.]+)x fewer MACs", output)
    assert factor is not None and float(factor[1]) >= 2
    files = {file.name for file in (tmp_path / "bundle").iterdir()}
    assert {"model.onnx", "model.ort", "model.int8.onnx", "manifest.json", "plan.json"} <= files


def test_a_transformer_loses_heads_dims_and_widths(tmp_path: Path) -> None:
    output = short("transformer.py", tmp_path)
    layers = re.findall(r"4 heads of 16, 128 hidden -> (\d+) heads of (\d+), (\d+) hidden", output)
    assert len(layers) == 2
    for heads, dims, hidden in layers:
        assert int(heads) < 4 and int(dims) < 16 and int(hidden) < 128
    error = re.search(r"verified: relative error ([-.\de]+)", output)
    assert error is not None and float(error[1]) < 1e-9
    tuned = re.search(r"fine-tuned: accuracy ([\d.]+)%", output)
    assert tuned is not None and float(tuned[1]) > 75
    assert 49 < macs_left(output) <= 50
    assert ("timm: left out, as it cannot be imported here" in output) != ("verified, saved" in output)
    assert (tmp_path / "bert" / "weights.safetensors").is_file()


def test_lightning_trains_to_zero_and_step_by_step(tmp_path: Path) -> None:
    output = short("lightning_training.py", tmp_path)
    assert re.search(r"all planned channels at zero after \d+ steps: yes", output)
    cut = re.search(r"accuracy ([\d.]+)% before the cut, ([\d.]+)% after it", output)
    assert cut is not None and cut[1] == cut[2]
    left = [float(share) for share in re.findall(r"([\d.]+)% of the MACs left", output)]
    assert len(left) == 2 and all(45 < share <= 50 for share in left)
    build = lambda: cp.models.create("resnet20_cifar", in_channels=1)  # noqa: E731
    for folder in ("to-zero", "step-by-step"):
        assert cp.plan_of(cp.load(tmp_path / folder, build)) is not None


def test_an_imbalanced_set_is_reported_class_by_class(tmp_path: Path) -> None:
    output = short("imbalanced.py", tmp_path)
    assert "to train on: 200 common, 60 rarer, 20 rare" in output
    assert 49 < macs_left(output) <= 50
    before, after = re.findall(r"^rare +20 +([\d.]+) \(([\d.]+) to ([\d.]+)\)", output, re.MULTILINE)
    assert all(float(low) <= float(value) <= float(high) for value, low, high in (before, after))
    verdicts = re.findall(r"^(common|rarer|rare): (?:no change shown|recall is)", output, re.MULTILINE)
    assert sorted(verdicts) == ["common", "rare", "rarer"]


def test_the_demo_keeps_its_numbers(tmp_path: Path) -> None:
    output = short("demo.py", tmp_path)
    found = json.loads((tmp_path / "numbers.json").read_text())
    before, after = found["costs"]["before"], found["costs"]["after"]
    assert before["macs"] == 10_064_512 and after["macs"] <= 0.3 * before["macs"]
    assert f"{after['macs']:,}" in output
    assert list(found["accuracy"]) == ["before", "as cut", "reconstructed", "fine-tuned"]
    files = {name: row["bytes"] for name, row in found["files"].items()}
    assert list(files) == ["baseline.onnx", "model.onnx", "model.int8.onnx"]
    assert files["model.onnx"] == (tmp_path / "bundle" / "model.onnx").stat().st_size
    assert (tmp_path / "before_after.png").stat().st_size > 0


def test_a_published_network_is_pruned_by_its_recipe_without_its_data(tmp_path: Path) -> None:
    output = short("prune_cifar_resnet56.py", tmp_path)
    assert 49 < macs_left(output) <= 50 and "onnxruntime agrees" in output
    again = cp.load(tmp_path / "small", lambda: cp.models.create("resnet20_cifar", width=8))
    assert cp.plan_of(again) is not None


def test_data_that_are_missing_are_named(tmp_path: Path) -> None:
    text = run("../prune_cifar_resnet56.py", "--shared", str(tmp_path), fails=True)
    assert "resnet56-4bfd9763.th is missing" in text and "--quick" in text


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "name the .npz file of HAM10000 or PneumoniaMNIST with --data, or try --quick"),
        (["--data", "{folder}/none.npz"], "none.npz"),
        (["--data", "{folder}/none.npz", "--set", "pneumoniamnist"], "none.npz"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], error: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["imbalanced.py", *(text.format(folder=tmp_path) for text in arguments)])
    with pytest.raises((SystemExit, cp.errors.FileError), match=error):
        runpy.run_path(str(EXAMPLES / "imbalanced.py"), run_name="__main__")


def test_the_table_lists_every_example() -> None:
    named = re.findall(r"^\| \[`(\w+\.py)`\]\((\S+)\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    scripts = [file for file in EXAMPLES.rglob("*.py") if "__main__" in file.read_text()]
    assert sorted(link for _, link in named) == sorted(str(file.relative_to(EXAMPLES)) for file in scripts)
    assert all(Path(link).name == name for name, link in named)
