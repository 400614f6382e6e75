"""The ECG recipe from end to end at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from tests.examples.test_recipes import run

RECIPE = "ecg_rhythms.py"


def found(folder: Path) -> dict[str, dict[str, object]]:
    """The rows of the table by their first column."""
    return {row["network"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}


def test_quick_runs_from_simulated_rhythms_to_files(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    run(RECIPE, "--quick", "--model", "ecg_cnn_lstm", "--out", str(tmp_path))
    rows = found(tmp_path)
    assert list(rows) == ["original", "50% of the MACs"]
    original, small = rows.values()
    assert original["parameters"] == 63_268 and small["MACs"] <= 0.5 * original["MACs"]  # type: ignore[operator]
    loaded = cp.load(tmp_path / "50-of-the-MACs", lambda: cp.models.create("ecg_cnn_lstm"))
    assert isinstance(loaded.lstm, nn.LSTM) and loaded.lstm.hidden_size < 64
    assert sum(p.numel() for p in loaded.parameters()) == small["parameters"]
    net = cp.models.create("ecg_cnn_lstm")
    net.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    for file in ("0.onnx", "1.onnx"):
        assert (tmp_path / file).is_file()
