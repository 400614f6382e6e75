"""onnxruntime-web for the tests that run it, and tiny networks in files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from compressor.export.bench import web_runtime


@pytest.fixture(scope="session")
def runtime() -> web_runtime.WebRuntime:
    """onnxruntime-web; a test that asks for it is skipped where it has not been fetched."""
    found = web_runtime.cached()
    if found is None:
        pytest.skip(f"{web_runtime.NAME} is not in the cache: run `{web_runtime.COMMAND}`")
    return found


@pytest.fixture(scope="session")
def images() -> npt.NDArray[np.float32]:
    """Six images [6, 3, 8, 8]."""
    return np.random.default_rng(1).standard_normal((6, 3, 8, 8), dtype=np.float32)
