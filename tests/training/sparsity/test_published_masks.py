"""The authors' mask for ResNet-50 makes a plan of the size that was measured with their code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.profiling import cost
from compressor.training.sparsity import Decay, MaskSparsity


class Bottleneck(nn.Module):
    def __init__(self, c: int, inner: int, stride: int) -> None:
        super().__init__()
        out = 4 * inner
        self.f = nn.Module()
        self.f.a, self.f.a_bn = nn.Conv2d(c, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.f.b = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.f.b_bn = nn.BatchNorm2d(inner)
        self.f.c, self.f.c_bn = nn.Conv2d(inner, out, 1, bias=False), nn.BatchNorm2d(out)
        if c != out:
            self.proj, self.bn = nn.Conv2d(c, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        short = self.bn(self.proj(x)) if hasattr(self, "proj") else x
        f = self.f
        x = torch.relu(f.b_bn(f.b(torch.relu(f.a_bn(f.a(x))))))
        return torch.relu(short + f.c_bn(f.c(x)))


class ResNet50(nn.Module):
    """With the names that the authors' code gives its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv, self.stem.bn = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        c = 64
        for stage, (blocks, inner) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
            made = nn.Sequential()
            for block in range(1, blocks + 1):
                stride = 2 if block == 1 and stage > 1 else 1
                made.add_module(f"b{block}", Bottleneck(c, inner, stride))
                c = 4 * inner
            self.add_module(f"s{stage}", made)
        self.fc = nn.Linear(c, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.stem.bn(self.stem.conv(x))), 3, 2, 1)
        return self.fc(self.s4(self.s3(self.s2(self.s1(x)))).mean((2, 3)))


@pytest.fixture(scope="module")
def masks(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "masksparsity_schedule_and_published_masks.npz") as arrays:
        return {n.partition("/")[2]: arrays[n] for n in arrays.files if n.startswith("r50_flops70/")}


def test_the_published_mask_is_a_plan(masks: dict[str, np.ndarray]) -> None:
    """The numbers are those of the analysis of the file: 33 layers, 5533 of 7616, 69.99 % and 72.6 %."""
    assert len(masks) == 33 and sum(int(keep.sum()) for keep in masks.values()) == 5533
    net = ResNet50()
    graph = cp.capture(net, torch.rand(1, 3, 224, 224))
    removed = np.zeros(graph.n_units, dtype=bool)
    for axis in graph.axes:
        layer, _, kind = axis.tensor.rpartition(".")
        if kind == "weight" and layer in masks:
            removed[axis.units[~masks[layer]]] = True
    plan = graph.plan(removed)
    assert cost.macs(graph).total() == pytest.approx(4089.2e6, rel=1e-3)
    assert cost.macs(graph).total(removed) / cost.macs(graph).total() == pytest.approx(0.6999, abs=1e-4)
    assert cost.params(graph).total(removed) / cost.params(graph).total() == pytest.approx(0.726, abs=1e-3)
    found = {push.slices.name: push.slices for push in MaskSparsity(plan, graph, Decay(9)).pushes}
    assert set(found) == {f"{layer}.weight" for layer in masks}
    for layer, keep in masks.items():
        assert np.array_equal(found[f"{layer}.weight"].channels, np.flatnonzero(~keep)), layer
