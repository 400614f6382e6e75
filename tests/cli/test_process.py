"""The command line as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def compressor(*args: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    # -P: only the command line itself makes the current directory importable.
    flags = ["-P"] if sys.version_info >= (3, 11) else []
    return subprocess.run(
        [sys.executable, *flags, "-m", "compressor", *args],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        capture_output=True,
        encoding=encoding,
        timeout=240,
        check=False,
    )


def test_the_whole_way_from_the_shell(here: Path) -> None:
    net = ("tiny_net:Tiny", "--input", "1x3x8x8")
    pruned = compressor("prune", *net, "--macs", "0.5", "--out", "small", "--json")
    assert pruned.returncode == 0, pruned.stderr
    data = json.loads(pruned.stdout)
    assert data["after"]["macs"] <= 0.5 * data["before"]["macs"]
    # Without the library: the loader that was saved beside the weights.
    loader = [sys.executable, "small/load_model.py", "tiny_net:Tiny"]
    alone = subprocess.run(loader, capture_output=True, text=True, check=True, cwd=here)
    assert f"Tiny: {data['after']['params']:,} parameters" in alone.stdout


def test_a_terminal_that_lacks_letters_is_served(here: Path) -> None:
    (here / "odd_net.py").write_text(
        "def build():\n    raise ValueError('größer → kleiner')\n", encoding="utf-8"
    )
    outcome = compressor("profile", "odd_net:build", "-i", "1x3", encoding="latin-1")
    assert outcome.returncode == 1
    assert "error: odd_net:build cannot build a model: ValueError: größer ? kleiner" in outcome.stderr
    shown = compressor("prune", "--help", encoding="ascii")
    assert shown.returncode == 0, shown.stderr


@pytest.mark.parametrize("args", [("nonsense",), ("prune",)])
def test_a_senseless_command_line_exits_with_2(here: Path, args: tuple[str, ...]) -> None:
    outcome = compressor(*args)
    assert outcome.returncode == 2
    assert "Traceback" not in outcome.stderr
