"""Random networks × scores × budgets, many of them, with counts of what was tried and what became of it.

    python -m benchmarks.fuzzing [--quick] [--rounds N] [--examples N] [--checks NAME ...]

The checks of `tests/fuzz`: a budget is met, counted anew, or is out of reach and says so; pruning in steps
ends within the budget; two cuts are the cut of both as one. Every cut is proved in float64 to 1e-9. Each
round has a seed of its own, is kept in `benchmarks/results/`, and is not repeated: the same command goes on
where it stopped, a larger `--rounds` adds to it. Exit code 1 where anything failed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, zoo
from tests.fuzz.drawing import Outcome
from tests.fuzz.running import run
from tests.fuzz.test_budgets import CHECKS

WHAT = {
    "budgets": "any budget with any limits and scores, to files and back",
    "steps": "pruned in two or three steps",
    "twice": "cut at random, and what is left once more",
}
Row = Mapping[str, Any]


def main() -> int:
    """The exit code after the rounds that the command line asks for and that are not done yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzzing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of five examples")
    parser.add_argument("--rounds", type=int, default=None, help="of each check; default 25")
    parser.add_argument("--examples", type=int, default=None, help="in a round; default 100")
    parser.add_argument("--checks", nargs="+", choices=CHECKS, default=None, help="only these")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 25)
    options.examples = options.examples or (5 if options.quick else 100)
    torch.set_num_threads(1)
    kind = "fuzzing-quick" if options.quick else "fuzzing"
    kept = None if options.quick else results.read(kind)
    rows: list[Row] = [] if kept is None else kept["rows"]
    facts = results.context("fuzzing", vars(options), seeds=list(range(options.rounds)))
    for seed in range(options.rounds):
        for check in options.checks or CHECKS:
            if any((row["check"], row["seed"]) == (check, seed) for row in rows):
                continue
            rows.append(a_round(check, options.examples, seed))
            results.save(kind, facts, rows, [table(rows)])
            print(f"{check}, seed {seed}: {rows[-1]['examples']} examples", flush=True)
    print(f"\n{table(rows).text()}\n\nwritten to {results.save(kind, facts, rows, [table(rows)])}")
    failures = [text for row in rows for text in row["failures"]]
    print("\n\n".join(failures))
    return 1 if failures else 0


def a_round(check: str, count: int, seed: int) -> Row:
    """What became of `count` random examples; networks, budgets and plans are those that differ."""
    found: list[Outcome] = []
    failures, start = [], time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run(CHECKS[check], count, seed, found.append, same=False)
    except Exception as error:  # whatever it is, it is a finding, and the next round may find another
        told = "".join(traceback.format_exception(error))
        failures.append(told.replace(f"{zoo.ROOT}{os.sep}", ""))  # no path of this machine
    return {
        "check": check,
        "seed": seed,
        "examples": len(found) + len(failures),
        "networks": len({one.network for one in found}),
        "budgets": len({one.budget for one in found if one.budget is not None}),
        "plans": len({one.plan for one in found if one.plan is not None}),
        "outcomes": dict(Counter(one.what for one in found)),
        "failures": failures,
        "cpu_s": time.process_time() - start,
    }


def table(rows: Sequence[Row]) -> results.Table:
    """A line for each check, and their sum."""
    lines = [
        _line(f"{check}: {WHAT[check]}", [row for row in rows if row["check"] == check]) for check in WHAT
    ]
    notes = [
        "Networks, budgets and plans that differ within a round of one seed; every plan was cut, and proved "
        "on scrambled weights in float64 to 1e-9.",
    ]
    for check in WHAT:
        outcomes = sum((Counter(row["outcomes"]) for row in rows if row["check"] == check), Counter[str]())
        if outcomes:
            notes.append(f"{check}: " + ", ".join(f"{n} {what}" for what, n in outcomes.most_common()) + ".")
    columns = ("check", "examples", "networks", "budgets", "plans", "failures", "CPU min")
    return results.Table(
        "Random networks, budgets and plans", columns, (*lines, _line("all", rows)), tuple(notes)
    )


def _line(name: str, rows: Sequence[Row]) -> tuple[str, ...]:
    counts = (sum(row[key] for row in rows) for key in ("examples", "networks", "budgets", "plans"))
    failed = sum(len(row["failures"]) for row in rows)
    minutes = sum(row["cpu_s"] for row in rows) / 60
    return (name, *(f"{count:,}" for count in counts), str(failed), f"{minutes:.1f}")


if __name__ == "__main__":
    sys.exit(main())
