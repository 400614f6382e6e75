"""Independent counts and, where it is installed, torchvision as an oracle for the networks."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn


@pytest.fixture(scope="session")
def count_macs() -> Callable[[nn.Module, int], int]:
    """MACs of convolutions and linear layers on one square image, counted by fvcore.

    Papers count these alone; fvcore's count of BatchNorm is left out.
    """

    def count(model: nn.Module, pixels: int) -> int:
        analysis = FlopCountAnalysis(model.eval(), torch.zeros(1, 3, pixels, pixels))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analysis.by_operator()
        return int(by_operator["conv"] + by_operator["linear"])

    return count


@pytest.fixture(scope="session")
def torchvision_models(request: pytest.FixtureRequest) -> ModuleType:
    """torchvision.models; skipped where torchvision is absent (the library does not need it)."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed: no second implementation to compare with")
    if torch.version.cuda is None:
        _declare_operators(request.getfixturevalue("shared"))
    return importlib.import_module("torchvision.models")


def _declare_operators(shared: Path) -> None:
    """Not every torch has a CPU build of torchvision; the shared file lets others be imported."""
    path = shared / "zoo" / "torchvision_on_cpu_torch.py"
    if "torchvision" in sys.modules or not path.is_file():
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # kept: the declarations live as long as the module
    spec.loader.exec_module(module)
