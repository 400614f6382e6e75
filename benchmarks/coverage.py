"""Exactness: networks of torchvision, timm and transformers, captured, pruned by two plans, checked.

    python -m benchmarks.coverage [--source NAME] [--quick] [--models NAME ...] [--jobs N]

Every network runs in a process of its own, with limits of time and memory. Two oracles look at each
cut: `compressor.verify`, and `benchmarks.reference`, which shares no code with it. For each network
a wrong cut is planted, too: an oracle that lets it pass fails the network. Results are written after
every network; the same command goes on where an earlier run of the same code stopped. The exit code
is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, supported, zoo
from benchmarks.checking import SEED, check, empty_row
from benchmarks.zoo import sources

Row = dict[str, Any]
_SLICE_S = 0.1


def main() -> int:
    """The exit code after checking the networks that the command line names."""
    options = _options()
    torch.set_num_threads(1)
    if options.write_docs:
        print(f"written to {supported.write(sources.SOURCES).relative_to(zoo.ROOT)}")
        return 0
    wrong = False
    for source in sources.SOURCES if options.source == "all" else [options.source]:
        try:
            entries = sources.entries(source, options.shared, quick=options.quick)
        except zoo.Missing as missing:
            print(f"skipped: {missing}")
            continue
        rows = _run(source, entries, options)
        wrong |= any(row["status"] in ("wrong", "fails") for row in rows)
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--source", default="all", choices=[*sources.SOURCES, "all"])
    parser.add_argument("--quick", action="store_true", help="a few small networks of each source")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--failed", action="store_true", help="only what was not exact the last time")
    parser.add_argument("--fresh", action="store_true", help="also what this code has done already")
    parser.add_argument("--onnx", action="store_true", help="export the pruned networks, too (slow)")
    parser.add_argument("--limit", type=float, default=240.0, help="seconds for a network (240)")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="memory for a network (8)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time (1)")
    parser.add_argument("--write-docs", action="store_true", help="only write docs/supported.md")
    zoo.add_shared_option(parser)
    return parser.parse_args()


def _run(source: str, entries: list[zoo.Entry], options: argparse.Namespace) -> list[Row]:
    kept = results.read(f"coverage-{source}") or {"rows": []}
    done = {(row["family"], row["network"]): row for row in kept["rows"]}
    code = _code()
    wanted = [entry for entry in entries if _is_wanted(entry, done.get(entry.key), options, code)]
    waiting = list(wanted)
    running: dict[tuple[str, str], _Process] = {}
    facts = results.context("coverage", vars(options), seeds=[SEED])
    while waiting or running:
        while waiting and len(running) < options.jobs:
            entry = waiting.pop(0)
            running[entry.key] = _Process(entry, options)
        time.sleep(_SLICE_S)
        for key in [key for key, process in running.items() if process.is_over()]:
            row = {**running.pop(key).row(), "code": code}
            done[key] = row
            print(_line(row, len(wanted) - len(waiting) - len(running), len(wanted)), flush=True)
            ordered = [done[entry.key] for entry in entries if entry.key in done]
            results.write_json(
                results.FOLDER / f"coverage-{source}.json", {"context": facts, "rows": ordered}
            )
    return [done[entry.key] for entry in wanted]


def _is_wanted(entry: zoo.Entry, row: Row | None, options: argparse.Namespace, code: str) -> bool:
    if options.models and not {entry.name, entry.family} & set(options.models):
        return False
    if row is None:
        return True
    if options.failed and row["status"].startswith("exact"):
        return False
    return bool(options.fresh or row.get("code") != code)


def _line(row: Row, number: int, count: int) -> str:
    times = " ".join(f"{key[:-2]} {row[key]:.1f}" for key in ("forward_s", "capture_s") if key in row)
    share = f"pinned {row['pinned']['share']:.2f}" if "pinned" in row else ""
    said = "; ".join([*row["failures"][:2], row.get("refused", "")])[:200]
    head = f"[{number}/{count}] {row['family']:24} {row['network']:32} {row['status']:24}"
    return f"{head} {row.get('seconds', 0):5.1f} s {times} {share} {said}"


def _code() -> str:
    """A digest of the library, so that rows of other code are known as such."""
    digest = hashlib.sha256()
    for file in sorted((zoo.ROOT / "compressor").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


# -- one process for each network ----------------------------------------------------------------


class _Process:
    """A network being checked in a child of this process, which has the libraries loaded."""

    def __init__(self, entry: zoo.Entry, options: argparse.Namespace) -> None:
        """Start at once."""
        self.entry, self.limit_s, self.start = entry, options.limit, time.monotonic()
        fork = multiprocessing.get_context("fork")
        self.ours, theirs = fork.Pipe(duplex=False)
        self.latest: Row | None = None
        self.child = fork.Process(target=_child, args=(entry, options, theirs))
        self.child.start()
        theirs.close()

    def is_over(self) -> bool:
        """Whether the child ended, perhaps because its time is up."""
        self._listen()
        if self.child.is_alive() and time.monotonic() - self.start > self.limit_s:
            self.child.kill()
            self.child.join()
        if self.child.is_alive():
            return False
        self._listen()
        return True

    def row(self) -> Row:
        """The row as far as it came."""
        row = self.latest or empty_row(self.entry)
        if "status" not in row:
            spent = time.monotonic() - self.start
            killed = "time limit" if spent > self.limit_s else f"process ended with {self.child.exitcode}"
            row = {**row, "status": "not run", "seconds": spent}
            row["refused"] = f"{killed} in {row['stage']}"
        return row

    def _listen(self) -> None:
        try:
            while self.ours.poll():
                self.latest = json.loads(self.ours.recv())
        except EOFError:
            pass


def _child(entry: zoo.Entry, options: argparse.Namespace, pipe: Any) -> None:
    limit = int(options.memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    warnings.simplefilter("ignore", DeprecationWarning)
    check(entry, lambda row: pipe.send(json.dumps(row)), onnx=options.onnx)


if __name__ == "__main__":
    sys.exit(main())
