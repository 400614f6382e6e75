"""Files with filters in them, made once, and copied to where a command runs."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch

from compressor.filters import Basis, FilterBank, SketchSetting, Store, StoreWriter, sketch_all
from tests.cli.conftest import SOURCE


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `store`, `all.parquet` (its sketches) and `tiny.onnx`."""
    folder = tmp_path_factory.mktemp("filters")
    draw = torch.Generator().manual_seed(0)
    with StoreWriter(folder / "store") as writer:
        for name, task in (("a", "Style"), ("b", "Style"), ("c", "Depth")):
            layers = [
                FilterBank(torch.randn(16, 8, 3, 3, generator=draw), f"conv{i}", layer_id=i) for i in (0, 1)
            ]
            writer.add(name, layers, metadata={"task": task})
    setting = SketchSetting(Basis.cosines((3, 3)))
    sketch_all(Store.open(folder / "store"), setting).write(folder / "all.parquet")
    names: dict[str, type[torch.nn.Module]] = {}
    exec(SOURCE, names)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter that folds batch norms itself
        example = (torch.zeros(2, 3, 8, 8),)
        torch.onnx.export(names["Tiny"]().eval(), example, folder / "tiny.onnx", dynamo=False)
    return folder


@pytest.fixture
def store(here: Path, made: Path) -> Path:
    """A store of three models with random kernels, two of one task and one of another."""
    return shutil.copytree(made / "store", here / "store")


@pytest.fixture
def sketches(here: Path, made: Path) -> Path:
    """The sketches of `store`, in the basis of cosines."""
    return Path(shutil.copy(made / "all.parquet", here))


@pytest.fixture
def onnx_file(here: Path, made: Path) -> Path:
    """`tiny_net:Tiny` exported, its batch norms folded by the exporter."""
    return Path(shutil.copy(made / "tiny.onnx", here))
