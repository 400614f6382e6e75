"""The script of a process that measures itself: how far one model raises its memory, loading and running.

It imports nothing of this package and only the runtime in question. Its argument is a job file (JSON),
see `fresh_process`; what it found goes to the file that the job names. Linux only.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Job = dict[str, Any]
Call = Callable[[], object]
_CALLS = 3  # PyTorch sets things up in the first call, where code is read from files at the same time


class Level(NamedTuple):
    """Resident bytes: the most since the last reset, now, and what of that are mapped files (code)."""

    most: int
    now: int
    files: int

    @property
    def data(self) -> int:
        """What is resident now, mapped files left out."""
        return self.now - self.files

    @property
    def most_data(self) -> int:
        """The most since the last reset, less the mapped files of now: exact where no code was read."""
        return self.most - self.files


def level() -> Level:
    """What this process holds."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    split = (line.partition(":") for line in lines)
    kib = {name: int(rest.split()[0]) for name, _, rest in split if rest.endswith(" kB")}
    return Level(1024 * kib["VmHWM"], 1024 * kib["VmRSS"], 1024 * (kib["RssFile"] + kib["RssShmem"]))


def settled() -> Level:
    """What this process holds once garbage is given back; the count of the most starts anew."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc; others have their own ways
        libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return level()


def measure(empty: Callable[[], object], load: Callable[[], Call], job: Job) -> dict[str, int]:
    """What an empty model takes in all, and on top of it loading a model and running it, in bytes."""
    start = settled()
    kept = empty()
    fixed = level().most - start.now
    job["doing"] = "loading"
    base = settled()
    call = load()
    load_bytes = level().most_data - base.data
    job["doing"] = "running"
    loaded, most = settled(), []
    for _ in range(_CALLS):
        call()
        most.append(level().most_data)
        settled()
    code = level().files - base.files
    del kept
    held_bytes, run_bytes = loaded.data - base.data, max(most) - loaded.data
    return {
        "load": load_bytes,
        "held": held_bytes,
        "run": run_bytes,
        "total": max(load_bytes, held_bytes + run_bytes),
        "code": code,
        "fixed": fixed,
    }


def torch_model(job: Job) -> dict[str, int]:
    """Of a pickled module in PyTorch, in eval mode and without gradients."""
    import torch

    torch.set_num_threads(job["threads"])
    args, kwargs = torch.load(job["inputs"], weights_only=False)
    # Once for nothing: what has to be imported for its classes is no part of loading it.
    torch.load(job["model"], weights_only=False)

    def load() -> Call:
        model = torch.load(job["model"], weights_only=False)
        for module in model.modules():
            module.training = False
        return lambda: model(*args, **kwargs)

    with torch.no_grad():
        return measure(lambda: torch.nn.Identity()(torch.zeros(1)), load, job)


def onnx_file(job: Job) -> dict[str, int]:
    """Of an ONNX file in onnxruntime."""
    import numpy as np
    import onnxruntime  # noqa: F401 # what importing it takes is not counted

    spec = importlib.util.spec_from_file_location("ort_session", job["session"])
    assert spec is not None and spec.loader is not None
    opener = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(opener)
    with np.load(job["inputs"]) as file:
        feeds = {name: file[f"arr_{number}"] for number, name in enumerate(job["names"])}

    def session(path: str, inputs: dict[str, Any]) -> Call:
        opened = opener.open_session(path, **job["options"])
        return lambda: opened.run(None, inputs)

    def empty() -> object:
        call = session(job["empty"], {"x": np.zeros(1, np.float32)})
        call()
        return call

    return measure(empty, lambda: session(job["model"], feeds), job)


def main() -> None:
    """Do the job named on the command line; its result holds numbers, or an error and what was being done."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[:] = job["sys_path"]
    job["doing"] = "importing"
    try:
        result = {"torch": torch_model, "onnx": onnx_file}[job["kind"]](job)
        found: dict[str, Any] = {"bytes": result}
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}", "doing": job["doing"]}
    Path(job["result"]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
