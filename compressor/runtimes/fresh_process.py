"""Measuring a model in a fresh process: what the process needs, starting it, and what it says.

A new interpreter, not a fork: a fork starts with the pages and the free memory of its parent, in which a
model's own disappears, and with locks and thread pools that no thread of it will ever release. So the
model travels as a file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compressor.errors import MeasurementError

__all__ = ["check_system", "peaks_of"]

_SCRIPT = Path(__file__).with_name("peak_script.py")
_SESSION = Path(__file__).with_name("ort_session.py")
# `python script.py` would put the folder of the script before all others that modules are imported from.
_START = "import runpy, sys; del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
# glibc raises this limit as a program frees blocks, and then keeps what is freed: the peak would depend on
# the history of the process. Fixed, blocks from 64 KiB on are pages of their own, given back when freed.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


def check_system() -> None:
    """Raise MeasurementError where a process cannot read and reset its own memory peak."""
    peak = Path("/proc/self/clear_refs")
    if not sys.platform.startswith("linux") or not os.access(peak, os.W_OK):
        raise MeasurementError(
            f"memory is read from /proc/self/status and {peak}, which this system ({sys.platform}) does not "
            "offer; measure on Linux (in a container, say). profiling.peak_activation_bytes is "
            "arithmetic, and works everywhere"
        )
    if not sys.executable:
        raise MeasurementError("the path of this Python interpreter is not known, so no other can be started")


def peaks_of(job: Mapping[str, Any], folder: Path, *, what: str) -> dict[str, int]:
    """The bytes that `peak_script.measure` finds for a job, in a process of its own.

    Raises MeasurementError where the model fails there, or the process ends early.
    """
    job_file, result = folder / "job.json", folder / "result.json"
    result.unlink(missing_ok=True)
    whole = {**job, "result": str(result), "session": str(_SESSION), "sys_path": sys.path}
    job_file.write_text(json.dumps(whole), encoding="utf-8")
    threads = str(job["threads"])
    environment = {**os.environ, **_ALLOCATOR, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    ended = subprocess.run(
        [sys.executable, "-c", _START, str(_SCRIPT), str(job_file)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if not result.exists():
        raise MeasurementError(
            f"the process that measures {what} {_end(ended.returncode)}: {_last_line(ended.stderr)}"
        )
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if "error" in found:
        raise MeasurementError(
            f"{what} fails in the process that measures it, while {found['doing']}: {found['error']}"
        )
    numbers: dict[str, int] = found["bytes"]
    return numbers


def _end(code: int) -> str:
    if code == -9:
        return "was killed, as happens where memory runs out"
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
