"""`python -m compressor.export.bench.fetch`: onnxruntime-web into the cache, so that benches work offline."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from compressor.errors import CompressorError
from compressor.export.bench.web_runtime import COMMAND, LICENCE, NAME, VERSION, cached, fetch

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when the files are in the cache."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=f"Fetch {NAME} {VERSION} ({LICENCE}) once, by npm."
    )
    parser.add_argument("--tarball", type=Path, help=f"a file of `npm pack {NAME}@{VERSION}`, instead of npm")
    options = parser.parse_args(arguments)
    found = None if options.tarball else cached()
    try:
        runtime = found or fetch(options.tarball)
    except CompressorError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{NAME} {VERSION} ({LICENCE}) is in {runtime.folder}\n")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(main())
