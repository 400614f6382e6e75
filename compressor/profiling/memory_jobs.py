"""Models and inputs as files, for a process that measures its memory: pickles for PyTorch, ONNX files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compressor.errors import InputError
from compressor.extras import pickler
from compressor.runtimes import Eager, OnnxRuntime, Target
from compressor.runtimes.drafting import write_empty
from compressor.runtimes.extras import require_onnx
from compressor.runtimes.onnx_runtime import feeds_of, write_fixed

__all__ = ["Job", "onnx_jobs", "torch_jobs"]


@dataclass(frozen=True)
class Job:
    """What a process is told, see `runtimes.fresh_process`; `what` names the model in messages."""

    what: str
    data: Mapping[str, Any]


def torch_jobs(
    runtime: Eager, modules: Sequence[nn.Module], args: Sequence[Any], kwargs: Mapping[str, Any], folder: Path
) -> list[Job]:
    """A job for each module, all with the same inputs; raises InputError for what cannot be pickled."""
    inputs = folder / "inputs.pt"
    _write_pickled((tuple(args), dict(kwargs)), inputs, "the inputs")
    jobs = []
    for number, module in enumerate(modules):
        path, what = folder / f"{number}.pt", f"model {number} ({type(module).__name__})"
        _write_pickled(module, path, what)
        data = {
            "kind": "torch",
            "model": str(path),
            "inputs": str(inputs),
            "threads": runtime.threads,
        }
        jobs.append(Job(what, data))
    return jobs


def onnx_jobs(
    runtime: OnnxRuntime,
    models: Sequence[Target],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    folder: Path,
) -> list[Job]:
    """A job for each file, or module, which is written as one.

    Raises InputError where the inputs do not fit a file, ExportError where onnxruntime refuses it.
    """
    require_onnx()
    empty = folder / "empty.onnx"
    write_empty(empty)
    jobs = []
    for number, model in enumerate(models):
        if isinstance(model, nn.Module):
            path, what = folder / f"{number}.onnx", f"model {number} ({type(model).__name__})"
            feeds = write_fixed(model, args, kwargs, path)
        else:
            path, what = Path(model), os.fspath(model)
            feeds = feeds_of(runtime.session(path, what=what), args, kwargs, what)
        inputs = folder / f"{number}.npz"
        np.savez(inputs, *(tensor.numpy() for tensor in feeds.values()))
        data = {
            "kind": "onnx",
            "model": str(path),
            "inputs": str(inputs),
            "names": list(feeds),
            "empty": str(empty),
            "threads": runtime.threads,
            "options": {
                "threads": runtime.threads,
                "optimization": runtime.optimization.value,
                "arena": runtime.arena,
                "memory_pattern": runtime.memory_pattern,
            },
        }
        jobs.append(Job(what, data))
    return jobs


def _write_pickled(value: object, path: Path, what: str) -> None:
    """Write `value` with cloudpickle where it is installed: pickle takes classes by name only."""
    by = pickler()
    if by is pickle:
        _refuse_unnamed(value, what)
    try:
        torch.save(value, path, pickle_module=by)
    except Exception as error:  # whatever a __reduce__ of the user's raises
        raise InputError(
            f"{what} cannot be pickled, so it cannot be measured in a process of its own: "
            f"{type(error).__name__}: {error}. {_WAYS}"
        ) from error


_WAYS = (
    "Define its classes and functions at the top of a module that can be imported, or pip install "
    "'compressor[memory]' (cloudpickle), which takes others along; or use runtime=OnnxRuntime()"
)


def _refuse_unnamed(value: object, what: str) -> None:
    """Raise InputError for classes that another process cannot import, though they can be pickled."""
    modules = value.modules() if isinstance(value, nn.Module) else ()
    for kind in {type(module) for module in modules}:
        if kind.__module__ == "__main__":
            raise InputError(
                f"{what}: {kind.__qualname__} is defined in the script that is running, from which another "
                f"process cannot import it. {_WAYS}"
            )
