"""Saved models whose forwards are patched."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.core.patching import patches_of
from compressor.core.plan import Cut, Patch, Plan
from compressor.core.surgery import apply, plan_of, signature_of
from compressor.persistence import load, save
from compressor.persistence.load_model import LoadError
from compressor.persistence.load_model import load as load_plain


class Reshaped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)).reshape(-1, 8))


def saved(folder: Path) -> nn.Module:
    """A `Reshaped` without its first two hidden channels, saved in the folder."""
    model = Reshaped()
    keep = tuple(range(2, 8))
    cuts = (
        Cut("first.weight", 0, 8, keep, "writer"),
        Cut("first.bias", 0, 8, keep, "writer"),
        Cut("second.weight", 1, 8, keep, "reader"),
    )
    patches = (Patch("", "torch.Tensor.reshape", 0, "2", 8, 6),)
    small = apply(model, Plan(cuts, (), signature_of(model), patches=patches))
    save(small, folder)
    return small


def test_a_loaded_model_is_patched(tmp_path: Path) -> None:
    small, x = saved(tmp_path), torch.randn(5, 4)
    loaded = load(tmp_path, Reshaped)
    assert torch.equal(loaded(x), small(x))
    assert patches_of(loaded) == patches_of(small)
    assert plan_of(loaded) == plan_of(small)
    assert torch.equal(load_plain(Reshaped, tmp_path)(x), small(x))


def test_without_the_library_the_loader_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    monkeypatch.setitem(sys.modules, "compressor.core.surgery", None)
    with pytest.raises(LoadError, match=r"reshape, call 1, argument 2: 8 -> 6.*install compressor"):
        load_plain(Reshaped, tmp_path)


def test_the_plan_file_has_a_version_that_older_libraries_refuse(tmp_path: Path) -> None:
    saved(tmp_path)
    assert json.loads((tmp_path / "plan.json").read_text())["version"] == 2
