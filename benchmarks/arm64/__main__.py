"""ARM64 instructions of ONNX files, and their ratios to the first.

python -m benchmarks.arm64 [--cache DIR] FILE ...
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.arm64.counting import CPU, instructions
from benchmarks.arm64.system import PINS
from benchmarks.results import Table
from benchmarks.zoo import Missing


def main() -> int:
    """The exit code: 0 also where this machine cannot count, which is said; 1 where a file is at fault."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arm64", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--cache", help="default: arm64 in $COMPRESSOR_CACHE")
    options = parser.parse_args()
    try:
        counts = instructions(options.files, cache=options.cache)
    except Missing as missing:
        print(f"skipped: {missing}")
        return 0
    except (FileNotFoundError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    first = next(iter(counts.values()))
    rows = [(str(path), f"{n / 1e6:.3f}", f"{first / n:.2f}") for path, n in counts.items()]
    versions = ", ".join(f"{name} {version}" for name, version in PINS.items())
    notes = (f"One inference, batch 1, one thread; {versions}, qemu-user -cpu {CPU}. Not a latency.",)
    print(Table("ARM64 instructions", ("file", "millions", "fewer (x)"), tuple(rows), notes).text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
