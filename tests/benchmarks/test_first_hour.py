"""The timed way of a new user: the steps come from the tutorial, and a step that fails is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import first_hour


def test_the_tutorial_is_cut_where_its_numbers_stand() -> None:
    text = (first_hour.TUTORIALS / first_hour.SCRIPT).read_text(encoding="utf-8")
    parts = first_hour.sections(text)
    assert [title for title, _ in parts][:3] == ["imports", "Train it", "See what can go"]
    lines = text.splitlines()
    for _, code in parts:  # line numbers of errors are those of the script
        for number, line in enumerate(code.splitlines()):
            assert line in ("", lines[number])
    assert "".join(code.lstrip("\n") for _, code in parts) == text


def test_steps_are_timed_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "script.py").write_text("import math\n# 1. Think. A little.\nsum(range(1000))\n")
    (tmp_path / "pages" / "net.py").write_text("")
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(first_hour, "TUTORIALS", tmp_path / "pages")
    monkeypatch.setattr(first_hour, "SCRIPT", "script.py")
    monkeypatch.setattr(first_hour, "NET", "net.py")
    monkeypatch.setattr(first_hour, "_SHELL", (("ask", "python -c pass"),))
    steps = list(first_hour.walk(tmp_path / "work", install=False))
    assert [step.name for step in steps] == ["imports", "Think", "ask"]
    assert all(step.wall_s >= 0 and step.cpu_s >= 0 for step in steps)
    assert first_hour.table(steps).rows[2][1] == "`python -c pass`"


def test_a_step_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such index')"]
    with pytest.raises(first_hour.StepFailed, match="torch: exit code 1\nno such index"):
        first_hour._run("torch", command, tmp_path, {})


def test_the_shell_lines_are_lines_of_this_program() -> None:
    program = Path(sys.executable).parent / "compressor"
    for _, line in first_hour._SHELL:
        name, command, *_ = line.split()
        assert name == "compressor"
        assert subprocess.run([program, command, "--help"], capture_output=True, check=False).returncode == 0
