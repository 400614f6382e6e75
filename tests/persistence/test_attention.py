"""Saved models with cut attention: the forward that follows its sizes comes back with the weights."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import FileError
from compressor.persistence import load_model


def build() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 10, dropout=0.1, batch_first=True)
    return nn.Sequential(nn.Linear(6, 12), layer, nn.Linear(12, 2)).eval()


X = torch.randn(2, 5, 6)


@pytest.fixture
def small() -> nn.Module:
    return cp.prune(build(), X, budget=cp.budget.Uniform(0.5))


def test_a_saved_attention_comes_back(small: nn.Module, tmp_path: Path) -> None:
    cp.save(small, tmp_path)
    again = cp.load(tmp_path, build)
    assert torch.equal(again(X), small(X))
    again.train()(X).sum().backward()


def test_without_the_library_the_loader_says_what_is_needed(
    small: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cp.save(small, tmp_path)
    monkeypatch.setitem(sys.modules, "compressor.core.surgery", None)
    with pytest.raises(load_model.LoadError, match=r"'1.self_attn' was cut to sizes.*pip install compressor"):
        load_model.load(build, tmp_path)


def test_another_network_is_still_refused(small: nn.Module, tmp_path: Path) -> None:
    cp.save(small, tmp_path)
    with pytest.raises(FileError, match="is not its original"):
        cp.load(tmp_path, lambda: nn.Linear(3, 4))


def test_copies_pickles_exports_and_compiled_ones_compute_the_same(small: nn.Module) -> None:
    expected = small(X)
    torch.testing.assert_close(copy.deepcopy(small)(X), expected)
    torch.testing.assert_close(pickle.loads(pickle.dumps(small))(X), expected)
    torch.compiler.reset()
    compiled = torch.compile(small, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), expected)
    batch = torch.export.Dim("batch", min=2, max=8)
    program = torch.export.export(small, (X,), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(torch.cat([X, X])), small(torch.cat([X, X])))


def test_a_cut_attention_is_cut_again(small: nn.Module) -> None:
    smaller = cp.prune(small, X, budget=cp.budget.Uniform(0.3))
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in small.parameters())
