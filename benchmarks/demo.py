"""The numbers of `make demo`, kept: accuracy, costs and files of a ResNet-20 on digits, before and after.

    python -m benchmarks.demo [--quick] [--seed N]

Runs `examples/demo.py` as a user does and keeps what it measured in `benchmarks/results/`, its picture in
`docs/`. Nothing is needed but scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import results, zoo
from compressor.tables import megabytes

_OUT = zoo.ROOT / "out" / "demo"
_PICTURE = zoo.ROOT / "docs" / "demo.png"


def main() -> int:
    """The exit code of the demo."""
    options = _options()
    torch.set_num_threads(1)  # as the demo does
    folder = _OUT / "quick" if options.quick else _OUT
    command = [sys.executable, "examples/demo.py", "--out", str(folder), "--seed", str(options.seed)]
    found = subprocess.run(
        [*command, *(["--quick"] if options.quick else [])],
        cwd=zoo.ROOT,
        env=os.environ | {"PYTHONPATH": str(zoo.ROOT)},
        check=False,
    )
    if found.returncode:
        return found.returncode
    rows = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))
    if not options.quick:
        shutil.copyfile(folder / "before_after.png", _PICTURE)
    facts = results.context("demo", vars(options), seeds=[options.seed])
    kind = "demo-quick" if options.quick else "demo"
    print(f"written to {results.save(kind, facts, rows, tables(rows))}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the demo's own quick mode")
    parser.add_argument("--seed", type=int, default=0)
    zoo.add_shared_option(parser)  # as all benchmarks have it; nothing of it is read
    return parser.parse_args()


def tables(rows: dict[str, Any]) -> list[results.Table]:
    """Before and after, and the files one by one."""
    before, after = rows["costs"]["before"], rows["costs"]["after"]
    lines = [(name, f"{100 * value:.1f} %") for name, value in rows["accuracy"].items()]
    stages = results.Table("Accuracy on 500 unseen digits", ("network", "accuracy"), tuple(lines))
    costs = results.Table(
        "Costs",
        ("", "before", "after", "factor"),
        tuple(
            (name, f"{old:,}", f"{after[name]:,}", f"{old / after[name]:.2f}x")
            for name, old in before.items()
        ),
    )
    files = results.Table(
        "Files",
        ("file", "bytes", "accuracy", "ms", "speed-up (10-90 %)"),
        tuple(
            (
                name,
                megabytes(row["bytes"]),
                f"{100 * row['accuracy']:.1f} %",
                f"{row['ms']:.3f}",
                f"{row['speedup']:.2f}x ({row['speedup_p10']:.2f}-{row['speedup_p90']:.2f}x)",
            )
            for name, row in rows["files"].items()
        ),
        ("CPU time of one image in onnxruntime, one thread, interleaved rounds.",),
    )
    return [stages, costs, files]


if __name__ == "__main__":
    sys.exit(main())
