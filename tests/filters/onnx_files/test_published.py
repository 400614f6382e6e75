"""The published extraction of two toy networks, row for row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compressor.filters import read_onnx
from compressor.filters.onnx_files import OnnxBanks

# The columns of the golden array `info`, in order; its name array is pickled and is not read here.
COLUMNS = ("start", "end", "model", "layer_id", "node", "conv_depth", "norm", "in_channels", "out_channels")


@pytest.fixture
def golden(shared: Path) -> np.lib.npyio.NpzFile:
    return np.load(shared / "golden" / "filterdb_extract.npz", allow_pickle=False)


@pytest.fixture
def found(golden: np.lib.npyio.NpzFile, tmp_path: Path) -> list[OnnxBanks]:
    read = []
    for name in golden["model_names"]:
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(golden[f"onnx__{name}"].tobytes())
        read.append(read_onnx(file))
    return read


def test_rows_depths_ids_and_order_equal_the_published_pipelines(
    golden: np.lib.npyio.NpzFile, found: list[OnnxBanks]
) -> None:
    rows, start = [], 0
    for number, file in enumerate(found):
        for bank, depth in zip(file.banks, file.node_depths, strict=True):
            out, into = bank.weight.shape[:2]
            place = (bank.layer_id, depth, bank.conv_depth, bank.conv_depth_norm)
            rows.append((start, start + bank.count, number, *place, into, out))
            start += bank.count
    assert len(COLUMNS) == golden["info"].shape[1]
    np.testing.assert_array_equal(np.array(rows, dtype=float), golden["info"])
    kernels = np.concatenate([bank.kernels.numpy() for file in found for bank in file.banks])
    np.testing.assert_array_equal(kernels.reshape(-1, 3, 3).astype(float), golden["filters"])
    ids = [f"{first}:{end - 1}" for first, end, *_ in rows]
    assert ids == golden["filter_ids"].tolist()


def test_the_published_meta_columns_are_said(golden: np.lib.npyio.NpzFile, found: list[OnnxBanks]) -> None:
    mixed, residual = (file.facts.columns() for file in found)
    assert mixed == {
        "producer": "golden ",
        "op_set": 13,
        "depth": 7,
        "Conv": 6,
        "ConvTranspose": 1,
        "(5, 5) filters": 18,
        "(3, 3) filters": 64,
        "(1, 1) filters": 72,
        "(1, 3) filters": 25,
        "total_filters": 107,
        "3x3_filter_share": 64 / 107,
    }
    assert residual["Relu"] == residual["Add"] == 2
    assert (residual["depth"], residual["total_filters"], residual["3x3_filter_share"]) == (8, 184, 1.0)
    assert set(mixed) | set(residual) < set(golden["meta_columns"].tolist())
