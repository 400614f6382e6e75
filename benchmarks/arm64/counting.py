"""ARM64 instructions of one inference in onnxruntime, counted under qemu-user.

An instruction count has no caches, no memory and no clock in it, so it is no latency; but it is that of the
kernels that phones run, and the same on every machine and under any load.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arm64.system import System, cache_folder, checked, system, tool
from benchmarks.zoo import Missing

__all__ = ["CPU", "instructions"]

CPU = "cortex-a76"  # phones of 2019 and later: dot products, half precision, no SVE
_CALLS = 3  # the first ones of a process can be 2 % high, the third repeats to 0.05 %
_HERE = Path(__file__).resolve().parent


def instructions(paths: Sequence[Path], *, cache: str | None = None) -> dict[Path, int]:
    """ARM64 instructions of one inference of each ONNX file, batch 1, one thread.

    Inputs are made up: normal numbers, zeros for whole ones. Raises Missing where qemu-user, gcc or the
    downloads are not to be had, FileNotFoundError, and RuntimeError where onnxruntime cannot run a file.
    """
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
    qemu = tool("qemu-aarch64", "apt-get install qemu-user")
    folder = cache_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    counter = _counter(qemu, folder)
    guest = system(folder)
    return dict(zip(paths, _counted(qemu, counter, guest, folder, paths), strict=True)) if paths else {}


def third_calls(numbers: Sequence[int], n_models: int) -> list[int]:
    """What the last call of each model took, from the counter's readings at its brackets.

    >>> third_calls([100, 130, 150, 169, 900, 950, 990, 1029], 2)
    [19, 39]
    """
    if len(numbers) != n_models * (_CALLS + 1):
        raise RuntimeError(
            f"the instruction counter was read {len(numbers)} times, expected {n_models * (_CALLS + 1)} "
            f"for {n_models} models"
        )
    return [numbers[i + _CALLS] - numbers[i + _CALLS - 1] for i in range(0, len(numbers), _CALLS + 1)]


def plugin_version(qemu_version: str) -> int:
    """The version of the plugin interface that this QEMU accepts, from what it says of itself.

    QEMU 9.0 dropped version 1 for calls that are not used here.

    >>> plugin_version("qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)"), plugin_version("version 10.0.2")
    (1, 2)
    """
    found = re.search(r"version (\d+)\.", qemu_version)
    if found is None:
        raise Missing(f"qemu-aarch64 does not say its version: {qemu_version!r}")
    return 1 if int(found.group(1)) < 9 else 2


def _counter(qemu: str, folder: Path) -> Path:
    """The compiled plugin, under a name that follows from its source and QEMU's version."""
    source = _HERE / "counter.c"
    version = plugin_version(checked([qemu, "--version"], doing="asking qemu-aarch64 for its version"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    built = folder / f"counter-{digest}-v{version}.so"
    if not built.is_file():
        part = folder / f"{built.name}.{os.getpid()}"
        flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-DPLUGIN_VERSION={version}"]
        checked(
            [tool("gcc", "apt-get install gcc libc6-dev"), *flags, "-o", part, source],
            doing="compiling the instruction counter",
        )
        os.replace(part, built)
    return built


def _counted(qemu: str, counter: Path, guest: System, folder: Path, paths: Sequence[Path]) -> list[int]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        out = Path(scratch) / "counts"
        # The prefix only redirects what exists below it: compiled modules go to a folder of their own, or
        # they would be written into this machine's /usr.
        python = ["-I", "-S", "-X", f"pycache_prefix={folder / 'pycache'}"]
        command = [qemu, "-cpu", CPU, "-L", guest.root, "-plugin", f"{counter},out={out}"]
        command += [guest.root / "usr" / "bin" / guest.python, *python, _HERE / "guest.py"]
        command += [guest.packages, str(_CALLS), *(path.resolve() for path in paths)]
        # A variable of this machine (LD_LIBRARY_PATH, thread counts) has no business in there.
        checked(
            command,
            doing="running onnxruntime for ARM64 under qemu-user",
            error=RuntimeError,
            environment={"OMP_NUM_THREADS": "1"},
        )
        return third_calls([int(line) for line in out.read_text().splitlines()], len(paths))
