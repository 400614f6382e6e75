"""A tiny model in a file of its own, and the command line run on it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from compressor.cli import app

SOURCE = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        print("Tiny speaks")
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((2, 3)))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.q, self.k, self.v = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(8, 15)
        self.out = nn.Linear(15, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.embed(x)
        q, k, v = (p(x).unflatten(-1, (3, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        read = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.head((x + self.out(read.transpose(1, 2).flatten(2))).mean(1))


class Nets:
    build = staticmethod(Tiny)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.hidden = nn.Linear(8, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, tokens, scale):
        return self.out(torch.relu(self.hidden(self.embed(tokens) * scale)))


def batches():
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        yield torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 1, 2, 3])


def largest(weight, axis):
    return weight.abs().transpose(0, axis).flatten(1).amax(1)


net = Tiny()
needs_arguments = nn.Conv2d
gives_a_number = lambda: 3
number = 3
"""

IMAGE = ("--input", "2x3x8x8")


@dataclass(frozen=True)
class Outcome:
    """What a run of the command line left: `words` are stderr without frames and line breaks."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        return " ".join(self.err.replace("│", " ").split())

    @property
    def data(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with `tiny_net.py` in it."""
    (tmp_path / "tiny_net.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("tiny_net", None)


@pytest.fixture
def run(here: Path) -> Run:
    """Runs the command line within this process."""

    def call(*args: str | Path) -> Outcome:
        result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def module(here: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module `tiny_net`, for checks that do without the command line."""
    monkeypatch.syspath_prepend(here)
    return importlib.import_module("tiny_net")


@pytest.fixture
def tiny(module: ModuleType) -> nn.Module:
    """The model that the commands build from `tiny_net:Tiny` with the default seed."""
    torch.manual_seed(0)
    net: nn.Module = module.Tiny()
    return net.eval()
