"""The benchmark of widths and kernels: its small mode runs and goes on, and what its tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import filter_widths, results
from benchmarks.filter_widths_tables import tables

SCHEDULE = {"epochs": 2, "scratch_epochs": 6, "train": 4000, "test": 4}


def row(part: str, method: str, seed: int, **right: str) -> dict[str, Any]:
    facts = {"macs": 0.3, "params": 0.25, "widths": {}, "error": 0.5}
    fraction = 1.0 if part == "kernels" else 0.3
    return {"part": part, "method": method, "fraction": fraction, "seed": seed, "right": right, **facts}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_small_mode_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    assert filter_widths.main(["--quick", "--parts", "pruned", "scratch"]) == 0
    assert "3 to go" in capsys.readouterr().out
    assert filter_widths.main(["--quick"]) == 0
    assert "3 runs are done, 2 to go" in capsys.readouterr().out
    found = results.read("filter_widths-quick")
    assert found is not None
    runs = found["rows"]["runs"]
    assert [run["part"] for run in runs] == ["pruned", "pruned", "scratch", "kernels", "kernels"]
    assert all(run["macs"] <= 0.3 for run in runs[:3])
    assert all(len(bits) == 32 for run in runs for bits in run["right"].values())
    assert runs[3]["error"] == 0  # the network as it is
    assert set(found["rows"]["latency"]) == {runs[3]["method"], runs[4]["method"]}
    assert (tmp_path / "filter_widths-quick.md").is_file()


def test_differences_to_uniform_widths_are_paired_by_seed() -> None:
    runs = [
        *(row("scratch", "uniform", seed, trained=bits) for seed, bits in enumerate(("1000", "1110"))),
        *(row("scratch", "spectral", seed, trained=bits) for seed, bits in enumerate(("1100", "1111"))),
    ]
    (table,) = tables({"runs": runs, "latency": {}, "schedule": SCHEDULE})
    assert table.rows[0][-1] == "-"
    assert table.rows[1][-1] == "+25.0 ± 0.0"


def test_kernels_show_their_time_where_it_was_measured() -> None:
    rights = {"cut": "1000", "norms": "1100", "tuned": "1111"}
    runs = [row("kernels", name, 0, **rights) for name in ("as it is", "k = 9")]
    latency = {"k = 9": {"ms": 1.0, "times": 1.5, "range": [1.4, 1.6]}}
    (table,) = tables({"runs": runs, "latency": latency, "schedule": SCHEDULE})
    assert table.rows[0] == ("as it is", "0.300", "-", "0.5", "25.0", "50.0", "100.0")
    assert table.rows[1][2] == "1.50 (1.40-1.60)"


def test_runs_of_another_schedule_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    rows = {"runs": [], "latency": {}, "schedule": {"epochs": 9}}
    results.write_json(tmp_path / "filter_widths-quick.json", {"rows": rows})
    with pytest.raises(SystemExit, match="'epochs': 9"):
        filter_widths.main(["--quick"])
