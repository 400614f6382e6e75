"""Files with filters in them, for the commands that read filters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.filters import FilterBank, StoreWriter


@pytest.fixture
def store(here: Path) -> Path:
    """A store of three models with random kernels, two of one task and one of another."""
    draw = torch.Generator().manual_seed(0)
    with StoreWriter(here / "store") as writer:
        for name, task in (("a", "Style"), ("b", "Style"), ("c", "Depth")):
            layers = [
                FilterBank(torch.randn(16, 8, 3, 3, generator=draw), f"conv{i}", layer_id=i) for i in (0, 1)
            ]
            writer.add(name, layers, metadata={"task": task})
    return here / "store"


@pytest.fixture
def onnx_file(here: Path, tiny: nn.Module) -> Path:
    """`tiny_net:Tiny` exported, its batch norms folded by the exporter."""
    path = here / "tiny.onnx"
    torch.onnx.export(tiny, (torch.zeros(2, 3, 8, 8),), path, dynamo=False)
    return path
