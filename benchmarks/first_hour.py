"""The way of a new user, timed: an empty environment, pip install, a network of one's own, the shell.

    python -m benchmarks.first_hour [--quick] [--keep DIR]

A new virtual environment in an empty folder gets torch and this checkout as pip installs it, with the extra
`onnx`. There the tutorial docs/tutorials/own_model.py is run step by step, then what one would type
next. Needs a package index and, for the bench page, npm. A step that fails ends the run with what it said.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, zoo
from benchmarks.results import Table

TUTORIALS = zoo.ROOT / "docs" / "tutorials"
SCRIPT = "own_model.py"
NET = "spotter.py"
STEPS = "steps.json"

_SHELL = (
    ("look from the shell", "compressor explain spotter:Spotter -i 1x1x40x64"),
    (
        "prune from the shell",
        "compressor prune spotter:Spotter -i 1x1x40x64 --macs 0.5 --out shell/",
    ),
    (
        "a page that times the files on a phone",
        "compressor bench-page bench.html --single-file --models before.onnx spotter_app/model.onnx",
    ),
)


_RUN_SECTIONS = """
import json, resource, sys, time

def spent():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)

names, steps = {"__name__": "__main__"}, []
for title, code in json.loads(sys.argv[1]):
    cpu, wall = spent(), time.perf_counter()
    exec(compile(code, "own_model.py", "exec"), names)
    steps.append((title, time.perf_counter() - wall, spent() - cpu))
with open(sys.argv[2], "w") as file:
    json.dump(steps, file)
"""


@dataclass(frozen=True)
class Step:
    """What was done, and how long it took: wall seconds, and CPU seconds of all its processes."""

    name: str
    command: str
    wall_s: float
    cpu_s: float


class StepFailed(Exception):
    """A step ended with another exit code than 0."""


def main() -> int:
    """The exit code: 1 if a step fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_hour", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="in this environment, nothing installed")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in this new folder, and leave it")
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="first-hour-"))
    try:
        folder.mkdir(parents=True, exist_ok=options.keep is None)
        steps = list(walk(folder, install=not options.quick))
    except StepFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    shown = table(steps)
    print(shown.text())
    name = "first_hour-quick" if options.quick else "first_hour"
    facts = results.context("first_hour", {"quick": options.quick}, seeds=[0])
    print(results.save(name, facts, [asdict(step) for step in steps], [shown]))
    return 0


def walk(folder: Path, *, install: bool) -> Iterator[Step]:
    """The steps, as they are done in an empty folder; StepFailed with what was said where one fails."""
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if install:
        scripts = folder / "env" / "bin"
        for variable in ("PYTHONPATH", "VIRTUAL_ENV"):
            environment.pop(variable, None)
        release = torch.__version__.partition("+")[0]
        for name, command in (
            ("a virtual environment", [sys.executable, "-m", "venv", "env"]),
            ("torch", [scripts / "pip", "install", "--quiet", f"torch=={release}"]),
            ("this library", [scripts / "pip", "install", "--quiet", f"{zoo.ROOT}[onnx]"]),
        ):
            yield _run(name, command, folder, environment)
    environment["PATH"] = os.pathsep.join([str(scripts), environment["PATH"]])
    for file in (SCRIPT, NET):
        shutil.copy(TUTORIALS / file, folder)
    yield from _tutorial(scripts / "python", folder, environment)
    for name, command in _SHELL:
        yield _run(name, command.split(), folder, environment)


def sections(text: str) -> list[tuple[str, str]]:
    """The script cut at its numbered comments: what each says, and the code below it.

    What stands before the first belongs to a section of its own. Lines keep their numbers.

    >>> sections("import torch\\n# 1. Train it, slowly.\\ntrain()\\n")
    [('imports', 'import torch\\n'), ('Train it', '\\n# 1. Train it, slowly.\\ntrain()\\n')]
    """
    starts = [*(found.start() for found in re.finditer(r"^# \d+\. ", text, re.M)), len(text)]
    parts = [("imports", text[: starts[0]])]
    for start, end in itertools.pairwise(starts):
        title = re.match(r"# \d+\. ([^.,:;\n]+)", text[start:end])
        assert title is not None
        parts.append((title[1], "\n" * text[:start].count("\n") + text[start:end]))
    return parts


def table(steps: Sequence[Step]) -> Table:
    """The steps below each other, with the time since the beginning."""
    rows, since = [], 0.0
    for step in steps:
        since += step.wall_s
        rows.append(
            (step.name, f"`{step.command}`", f"{step.wall_s:.1f}", f"{step.cpu_s:.1f}", f"{since:.0f}")
        )
    return Table(
        "From an empty folder to files for a phone",
        ("step", "command", "s", "CPU s", "s since the start"),
        tuple(rows),
        (
            "Wall and CPU seconds, one thread, on a machine that others use, too; pip's are those of a "
            "nearby index. The training is the user's own.",
        ),
        words=(0, 1),
    )


def _tutorial(python: Path, folder: Path, environment: dict[str, str]) -> Iterator[Step]:
    """The script's sections, run one after the other in one interpreter that knows no other path."""
    command = [python, "-c", _RUN_SECTIONS, json.dumps(sections((folder / SCRIPT).read_text("utf-8"))), STEPS]
    _run(SCRIPT, command, folder, environment)
    for name, wall_s, cpu_s in json.loads((folder / STEPS).read_text("utf-8")):
        yield Step(name, f"python {SCRIPT}", wall_s, cpu_s)


def _run(name: str, command: Sequence[str | Path], folder: Path, environment: dict[str, str]) -> Step:
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wall_s, after = time.perf_counter() - start, os.times()
    if done.returncode != 0:
        raise StepFailed(f"{name}: exit code {done.returncode}\n{done.stdout}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    shown = " ".join(
        Path(word).name if Path(word).is_absolute() and "[" not in str(word) else str(word)
        for word in command
    )
    return Step(name, shown.replace(str(zoo.ROOT), "."), wall_s, cpu_s)


if __name__ == "__main__":
    sys.exit(main())
