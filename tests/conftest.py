"""What every test gets: fixed seeds, one thread, and the shared data folder where there is one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--shared",
        type=Path,
        default=None,
        help="folder with data sets and checkpoints (default: $COMPRESSOR_SHARED, else ../shared)",
    )
    parser.addoption(
        "--fuzz-examples",
        type=int,
        default=None,
        help="how many random examples each test of tests/fuzz runs (default: a dozen, always the same)",
    )
    parser.addoption("--fuzz-seed", type=int, default=None, help="where their random numbers start")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries that draw from the global state are the reason
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest) -> Path:
    """The folder of shared data; a test that asks for it is skipped where the folder is absent."""
    named = request.config.getoption("--shared") or os.environ.get("COMPRESSOR_SHARED")
    folder = Path(named) if named else ROOT.parent / "shared"
    if folder.is_dir():
        return folder
    if named:  # a folder asked for by name and absent is a mistake, not a machine without data
        pytest.fail(f"the shared data folder {folder} does not exist")
    pytest.skip(f"no shared data at {folder}: name the folder with --shared or COMPRESSOR_SHARED")
