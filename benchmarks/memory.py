"""Peak memory of one contender on one network, in a process of its own.

    python -m benchmarks.memory NETWORK CONTENDER [--pixels N]

prints the growth of the resident memory, in MB, from just before the pruning to its peak.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from benchmarks import zoo
from benchmarks.contenders import CONTENDERS

__all__ = ["peak_mb"]

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_mb(network: str, contender: str, *, pixels: int, shared: str | None) -> float:
    """The peak of `contender` on `network`, measured in a fresh process.

    Raises Missing where the system keeps no high-water mark, or the contender fails.
    """
    if not _CLEAR.exists():
        raise zoo.Missing("peak memory needs Linux's /proc/self/clear_refs")
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", network, contender]
    command += ["--pixels", str(pixels)]
    if shared:
        command += ["--shared", str(Path(shared).resolve())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=zoo.ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise zoo.Missing(f"{contender} on {network}: {last}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the peak that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("network")
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("--pixels", type=int, default=64)
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = zoo.import_torchvision(options.shared)
    prune = CONTENDERS[options.contender]
    # What is imported and built on first use is no part of the pruning.
    prune(_tiny(), torch.randn(2, 3, 8, 8))
    model = zoo.build(models, options.network, seed=0)
    x = zoo.example(options.network, batch=2, seed=0, pixels=options.pixels)
    with torch.no_grad():
        model(x)
    gc.collect()
    _trim()
    _CLEAR.write_text("5")  # resets the high-water mark
    before = _kilobytes("VmRSS")
    prune(model, x)
    print((_kilobytes("VmHWM") - before) / 1e3)


def _tiny() -> nn.Module:
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(128, zoo.N_CLASSES)).eval()


def _trim() -> None:
    """Give freed memory back, so that it does not hide later growth."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except AttributeError:  # another C library than glibc: it has no such call, and no such habit
        return


def _kilobytes(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
