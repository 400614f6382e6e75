"""How much memory models take on this machine: loading one and running it, in a fresh process each time.

On the CPU a new process imports the runtime, then loads the model and runs it, and the system tells the most
memory it held meanwhile. On CUDA devices torch's own count is read, in this process.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.profiling.memory_jobs import Job, onnx_jobs, torch_jobs
from compressor.runtimes import Eager, OnnxRuntime, Runtime, Target
from compressor.runtimes.eager import device_of, modules_of
from compressor.runtimes.fresh_process import check_system, peaks_of
from compressor.tables import aligned

__all__ = ["Footprint", "MeasuredBytes", "Memory", "memory"]


@dataclass(frozen=True)
class MeasuredBytes:
    """A number of bytes: the median of several measurements, and the lowest and highest of them."""

    bytes: int
    lowest: int
    highest: int

    @classmethod
    def of(cls, samples: Sequence[int]) -> MeasuredBytes:
        """The median and range of the samples.

        >>> print(MeasuredBytes.of([1_500_000, 1_400_000, 1_500_000]))
        1.50 MB (1.40-1.50)
        """
        return cls(int(statistics.median(samples)), min(samples), max(samples))

    def __str__(self) -> str:
        return f"{self.bytes / 1e6:.2f} MB ({self.lowest / 1e6:.2f}-{self.highest / 1e6:.2f})"


@dataclass(frozen=True)
class Footprint:
    """The memory of one model.

    `run` is the most that a call took beyond the loaded model: activations, and what the runtime works in.
    Of a process besides: `load`, the most that loading took, `held`, what of it stayed, and `total`, the
    most of loading and running. These are data. `code` is what was read of program files meanwhile, which
    processes share, and `fixed` all that an empty model takes first. None: not measured (on CUDA).
    """

    run: MeasuredBytes
    load: MeasuredBytes | None = None
    held: MeasuredBytes | None = None
    total: MeasuredBytes | None = None
    code: MeasuredBytes | None = None
    fixed: MeasuredBytes | None = None


@dataclass(frozen=True)
class Memory:
    """What was measured: a footprint for each model, and how; `str()` is a table.

    `repeats` is how often: in as many processes for each model, or, on CUDA, in as many calls.
    """

    footprints: tuple[Footprint, ...]
    repeats: int
    how: str
    runtime: str

    def __str__(self) -> str:
        names = [field.name for field in fields(Footprint)]
        measured = [name for name in names if getattr(self.footprints[0], name) is not None]
        rows = [["", *measured]]
        for number, footprint in enumerate(self.footprints):
            rows.append([f"model {number}", *(str(getattr(footprint, name)) for name in measured)])
        head = f"{self.how}, {self.runtime}, {self.repeats} times each (median, range)"
        return "\n".join([head, *aligned(rows)])


def memory(
    models: Target | Sequence[Target],
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
    repeats: int = 3,
) -> Memory:
    """The memory that a model takes, or each of several, on the same inputs.

    `runtime` is `Eager()` (the default) or `OnnxRuntime()`, which takes paths of ONNX files, too. Each
    model is loaded and run in `repeats` new processes: some seconds each with PyTorch, less than one with
    onnxruntime. Linux counts resident memory, in pages of 4 KiB; with glibc, blocks from 64 KiB on are
    given back when freed, so that the most is of what was in use. A module on a CUDA device is run in
    this process, and `run` is the most that `torch.cuda` allocated beyond what it had.

    With `Eager()` a module travels to the process pickled: its classes must be importable there, or
    cloudpickle be installed, which takes those of a script or a function along. Raises InputError where
    that fails, MeasurementError on other systems than Linux, and where a model fails in its process.

    >>> found = memory(nn.Linear(512, 2048), torch.zeros(64, 512), repeats=1)
    >>> found.footprints[0].held.bytes > 4_000_000  # 4.2 MB of weights
    True
    """
    listed = _listed(models)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise InputError(f"repeats = {repeats!r}: a whole number, at least 1, is expected")
    by = Eager() if runtime is None else runtime
    if isinstance(by, Runtime) and by.pin is not None:
        raise InputError(f"pin = {by.pin}: nothing is timed where memory is measured; leave `pin` out")
    named = kwargs or {}
    if isinstance(by, OnnxRuntime):
        return _in_processes(lambda folder: onnx_jobs(by, listed, args, named, folder), by, repeats)
    if not isinstance(by, Eager):
        raise InputError(
            f"runtime = {by!r}: memory is measured with runtimes.Eager() or runtimes.OnnxRuntime(); "
            "compiling takes many times what the model does"
        )
    modules = modules_of(by, listed)
    device = device_of(modules, args, named)
    if device.type == "cuda":
        return _on_cuda(by, modules, args, named, device, repeats)
    if device.type != "cpu":
        raise InputError(f"memory is measured on the CPU and on CUDA devices; the model is on {device}")
    return _in_processes(lambda folder: torch_jobs(by, modules, args, named, folder), by, repeats)


def _listed(models: Target | Sequence[Target]) -> Sequence[Target]:
    """One or more models as a list; raises InputError for anything else."""
    if isinstance(models, nn.Module | str | os.PathLike):
        return [models]
    listed = list(models) if isinstance(models, Sequence) else []
    if not listed or not all(isinstance(model, nn.Module | str | os.PathLike) for model in listed):
        raise InputError("memory needs a module or the path of a file, or a list of one or more of them")
    return listed


def _in_processes(write: Callable[[Path], Sequence[Job]], runtime: Runtime, repeats: int) -> Memory:
    """What the jobs that `write` puts into a folder find, each in `repeats` processes."""
    check_system()
    with tempfile.TemporaryDirectory(prefix="compressor-") as aside:
        folder = Path(aside)
        jobs = write(folder)
        samples = [[peaks_of(job.data, folder, what=job.what) for job in jobs] for _ in range(repeats)]
    footprints = tuple(_footprint(own) for own in zip(*samples, strict=True))
    return Memory(footprints, repeats, "resident memory of a new process", repr(runtime))


def _footprint(samples: Sequence[Mapping[str, int]]) -> Footprint:
    return Footprint(**{key: MeasuredBytes.of([sample[key] for sample in samples]) for key in samples[0]})


def _on_cuda(
    runtime: Eager,
    models: Sequence[nn.Module],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    device: torch.device,
    repeats: int,
) -> Memory:
    """What calls allocate; the first one, which sets up handles and workspaces, is not counted."""
    footprints = []
    with runtime.ready(models, args, kwargs) as ready:
        for call in ready.calls:
            call()
            samples = []
            for _ in range(repeats):
                torch.cuda.synchronize(device)
                before = torch.cuda.memory_allocated(device)
                torch.cuda.reset_peak_memory_stats(device)
                call()
                torch.cuda.synchronize(device)
                samples.append(torch.cuda.max_memory_allocated(device) - before)
            footprints.append(Footprint(MeasuredBytes.of(samples)))
    how = f"memory that torch allocates on {torch.cuda.get_device_name(device)}"
    return Memory(tuple(footprints), repeats, how, repr(runtime))
