"""The tables that recipes write."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/recipes/results.py, a script's neighbour."""
    monkeypatch.syspath_prepend(ROOT / "examples/recipes")
    monkeypatch.delitem(sys.modules, "results", raising=False)
    return importlib.import_module("results")


def test_a_table_is_written_twice_and_names_no_folder(
    results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/me/espcn.py", "--data", "/home/me/images", "--quick"])
    rows = [{"network": "a|b", "MACs": 12_345, "dB": 30.391}, {"network": "same", "dB": math.inf}]
    text = results.write(tmp_path / "new", "Set5", rows, notes=("one thread",), facts={"seed": 3})
    assert text.splitlines() == [
        "### Set5",
        "",
        "| network | MACs | dB |",
        "| :--- | ---: | ---: |",
        "| a\\|b | 12,345 | 30.39 |",
        "| same |  | inf |",
        "",
        "one thread  ",
    ]
    assert (tmp_path / "new/results.md").read_text() == text + "\n"
    content = json.loads((tmp_path / "new/results.json").read_text())
    assert content["command"] == "python espcn.py --data images --quick"
    assert content["rows"] == [rows[0], {"network": "same", "dB": "inf"}]
    assert content["facts"] == {"seed": 3} and content["versions"]["torch"]
