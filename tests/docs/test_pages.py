"""Every Python block of every page in docs/ runs, in its order, on one's own model; so do the tutorials."""

from __future__ import annotations

import re
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.export.bench.web_runtime import cached
from tests.conftest import ROOT
from tests.own_model import Net, names_of_a_reader, python_blocks

DOCS = ROOT / "docs"
PAGES = {str(page.relative_to(DOCS)): page for page in sorted(DOCS.rglob("*.md"))}
WITH_PYTHON = [name for name, page in PAGES.items() if python_blocks(page)]
IMPORTED = {"spotter"}  # modules of tutorials
TUTORIALS = [script for script in sorted((DOCS / "tutorials").glob("*.py")) if script.stem not in IMPORTED]


def of_filters(names: dict[str, Any]) -> dict[str, Any]:
    """What the page on filters speaks of: a pruned model, two sets of kernels, a network to start, images."""
    return {
        "small": cp.prune(names["model"], names["x"], budget=cp.budget.Macs(0.5)),
        "kernels": torch.randn(400, 3, 3),
        "others": torch.randn(300, 3, 3),
        "net": nn.Sequential(OrderedDict(conv1=nn.Conv2d(3, 8, 3), act=nn.ReLU(), conv2=nn.Conv2d(8, 4, 3))),
        "images": [torch.rand(64, 3, 16, 16)],
    }


def of_phones(names: dict[str, Any]) -> dict[str, Any]:
    """What the page on phones speaks of: a pruned model, its classes, a batch of one."""
    facts = {"names": ["ant", "bee", "cat", "dog"], "mean": [0.5] * 3, "std": [0.25] * 3}
    return {"small": Net().eval(), "x": names["x"][:1], **facts}


FURTHER = {
    "filters.md": of_filters,
    "android-ios.md": of_phones,
}  # names that a page takes for granted beside the model and the batches

# What not every environment has: the call that needs it, its name, whether it is there.
NEEDS = {
    "export.mobile(": ("onnxruntime-web (make env)", lambda: FETCHED is not None),
    "export.executorch(": ("the extra `executorch`", lambda: find_spec("executorch") is not None),
}
FETCHED = cached()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pages write and measure stays in a folder of the test, which finds what was fetched before."""
    monkeypatch.chdir(tmp_path)
    if FETCHED is not None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / FETCHED.folder.name).symlink_to(FETCHED.folder)
    monkeypatch.setenv("COMPRESSOR_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_page_runs(name: str) -> None:
    absent = []
    names = names_of_a_reader()
    names.update(FURTHER[name](names) if name in FURTHER else {})
    for number, block in enumerate(python_blocks(PAGES[name]), start=1):
        lacking = [what for call, (what, there) in NEEDS.items() if call in block and not there()]
        if lacking:
            absent += [f"block {number}, which needs {what}" for what in lacking]
            continue
        exec(compile(block, f"{name}, block {number}", "exec"), names)
    if absent:
        pytest.skip(f"all but {', '.join(absent)}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("script", TUTORIALS, ids=lambda script: script.stem)
def test_the_tutorial_runs(
    script: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(script.parent)
    exec(compile(script.read_text(encoding="utf-8"), script.name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


def test_there_are_pages_and_tutorials() -> None:
    assert len(WITH_PYTHON) >= 8
    assert len(TUTORIALS) >= 3


@pytest.mark.parametrize("name", PAGES)
def test_no_python_hides_from_the_test(name: str) -> None:
    """A block is run only where its fence says `python` and nothing else, at the start of a line."""
    fences = re.findall(
        r"^[ ]*```\s*\{?(?:py|python|pycon)\b.*$", PAGES[name].read_text(encoding="utf-8"), re.M
    )
    assert [fence for fence in fences if fence != "```python"] == []
