"""What importing the library loads, and what it does not; and an interrupt of the command line meanwhile."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import compressor as cp
from tests.conftest import ROOT

# What a first pruning has no use for, or loads a second of.
UNUSED = {"torch._dynamo", *(f"compressor.{name}" for name in ("design", "evaluation", "export", "training"))}
PRUNING = """
import torch
import compressor as cp
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 4, 3))
cp.prune(net, torch.rand(1, 3, 8, 8), budget=cp.budget.Macs(0.5))
"""


def loaded_by(code: str) -> set[str]:
    """The names of all modules in a new process that ran `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys; print('loaded:', *sys.modules)"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return set(ran.stdout.rpartition("loaded:")[2].split())


def test_importing_the_library_loads_no_part_of_it() -> None:
    loaded = loaded_by("import compressor")
    assert {name for name in loaded if name.partition(".")[0] in ("compressor", "torch", "numpy")} == {
        "compressor",
        "compressor.version",
    }


def test_all_of_the_library_loads_no_extra() -> None:
    before = loaded_by("import torch, pathlib")
    found = {
        name.partition(".")[0] for name in loaded_by("import pathlib; from compressor import *") - before
    }
    found = {name for name in found if not name.startswith("__editable__")}
    assert found - sys.stdlib_module_names <= {"compressor", "torch", "numpy", "safetensors", "tqdm"}


def test_a_first_pruning_loads_neither_the_compiler_nor_what_it_does_not_use() -> None:
    loaded = loaded_by(PRUNING)
    assert "compressor.budget" in loaded
    assert not loaded & UNUSED


def test_type_checkers_read_of_every_public_name_what_the_interpreter_loads() -> None:
    tree = ast.parse(Path(cp.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    read = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            packaged = node.module == "compressor"
            module = import_module(f"compressor.{alias.name}" if packaged else node.module)
            read[alias.name] = module if packaged else getattr(module, alias.name)
    assert read == {name: getattr(cp, name) for name in cp.__all__}


def test_a_name_that_the_library_does_not_have_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'compressor' has no attribute 'prun'"):
        getattr(cp, "prun")  # noqa: B009 - a type checker knows that it is not there


def test_names_are_listed_before_they_are_loaded() -> None:
    command = [sys.executable, "-c", "import compressor; print(*dir(compressor))"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(cp.__all__) | {"__version__"} <= set(ran.stdout.split())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("module", ["torch", "typer"])
def test_an_interrupt_while_the_command_line_loads_ends_it_without_a_traceback(
    module: str, tmp_path: Path
) -> None:
    (tmp_path / f"{module}.py").write_text("import time\nprint('loading', flush=True)\ntime.sleep(60)\n")
    command = [sys.executable, "-m", "compressor", "--help"]
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background ignores interrupts, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
