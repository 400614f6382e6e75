"""The ECG recipe from end to end at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.data import ecg
from tests.data.ecg.wfdb_writing import write
from tests.examples.test_recipes import run

RECIPE = "ecg_rhythms.py"


def found(folder: Path) -> dict[str, dict[str, object]]:
    """The rows of the table by their first column."""
    return {row["network"]: row for row in json.loads((folder / "results.json").read_text())["rows"]}


def test_quick_runs_from_simulated_rhythms_to_files(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
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
    x = torch.randn(10, 120, 50)
    with torch.no_grad():
        for file, model in (("original.onnx", net.eval()), ("50-of-the-MACs.onnx", loaded.eval())):
            session = onnxruntime.InferenceSession(tmp_path / file)
            output = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
            torch.testing.assert_close(output, model(x), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_same_command_again_repeats_no_training(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    arguments = ("--quick", "--macs", "--out", str(tmp_path), "--leaking")
    run(RECIPE, *arguments)
    first, time = found(tmp_path), (tmp_path / "original.pt").stat().st_mtime_ns
    run(RECIPE, *arguments)
    assert (tmp_path / "original.pt").stat().st_mtime_ns == time
    for name, row in found(tmp_path).items():
        assert row["images"] == first[name]["images"]
    assert list(first) == ["original", "original, images split (leaks)"]


CODES = {"SB": "426177001", "AFIB": "164889003", "GSVT": "426761007", "SR": "426783006"}


def wfdb_folder(folder: Path, records: int) -> None:
    """Simulated rhythms as WFDB files, and one broken file among them."""
    made = ecg.simulate(torch.arange(records) % 4, generator=torch.Generator().manual_seed(0))
    for name, signals, label in zip(made.names, made.signals_mV, made.labels.tolist(), strict=True):
        counts = (1000 * signals).round().short().numpy()
        write(folder / "WFDBRecords" / "01", name, counts, codes=CODES[made.classes[label]])
    write(folder / "WFDBRecords" / "02", "broken", counts, data=b"no MATLAB file")


@pytest.mark.slow
def test_wfdb_files_are_read_and_broken_ones_named(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    wfdb_folder(tmp_path, 24)
    arguments = ("--quick", "--data", str(tmp_path), "--macs", "--out", str(tmp_path / "out"))
    assert "broken" in run(RECIPE, *arguments, fails=True)
    output = run(RECIPE, *arguments, "--skip-broken")
    assert "6 SB, 6 AFIB, 6 GSVT, 6 SR" in output and "left out: 1 " in output


@pytest.mark.slow
@pytest.mark.shared
def test_every_ludb_record_is_tested_once_in_each_repeat(tmp_path: Path, shared: Path) -> None:
    run(RECIPE, "--quick", "--out", str(tmp_path / "simulated"))
    file, saved = shared / "data" / "ecg_ludb" / "ludb.npz", tmp_path / "simulated" / "50-of-the-MACs"
    begin = ("--checkpoint", str(tmp_path / "simulated" / "weights.pt"), "--also", str(saved))
    run(RECIPE, "--quick", "--ludb", str(file), "--repeats", "2", *begin, "--out", str(tmp_path / "ludb"))
    facts = json.loads((tmp_path / "ludb" / "results.json").read_text())["facts"]
    assert len(facts["confusions"]) == 6  # the original, its cut, and what was cut before, twice
    for confusion in facts["confusions"].values():
        assert [sum(row) for row in confusion] == [25, 18, 4, 153]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ecg_cnn1d", "ecg_cnn_lstm", "ecg_cnn2d"])
def test_simulated_rhythms_are_told_apart_with_half_of_the_macs_too(tmp_path: Path, model: str) -> None:
    pytest.importorskip("onnxruntime")
    options = ("--macs", "0.5", "--test-records", "400", "--workers", "0")
    run(RECIPE, "--model", model, *options, "--out", str(tmp_path))
    original, small = found(tmp_path).values()
    images, records, macro_f1 = (
        float(str(original[name]).split()[0]) for name in ("images", "records", "macro F1")
    )
    assert images >= 0.92 and records >= 0.95 and records > images
    assert small["MACs"] <= 0.5 * original["MACs"]  # type: ignore[operator]
    assert float(str(small["records"]).split()[0]) >= records - 0.01
    assert float(str(small["macro F1"]).split()[0]) >= macro_f1 - 0.01
