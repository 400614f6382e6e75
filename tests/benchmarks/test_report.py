"""The results page and its figures are what the kept results say, and none of them is left out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import claims, report, results
from tests.conftest import ROOT


def test_the_page_is_what_the_results_say() -> None:
    assert report.PAGE.read_text(encoding="utf-8") == report.page(), "run: python -m benchmarks.report"


def test_the_figures_are_what_the_results_say(tmp_path: Path) -> None:
    drawn = {file.name: file for file in report.drawn(tmp_path)}
    assert {file.name for file in report.FIGURES.iterdir()} == {*drawn}
    kept = {name: report.FIGURES / name for name in drawn}
    if not all(map(report.same_matplotlib, kept.values())):
        pytest.skip("figures drawn by another version of matplotlib differ in their bytes")
    for name, file in drawn.items():
        assert kept[name].read_bytes() == file.read_bytes(), f"{name}: run python -m benchmarks.report"


def test_every_figure_is_on_the_page_with_words_for_it() -> None:
    shown = dict(re.findall(r"!\[(.*?)\]\(figures/(.*?)\)", report.PAGE.read_text(encoding="utf-8")))
    assert {*shown.values()} == {file.name for file in report.FIGURES.iterdir()}
    assert all(len(words) > 40 for words in shown)


def test_the_contents_lead_to_every_section() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    links = re.findall(r"^- \[(.*)\]\(#(.*)\)$", text, flags=re.MULTILINE)
    assert [title for title, _ in links] == titles and len(titles) >= len(claims.CLAIMS)
    assert dict(links)["Widths by the spectra of filters, kernels that share a basis"] == (
        "widths-by-the-spectra-of-filters-kernels-that-share-a-basis"
    )


def test_every_result_is_on_the_page() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    for folder in (results.FOLDER, report.RECIPES):
        files = sorted(folder.glob("*.json"))
        assert files
        for file in files:
            content = json.loads(file.read_text(encoding="utf-8"))
            assert file.stem in text, file
            assert content.get("context", content)["command"] in text, file


def test_a_new_result_changes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in results.FOLDER.glob("*.json"):
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    before = report.page()
    facts = {
        **json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))["context"],
        "command": "python -m benchmarks.new",
    }
    table = {"title": "New", "columns": ["a"], "rows": [["1"]], "notes": ["of one"], "words": [0]}
    (tmp_path / "new.json").write_text(
        json.dumps({"context": facts, "rows": [], "tables": [table]}), encoding="utf-8"
    )
    added = report.page()
    assert added != before
    assert "python -m benchmarks.new" in added and "### New" in added and "of one" in added


def test_who_is_faster_is_the_median_of_the_ratios() -> None:
    def network(name: str, *ratios: float) -> dict[str, object]:
        rounds = [{"ours": {"cpu_s": 2 * ratio}, "theirs_": {"cpu_s": 2.0}} for ratio in ratios]
        left = {"ours": 0.3, "theirs_": 0.3 if name == "a" else 0.2}
        return {"network": name, "rounds": rounds, "params_left": left}

    rows = {"networks": [network("a", 0.5, 0.7, 3.0), network("b", 1.2, 0.9, 1.1)]}
    said = claims.beside_torch_pruning([{"rows": rows}])
    assert said.endswith("see the parameters left: b.")
    assert "faster** on 1 of 2: a (0.70)" in said
    assert "Torch-Pruning is faster** on 1: b (1.10)" in said


def test_growth_is_held_against_that_of_torch_pruning() -> None:
    def row(series: str, units: int, ours: float, theirs: float) -> dict[str, object]:
        rounds = [{"ours": {"cpu_s": ours}, "theirs_": {"cpu_s": theirs}}]
        return {"series": series, "units": units, "operators": 10 * units, "rounds": rounds}

    rows = [
        *(row("layers", 2, 1.0, 1.0), row("layers", 4, 2.0, 3.0), row("layers", 6, 2.5, 6.0)),
        *(row("inner width", 2, 1.0, 2.0), row("inner width", 8, 1.5, 10.0)),
    ]
    assert claims.grown([{"rows": {"scaling": rows}}]) == (
        "Deeper: 3.0 times the operators take 2.5 times the time, Torch-Pruning 6.0 times. "
        "Wider: 4.0 times the units take 1.5 times the time, Torch-Pruning 5.0 times."
    )


def test_cuts_whose_time_lags_behind_their_macs_are_named() -> None:
    def row(network: str, speedup: float) -> dict[str, object]:
        levels = ("default", "extended")
        variants = {"baseline": {"macs": 8e6}, **{f"pruned, {level}": {"macs": 4e6} for level in levels}}
        measured = {level: {f"pruned, {level}": {"speedup": speedup}} for level in levels}
        return {"network": network, "variants": variants, "measured": measured}

    said = claims.macs_become_time([{"rows": [row("a", 1.8), row("b", 1.5)]}])
    assert "for 2 of 4: a, default (0.90), a, extended (0.90)." in said
    assert said.endswith("**Less** for 2: b, default (0.75), b, extended (0.75).")


def test_every_benchmark_that_the_readme_names_is_on_the_page() -> None:
    text = report.PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"python -m benchmarks\.(\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert len(named) >= 4
    assert [name for name in named if f"python -m benchmarks.{name}" not in text] == []
