"""Every Python block of the README runs, in its order, on a model of one's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor.export.bench.web_runtime import cached
from tests.conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)


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
    """A residual network with the names that the README uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.layer3 = nn.Sequential(Block(32), Block(32))
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer3(self.stem(x)).mean((2, 3)))


@pytest.mark.filterwarnings("ignore")
def test_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    fetched = cached()
    if fetched is not None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache" / fetched.folder.name).symlink_to(fetched.folder)
    monkeypatch.setenv("COMPRESSOR_CACHE", str(tmp_path / "cache"))  # what is measured here stays here
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.rand(16, 3, 8, 8, generator=generator), torch.randint(4, (16,), generator=generator))
        for _ in range(3)
    ]
    assert len(BLOCKS) >= 5
    names = {
        "model": Net().eval(),
        "x": torch.rand(2, 3, 8, 8),
        "build": Net,
        "cross_entropy": cross_entropy,
        "batches": batches,
        "loader": batches,
        "held_out": batches[:1],
    }
    with_page = [block for block in BLOCKS if "export.mobile(" in block]
    assert len(with_page) == 1
    for block in BLOCKS:
        if block not in with_page or fetched is not None:
            exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "small.onnx").is_file()
    if fetched is None:
        pytest.skip("all but the block that writes a bench page: onnxruntime-web is not fetched (make env)")
    assert (tmp_path / "out/manifest.json").is_file()
