"""What each extra is for, in a few lines: with it they run, without it they say what to install.

    python tests/packaging/probes.py onnx plots

runs the lines of the extras named, and those of all others, which must raise MissingExtraError with the
command that installs them unless their libraries are there all the same. It needs nothing but the library, so
that it runs in any environment.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor as cp
from compressor.errors import MissingExtraError

Probe = Callable[[], object]
X = torch.ones(2, 3, 8, 8)


def net() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), *head).eval()


def banks() -> Any:
    return cp.filters.banks(net(), X)


def core() -> None:
    """What needs no extra at all."""
    small = cp.prune(net(), X, budget=cp.budget.Macs(0.5))
    cp.save(small, "small")
    cp.load("small", net)
    str(cp.compare(net(), small, X))
    str(cp.filters.report(net()))


def onnx() -> object:
    cp.export.onnx(net(), X, "net.onnx")
    return cp.filters.read_onnx("net.onnx").banks


def executorch() -> object:
    return cp.export.executorch(net(), X, "net.pte")


def plots() -> object:
    from compressor.reporting import save_sequence_figure

    return save_sequence_figure("panels.png", {"noise": torch.rand(8, 8, 3)})


def memory() -> object:
    class OfAFunction(nn.Linear):
        """Only cloudpickle takes it to another process."""

    return cp.profiling.memory(OfAFunction(2, 2), torch.ones(1, 2), repeats=1)


def metrics() -> object:
    return cp.evaluation.t_interval([0.1, 0.2, 0.3])


def ecg() -> object:
    from compressor.data.ecg import read_recording

    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    lines = [f"record.dat 16 200 16 0 0 0 0 {lead}" for lead in leads]
    Path("record.hea").write_text("\n".join(["record 12 500 10", *lines, ""]))
    Path("record.dat").write_bytes(bytes(2 * 12 * 10))
    return read_recording("record.hea")


def images() -> object:
    from compressor.data.images import read_image, write_image

    write_image(torch.zeros(3, 8, 8, dtype=torch.uint8), "black.png")
    return read_image("black.png")


def video() -> object:
    from compressor.data.video.library import imageio

    return imageio()


def filters() -> object:
    from compressor.filters.store import extract

    store = extract({"net": banks()}, "store").store
    return store.query("select count(*) from layers")


def dask() -> object:
    setting = cp.filters.SketchSetting(cp.filters.Basis.cosines((3, 3)))
    if find_spec("distributed") is None:
        return cp.filters.sketch_on_cluster(banks(), setting, None)  # type: ignore[arg-type]
    from distributed import Client

    with Client(processes=False, dashboard_address=None) as client:
        return cp.filters.sketch_on_cluster(banks(), setting, client)


def design() -> object:
    conv = nn.Conv2d(3, 8, 5)
    return cp.design.initialise_(conv, cp.design.KMeans([torch.rand(64, 3, 16, 16)]))


def search() -> object:
    from compressor.search import OutputFidelity, find

    small, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.rand(8, 4)
    found = OutputFidelity(small, [x])
    return find(small, x, evaluate=found, budget=cp.budget.Macs(0.5), trials=2, progress=False)


def peer() -> object:
    def magnitude(group: object) -> None:
        return None

    importance: Any = magnitude
    if find_spec("torch_pruning") is not None:
        import torch_pruning

        importance = torch_pruning.importance.GroupMagnitudeImportance(p=1)
    return cp.score(cp.capture(net(), X), cp.scoring.TorchPruning(importance))


def lightning() -> object:
    from compressor.training import lightning

    return lightning


def transformers() -> object:
    from compressor.training import transformers

    return transformers


def accelerate() -> object:
    from compressor.training import accelerate

    return accelerate


PROBES: dict[str, tuple[Probe, str]] = {
    "onnx": (onnx, "onnxruntime"),
    "executorch": (executorch, "executorch"),
    "plots": (plots, "matplotlib"),
    "memory": (memory, "cloudpickle"),
    "metrics": (metrics, "sklearn"),
    "ecg": (ecg, "wfdb"),
    "images": (images, "PIL"),
    "video": (video, "av"),
    "filters": (filters, "duckdb"),
    "dask": (dask, "distributed"),
    "design": (design, "sklearn"),
    "search": (search, "optuna"),
    "torch-pruning": (peer, "torch_pruning"),
    "lightning": (lightning, "pytorch_lightning"),
    "transformers": (transformers, "transformers"),
    "accelerate": (accelerate, "accelerate"),
}
"""By extra, what it is for, and a library that is there whenever the extra is."""


def ended(extra: str) -> str:
    """What the probe of an extra came to: "works", "asks" with the right command, or what was wrong."""
    probe, _ = PROBES[extra]
    try:
        probe()
    except MissingExtraError as error:
        return "asks" if f"compressor[{extra}]" in str(error) else f"asks wrongly: {error}"
    except Exception as error:
        # cloudpickle is an improvement of what pickle does, and what lacks it names the extra.
        return "asks" if f"compressor[{extra}]" in str(error) else f"{type(error).__name__}: {error}"
    return "works"


def main(installed: list[str]) -> int:
    """Run all probes; the number of extras that ended otherwise than they should."""
    warnings.simplefilter("ignore")
    faults = 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        core()
        for extra, (_, library) in PROBES.items():
            expected = "works" if extra in installed or find_spec(library) is not None else "asks"
            found = ended(extra)
            faults += found != expected
            sys.stdout.write(f"{extra}: {found}{'' if found == expected else f' (expected: {expected})'}\n")
        os.chdir("/")
    return faults


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
