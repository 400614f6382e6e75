"""Small networks in a file of their own, which a fresh process can import without this library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from compressor.core.capture import capture
from compressor.core.surgery import apply

NETS = '''
import torch
from torch import nn
from torch.nn.utils import parametrizations


class Plain(nn.Module):
    def __init__(self, width=12):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv1(x)))
        x = self.conv2(x)
        return self.fc(torch.relu(x).mean((2, 3)))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.expand = nn.Conv2d(3, 16, 1)
        self.depth = nn.Conv2d(16, 16, 3, groups=16)
        self.bn = nn.BatchNorm2d(16)
        self.project = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = nn.functional.relu6(self.expand(x))
        return self.project(nn.functional.relu6(self.bn(self.depth(x))))


class Tied(nn.Module):
    def __init__(self, tie=True):
        super().__init__()
        self.stem = nn.Linear(6, 10)
        self.a = nn.Linear(10, 10)
        self.b = nn.Linear(10, 10)
        self.head = nn.Linear(10, 3)
        if tie:
            self.b.weight = self.a.weight

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = parametrizations.weight_norm(nn.Conv2d(3, 10, 3))
        self.conv2 = parametrizations.spectral_norm(nn.Conv2d(10, 4, 3))

    def forward(self, x):
        return self.conv2(torch.relu(self.conv1(x)))


class OldNormed(nn.Module):
    def __init__(self):
        super().__init__()
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.conv1 = nn.utils.weight_norm(nn.Conv2d(3, 10, 3))
        self.conv2 = nn.Conv2d(10, 4, 3)

    def forward(self, x):
        return self.conv2(torch.relu(self.conv1(x)))


class Written(nn.Module):
    """Its forward reads sizes from its own attributes."""

    def __init__(self):
        super().__init__()
        self.halves = [6, 6]
        self.proj = nn.Linear(5, 12)
        self.left = nn.Linear(6, 2)
        self.right = nn.Linear(6, 2)

    def forward(self, x):
        a, b = self.proj(x).split(self.halves, dim=1)
        return self.left(torch.relu(a)) + self.right(torch.relu(b))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 10, 3, padding=1)
        self.lstm = nn.LSTM(10, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.lstm(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1])


def make_plain():
    return Plain(width=12)
'''

SHAPES = {
    "Plain": (2, 3, 8, 8),
    "Depthwise": (2, 3, 8, 8),
    "Tied": (2, 6),
    "Normed": (2, 3, 8, 8),
    "OldNormed": (2, 3, 8, 8),
    "Written": (2, 5),
    "Recurrent": (2, 4, 9),
}


@pytest.fixture
def nets(tmp_path: Path) -> ModuleType:
    """The module of networks, at `nets.__file__`."""
    path = tmp_path / "code" / "some_nets.py"
    path.parent.mkdir()
    path.write_text(NETS, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("some_nets", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example_of() -> Callable[[str], torch.Tensor]:
    """Inputs of a network, by its name."""
    return lambda name: torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cut_some() -> Callable[..., nn.Module]:
    """A function that removes a random third of the ranks of every group of a model."""

    def cut(model: nn.Module, x: torch.Tensor, seed: int = 0) -> nn.Module:
        scramble(model)
        graph = capture(model, x)
        rng = np.random.default_rng(seed)
        removed = np.zeros(graph.n_units, dtype=bool)
        for group in graph.groups:
            for cell in group.cells:
                removed[rng.permutation(cell)[: max(1, group.size // 3) if group.size > 1 else 0]] = True
        assert removed.any()
        return apply(model, graph.plan(removed)).eval()

    return cut


def scramble(model: nn.Module) -> None:
    """Make running statistics differ from channel to channel, as training does."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
