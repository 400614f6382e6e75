"""A small network, and evaluations of it that other processes can import."""

from __future__ import annotations

import os
import signal
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

WIDTHS = (12, 20, 8)
WORTH = (3.0, 1.0, 0.5)


def network(seed: int = 0) -> nn.Sequential:
    """Three hidden layers of 12, 20 and 8 channels."""
    torch.manual_seed(seed)
    sizes = (6, *WIDTHS, 3)
    layers: list[nn.Module] = []
    for entering, leaving in pairwise(sizes):
        layers += [nn.Linear(entering, leaving), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def widths(net: nn.Module) -> list[int]:
    """The hidden widths of such a network."""
    return [len(net[place].weight) for place in (0, 2, 4)]  # type: ignore[index]


def by_width(net: nn.Module) -> float:
    """1 minus what lost channels are worth: the square of each layer's lost share, weighted."""
    lost = [1 - now / before for now, before in zip(widths(net), WIDTHS, strict=True)]
    return 1 - sum(worth * share**2 for worth, share in zip(WORTH, lost, strict=True))


def noisy(net: nn.Module) -> float:
    """A quality that depends on the random state."""
    return by_width(net) + torch.rand(()).item()


def dying(net: nn.Module) -> float:
    """Ends the process at once for a network with fewer than 16 channels in the second layer."""
    if widths(net)[1] < 16:
        os.kill(os.getpid(), signal.SIGKILL)
    return by_width(net)


def logged(net: nn.Module) -> float:
    """`by_width`, and a line in the file that CALLS names."""
    with Path(os.environ["CALLS"]).open("a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {widths(net)}\n")
    return by_width(net)
