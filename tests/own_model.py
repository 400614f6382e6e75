"""The model and the data of one's own that the README and the pages of docs/ speak of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

__all__ = ["Net", "names_of_a_reader", "python_blocks"]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    """A residual network with the names that the pages use."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.layer3 = nn.Sequential(Block(32), Block(32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.stem(x)).mean((2, 3)))


def names_of_a_reader() -> dict[str, Any]:
    """What a reader has before the first block: a model, an input, batches, a way to build it anew."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(16, 3, 8, 8, generator=generator), torch.randint(4, (16,), generator=generator))
        for _ in range(3)
    ]
    return {
        "model": Net().eval(),
        "x": torch.rand(2, 3, 8, 8),
        "build": Net,
        "cross_entropy": cross_entropy,
        "batches": batches,
        "loader": batches,
        "held_out": batches[:1],
    }


def python_blocks(page: Path) -> list[str]:
    """The Python blocks of a Markdown page, in their order."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)
