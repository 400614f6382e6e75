"""What the benchmark of low precision makes of a comparison."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import low_precision
from compressor.export import Fidelity, FileComparison, FileRow
from compressor.profiling import Latency, Timing

FOUND = FileComparison(
    (
        FileRow(Path("out/base.onnx"), 2000, Fidelity(4, {"y": float("inf")}, {"y": 1.0}), 0.75),
        FileRow(Path("out/small.onnx"), 500, Fidelity(4, {"y": 20.04}, {"y": 0.5}), 0.5),
    ),
    Latency((Timing(2, 1, 3, 1, 1, 1), Timing(1, 1, 1, 2, 1.5, 3)), 9, "a clock", "a runtime"),
)


def test_a_row_for_each_file_against_the_first() -> None:
    table = low_precision._table("title", FOUND)
    assert table.rows == (
        ("base.onnx", "2,000", "1.00", "inf", "100.0", "75.0", "2.000", "1.00", "1.00-1.00"),
        ("small.onnx", "500", "0.25", "20.0", "50.0", "50.0", "1.000", "2.00", "1.50-3.00"),
    )
    assert "4 test images" in table.notes[0] and "9 interleaved rounds" in table.notes[0]


def test_numbers_for_json_hold_no_infinity_and_no_folder() -> None:
    plain = low_precision._plain(FOUND)
    text = json.dumps(plain, allow_nan=False)
    assert "out/" not in text
    assert [file["fidelity"]["sqnr_db"]["y"] for file in plain["files"]] == [None, 20.04]
