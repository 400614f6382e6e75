"""PMRF's place among the estimators where the truth is known, by the recipe that prints it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.test_recipes import run

Find = Callable[..., dict[str, float]]


def found(folder: Path, name: str) -> Find:
    """A row of a table by some of its columns."""
    rows = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"]

    def find(estimator: str, **columns: object) -> dict[str, float]:
        (row,) = [
            row
            for row in rows
            if row["estimator"].startswith(estimator) and all(row[key] == columns[key] for key in columns)
        ]
        return row  # type: ignore[no-any-return]

    return find


def test_quick_makes_both_tables_and_is_not_repeated(tmp_path: Path) -> None:
    first = run("pmrf_toys.py", "--quick", "--out", str(tmp_path))
    assert "PMRF on a mixture of eight Gaussians" in first and "PMRF on digits" in first
    find = found(tmp_path, "mixture")
    smallest = find("posterior mean", task="x₂ missing")["MSE"]
    assert find("posterior sampling", task="x₂ missing")["MSE"] == pytest.approx(2 * smallest, rel=0.3)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")}
    assert len(files) == 17
    assert run("pmrf_toys.py", "--quick", "--out", str(tmp_path)) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.pt")} == files


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_orderings_of_the_paper(tmp_path: Path) -> None:
    run("pmrf_toys.py", "--out", str(tmp_path), timeout=1100)
    find = found(tmp_path, "mixture")
    for task, conditional in (("denoise σ=0.8", "Y"), ("x₂ missing", "X*")):
        smallest = find("posterior mean", task=task)["MSE"]
        assert find("posterior sampling", task=task)["MSE"] == pytest.approx(2 * smallest, rel=0.02)
        other = find(f"flow conditioned on {conditional}", task=task, K=25)
        for noise in ("0.1", "0.0"):
            ours = find(f"PMRF σ_s={noise}", task=task, K=25)
            assert smallest < ours["MSE"] < 0.75 * other["MSE"]
            assert ours["energy distance"] < 1.3 * other["energy distance"]
            once = find(f"PMRF σ_s={noise}", task=task, K=1)
            assert once["MSE"] < 1.06 * smallest and once["energy distance"] > 1.3 * ours["energy distance"]
    same = find("flow from Y", task="denoise σ=0.8", K=25)["MSE"]
    assert same == pytest.approx(find("PMRF σ_s=0.1", task="denoise σ=0.8", K=25)["MSE"], rel=0.03)
    missing = find("flow from Y", task="x₂ missing", K=25)
    ours = find("PMRF σ_s=0.1", task="x₂ missing", K=25)
    assert missing["MSE"] > 4 * ours["MSE"] and missing["energy distance"] > 4 * ours["energy distance"]

    find = found(tmp_path, "digits")
    ours = find("PMRF σ_s=0.025", K=25)
    assert ours["MSE"] <= 1.25 * find("posterior mean")["MSE"]
    assert ours["MSE"] < 0.8 * find("flow conditioned on X*", K=25)["MSE"]
    others = [find(name, K=25) for name in ("flow conditioned on X*", "flow conditioned on Y", "flow from Y")]
    for other in [*others, find("posterior mean"), find("observation")]:
        assert ours["Fréchet distance"] < other["Fréchet distance"]
