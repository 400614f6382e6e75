"""`bench-page` writes the page of the library, with as many models as follow --models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.cli.command import _repeated
from compressor.export.bench import page
from compressor.export.bench.web_runtime import SCRIPT, WASM, WebRuntime
from tests.cli.conftest import Run


@pytest.fixture(autouse=True)
def _models(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """base.onnx, small.onnx and small.int8.onnx, which double what they read; an empty runtime."""
    value = helper.make_tensor_value_info
    for name in ("base", "small", "small.int8"):
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "x"], ["y"])],
            name,
            [value("x", TensorProto.FLOAT, ["batch", 4])],
            [value("y", TensorProto.FLOAT, ["batch", 4])],
        )
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), here / f"{name}.onnx")
    (here / "runtime").mkdir()
    for name in (SCRIPT, WASM):
        (here / "runtime" / name).write_bytes(b"")
    monkeypatch.setattr(page, "web_runtime", lambda: WebRuntime(here / "runtime"))


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def names(folder: Path) -> list[str]:
    return [model["name"] for model in manifest(folder)["models"]]


def test_models_follow_their_option(run: Run, here: Path) -> None:
    outcome = run("bench-page", "out/", "--models", "base.onnx", "small.onnx", "small.int8.onnx")
    assert outcome.code == 0, outcome.err
    assert names(here / "out") == ["base", "small", "small.int8"]
    assert outcome.out.startswith("out/index.html: ")
    assert "writing out" in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ("out", "--models", "base.onnx", "--models", "small.onnx"),
        ("--models", "base.onnx", "--models", "small.onnx", "--quiet", "out"),
        ("-m", "base.onnx", "small.onnx", "--", "out"),
    ],
)
def test_the_option_may_be_repeated_and_stand_anywhere(run: Run, here: Path, words: tuple[str, ...]) -> None:
    assert run("bench-page", *words).code == 0
    assert names(here / "out") == ["base", "small"]


def test_a_folder_that_is_taken_for_a_model_is_missed(run: Run) -> None:
    outcome = run("bench-page", "--models", "base.onnx", "out")
    assert outcome.code == 2
    assert "Missing argument 'OUT'" in outcome.words


def test_a_page_in_one_file_as_json(run: Run, here: Path) -> None:
    words = ("bench-page", "page.html", "--single-file", "--models", "base.onnx", "small.onnx", "--json")
    outcome = run(*words)
    assert outcome.data["path"] == "page.html"
    assert outcome.data["page_bytes"] == (here / "page.html").stat().st_size
    assert list(outcome.data["models"]) == ["base", "small"]


def test_inputs_of_a_shape_or_of_a_file(run: Run, here: Path) -> None:
    run("bench-page", "shape", "-m", "base.onnx", "-i", "7x4")
    assert manifest(here / "shape")["inputs"]["samples"] == 7
    np.save(here / "x.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    run("bench-page", "file", "-m", "base.onnx", "--input-file", "x.npy", "--title", "Nets", "--rounds", "9")
    assert (here / "file/inputs/0.bin").read_bytes() == np.arange(12, dtype=np.float32).tobytes()
    found = manifest(here / "file")
    assert (found["title"], found["rounds"]) == ("Nets", 9)


def test_an_error_of_the_library_is_one_line(run: Run) -> None:
    outcome = run("bench-page", "out", "--models", "base.onnx", "gone.onnx")
    assert outcome.code == 1
    assert outcome.err.splitlines()[-1].startswith("error: cannot read the model 'gone.onnx'")


def test_models_are_needed(run: Run) -> None:
    outcome = run("bench-page", "out")
    assert outcome.code == 2
    assert "--models" in outcome.err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("out -m a b", "out -m a -m b"),
        ("-m a -m b c", "-m a -m b -m c"),
        ("-m a b -q c", "-m a -m b -q c"),
        ("-m a -- b", "-m a -- b"),
        ("-i 1x4 2x4", "-i 1x4 2x4"),
        ("-m", "-m"),
    ],
)
def test_only_values_of_the_option_get_it(line: str, expected: str) -> None:
    assert " ".join(_repeated(line.split(), ["-m"])) == expected
