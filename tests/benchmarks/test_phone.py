"""The phone benchmark: what its tables compute, what is measured again, which files are taken for whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import phone_files
from benchmarks.phone_files import BASE, aware, int8_of, plain
from benchmarks.phone_measures import MEASURES, Subject
from benchmarks.phone_tables import tables
from benchmarks.results import Table, write_json

BOTH = ("default", "extended")


def _timing(speedup: float) -> dict[str, float]:
    return {"speedup": speedup, "speedup_p10": speedup - 0.1, "speedup_p90": speedup + 0.1}


def _row() -> dict[str, Any]:
    """A network of 8 M MACs; its cuts have 4 M, and are 1.7 and 1.5 times as fast."""
    small = {"macs": 4_000_000, "params": 10_000, "bytes": 50_000}
    cuts = {name(level): dict(small) for level in BOTH for name in (aware, plain)}
    timings = {BASE: _timing(1.0), **{aware(b): _timing(1.7) for b in BOTH}}
    timings |= {plain(level): _timing(1.5) for level in BOTH} | {int8_of(BASE): _timing(2.0)}
    return {
        "network": "net",
        "weights": "trained",
        "variants": {
            BASE: {"macs": 8_000_000, "params": 20_000, "bytes": 100_000},
            **cuts,
            int8_of(BASE): {"bytes": 25_000, "sqnr_db": 40.0, "agreement": 0.995},
            int8_of(aware("default")): {"refused": "3 dB"},
        },
        "measured": {level: dict(timings) for level in BOTH},
        "skipped": {"arm64": "qemu-aarch64 is not installed"},
    }


def _column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_speed_up_is_held_against_the_macs_at_each_level() -> None:
    table = tables([_row()])[2]
    assert _column(table, "optimisation") == ["default", "default", "extended", "extended"]
    assert _column(table, "cut") == ["by the table", "any"] * 2
    assert _column(table, "fewer MACs") == ["2.00x"] * 4
    assert _column(table, "speed-up / MACs") == ["0.85", "0.75"] * 2
    assert _column(table, "goal 0.8") == ["met", ""] * 2


def test_a_cut_that_gains_less_time_than_it_should_misses_the_goal() -> None:
    row = _row()
    row["measured"]["default"][aware("default")] = _timing(1.59)
    assert _column(tables([row])[2], "goal 0.8")[0] == "missed"


def test_int8_has_the_macs_of_its_network_and_ratios_to_the_baseline_in_fp32() -> None:
    costs, ratios, _ = tables([_row()])
    assert _column(costs, "file") == ["baseline fp32", "pruned fp32", "baseline int8", "pruned int8"]
    assert _column(costs, "MACs (M)") == ["8.0", "4.0", "8.0", "4.0"]
    assert _column(costs, "top-1 as fp32 (%)") == ["-", "-", "99.5", "-"]
    assert _column(ratios, "smaller file") == ["1.00x", "2.00x", "4.00x"]
    assert _column(ratios, "extended") == ["1.00x (0.90-1.10)", "1.70x (1.60-1.80)", "2.00x (1.90-2.10)"]


def test_what_is_refused_or_skipped_is_said_below_the_table() -> None:
    costs, ratios, _ = tables([_row()])
    assert f"net: {int8_of(aware('default'))}: 3 dB" in costs.notes
    assert "net: arm64 skipped: qemu-aarch64 is not installed" in costs.notes
    assert "pruned int8" not in _column(ratios, "file")
    assert set(_column(ratios, "fewer")) == {"-"}


def test_agreement_of_a_random_network_is_not_shown() -> None:
    costs = tables([{**_row(), "weights": "random"}])[0]
    assert set(_column(costs, "top-1 as fp32 (%)")) == {"-"}


def test_files_of_an_earlier_run_count_only_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "baseline.onnx"
    file.write_bytes(b"whole")
    facts = {BASE: {"sha256": phone_files.digest(file), "macs": 1}}
    write_json(tmp_path / "manifest.json", {"files": {BASE: file.name}, "facts": facts})
    kept = phone_files._kept(tmp_path)
    assert kept is not None and kept.paths == {BASE: file} and kept.facts == facts
    file.write_bytes(b"half")
    assert phone_files._kept(tmp_path) is None


def test_accuracy_is_the_share_of_images_whose_class_the_file_names(tmp_path: Path) -> None:
    file = _identity(tmp_path)
    images, labels = torch.eye(4).flip(0), torch.tensor([3, 2, 1, 1])  # classes 3, 2, 1, 0
    subject = Subject({BASE: file}, images[:1], (images, labels), 1, None)
    assert MEASURES["accuracy"](subject) == {BASE: {"share": 0.75, "images": 4}}
    assert MEASURES["accuracy"](Subject({BASE: file}, images[:1], None, 1, None)) == {}


def _identity(folder: Path) -> Path:
    """A file whose class scores [1, 4] are its inputs."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "identity.onnx")
    return folder / "identity.onnx"
