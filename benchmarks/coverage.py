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
import os
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, supported, zoo
from benchmarks.checking import SEED, check
from benchmarks.isolated import Limits, Row, examined, kept_rows
from benchmarks.zoo import sources


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
    name, code = f"coverage-{source}", _code()
    done = kept_rows(name)
    wanted = [entry for entry in entries if _is_wanted(entry, done.get(entry.key), options, code)]
    return examined(
        name,
        wanted,
        partial(check, onnx=options.onnx),
        Limits(options.limit, options.memory_gb, options.jobs),
        facts=results.context("coverage", vars(options), seeds=[SEED]),
        line=_line,
        mark={"code": code},
    )


def _is_wanted(entry: zoo.Entry, row: Row | None, options: argparse.Namespace, code: str) -> bool:
    if options.models and not {entry.name, entry.family} & set(options.models):
        return False
    if row is None:
        return True
    if options.failed and row["status"].startswith("exact"):
        return False
    return bool(options.fresh or row.get("code") != code)


def _line(row: Row) -> str:
    times = " ".join(f"{key[:-2]} {row[key]:.1f}" for key in ("forward_s", "capture_s") if key in row)
    share = f"pinned {row['pinned']['share']:.2f}" if "pinned" in row else ""
    said = "; ".join([*row["failures"][:2], row.get("refused", "")])[:200]
    head = f"{row['family']:24} {row['network']:32} {row['status']:24}"
    return f"{head} {row.get('seconds', 0):5.1f} s {times} {share} {said}"


def _code() -> str:
    """A digest of the library, so that rows of other code are known as such."""
    digest = hashlib.sha256()
    for file in sorted((zoo.ROOT / "compressor").rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
