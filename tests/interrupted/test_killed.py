"""Killed at any step of writing, a file is the old one or the new one, whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import compressor as cp
from compressor.core.plan import Plan
from compressor.export.writing import replaced
from compressor.filters import Basis, Sketches, sketch_all
from compressor.filters.sketching.setting import SketchSetting
from compressor.profiling import LatencyTable
from compressor.profiling.latency_table.identity import identity_of
from compressor.profiling.latency_table.measuring import REFERENCE
from compressor.reporting import Report
from compressor.runtimes import Eager
from compressor.training import Recipe, fine_tune_
from tests.filters.store.zoo import banks_of
from tests.hostile.kinds import IMAGE, net
from tests.interrupted.killing import killed

EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}
Write = Callable[[Path], object]


def killed_at(step: int, folder: Path, write: Write) -> bool:
    """Write in a process that is killed before it touches `folder` for that time; False where it finished."""

    def watched(tick: Callable[[], None]) -> None:
        def hook(event: str, args: tuple[object, ...]) -> None:
            if event in EVENTS and str(folder) in str(args[0]):
                tick()

        sys.addaudithook(hook)
        write(folder)

    return killed(watched, at=step + 1)


@dataclass(frozen=True)
class Writer:
    """Two contents that are written over each other, and how they are read."""

    old: Write
    new: Write
    read: Callable[[Path], object]
    between: tuple[object, ...] = ()
    """What else may be found: writers may write more than once."""


def saved(ratio: float) -> Write:
    small = cp.prune(net(), IMAGE, budget=cp.budget.Uniform(ratio))
    return lambda folder: cp.save(small, folder / "model", overwrite=True)


def planned(ratio: float) -> Write:
    plan = cp.plan_of(cp.prune(net(), IMAGE, budget=cp.budget.Uniform(ratio)))
    assert plan is not None
    return lambda folder: plan.save(folder / "plan.json")


def trained(epochs: int) -> Write:
    batches = [(IMAGE, torch.tensor([0, 1]))]

    def write(folder: Path) -> None:
        torch.manual_seed(0)
        recipe = Recipe(epochs=3, lr=0.01)
        path, seen = folder / "training.pt", [0]

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            seen[0] += 1
            if seen[0] > epochs:
                raise KeyboardInterrupt
            return F.cross_entropy(output, target)

        loss.__qualname__ = F.cross_entropy.__qualname__  # another loss would not be taken up
        network = net()
        try:
            fine_tune_(network, batches, loss, recipe, checkpoint=path, progress=False)
        except KeyboardInterrupt:
            if epochs >= 3:
                raise

    return write


def taken_up(folder: Path) -> int:
    """The epoch that a checkpoint holds; the training that goes on from it ends as one in one go."""
    epoch = int(torch.load(folder / "training.pt", weights_only=True)["epoch"])
    network, expected = net(), net()
    for model, path in ((network, folder / "training.pt"), (expected, None)):
        torch.manual_seed(0)
        batches = [(IMAGE, torch.tensor([0, 1]))]
        recipe = Recipe(epochs=3, lr=0.01)
        fine_tune_(model, batches, F.cross_entropy, recipe, checkpoint=path, progress=False)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name
    return epoch


def timed(milliseconds: float) -> Write:
    table = LatencyTable(identity_of(Eager()), Eager(), milliseconds, {REFERENCE: milliseconds})
    return lambda folder: table.save(folder / "t.json")


def measured(quality: float) -> Write:
    found = cp.search.Sensitivity("Net", "0f", "Norm()", "accuracy", 0, quality, 100, (0.5,), ())
    return lambda folder: found.save(folder / "s.json")


def exported(ratio: float) -> Write:
    pytest.importorskip("onnxruntime")
    small = cp.prune(net(), IMAGE, budget=cp.budget.Uniform(ratio))
    by = cp.export.Exporter.TORCHSCRIPT  # the quicker one
    return lambda folder: cp.export.onnx(small, IMAGE, folder / "net.onnx", exporter=by)


def bundled(text: str) -> Write:
    def write(folder: Path) -> None:
        with replaced(folder / "bundle") as whole:
            (whole / "model").write_text(text, encoding="utf-8")

    return write


def content_of(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).read_bytes() if (folder / name).exists() else None


WRITERS: dict[str, Callable[[], Writer]] = {
    "plan": lambda: Writer(planned(0.3), planned(0.6), lambda f: Plan.load(f / "plan.json").to_json()),
    "saved model": lambda: Writer(
        saved(0.3),
        saved(0.6),
        lambda f: [tuple(t.shape) for t in cp.load(f / "model", net).state_dict().values()],
    ),
    "training": lambda: Writer(
        trained(1),
        trained(3),
        taken_up,
        between=(2,),
    ),
    "latency table": lambda: Writer(timed(1.0), timed(2.0), lambda f: LatencyTable.load(f / "t.json").rows),
    "sensitivity": lambda: Writer(
        measured(0.5), measured(0.7), lambda f: cp.search.Sensitivity.load(f / "s.json").quality
    ),
    "report": lambda: Writer(
        lambda f: Report("old", ()).write(f / "r.html"),
        lambda f: Report("new", ()).write(f / "r.html"),
        lambda f: (f / "r.html").read_text(encoding="utf-8"),
    ),
    "exported file": lambda: Writer(exported(0.3), exported(0.6), content_of("net.onnx")),
    # Two folders change places in two steps: between them there is none, and the old one lies beside, whole.
    "exported folder": lambda: Writer(
        bundled("old"), bundled("new"), content_of("bundle/model"), between=(None,)
    ),
    "basis": lambda: Writer(
        lambda f: Basis.cosines((3, 3)).save(f / "basis.safetensors"),
        lambda f: Basis.cosines((1, 3)).save(f / "basis.safetensors"),
        lambda f: Basis.load(f / "basis.safetensors").identity,
    ),
    "sketches": lambda: Writer(
        _sketched("alpha"), _sketched("beta"), lambda f: Sketches.read(f / "sketches.parquet").total().peak
    ),
}


def _sketched(name: str) -> Write:
    made = sketch_all(banks_of(name), SketchSetting(Basis.cosines((3, 3)), bins=4))
    return lambda folder: made.write(folder / "sketches.parquet")


def content(writer: Writer, write: Write, folder: Path) -> object:
    folder.mkdir()
    write(folder)
    return writer.read(folder)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")
@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed(name: str, tmp_path: Path) -> None:
    writer = WRITERS[name]()
    old, new = content(writer, writer.old, tmp_path / "old"), None
    found: list[object] = []
    for step in range(200):
        folder = tmp_path / str(step)
        folder.mkdir()
        writer.old(folder)
        killed = killed_at(step, folder, writer.new)
        found.append(writer.read(folder))
        if not killed:
            new = found[-1]
            break
    assert step >= 2 and new not in (None, old), "it was never killed, or wrote nothing"
    assert old in found[:-1]
    assert set(map(str, found)) <= set(map(str, (old, new, *writer.between)))
    # A writer goes on where one was killed.
    writer.new(tmp_path / "1")
    assert writer.read(tmp_path / "1") == new


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked to be killed")
def test_a_bundle_that_is_killed_is_the_old_one_or_the_new_one_or_none(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    old, new = (cp.prune(net(), IMAGE, budget=cp.budget.Uniform(ratio)) for ratio in (0.3, 0.6))

    def digest(folder: Path) -> object:
        """That of the plan; every file of the bundle is whole, and there is no other."""
        if not folder.exists():
            return None
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        assert files.keys() == {"manifest.json", *manifest["files"]}
        for name, said in manifest["files"].items():
            assert hashlib.sha256(files[name].read_bytes()).hexdigest() == said["sha256"], name
        return manifest["plan_digest"]

    first = tmp_path / "first"
    cp.export.mobile(old, IMAGE, first / "bundle", page=False)
    step, found = 0, []
    while True:
        folder = tmp_path / str(step)
        shutil.copytree(first, folder)
        killed = killed_at(step, folder, lambda f: cp.export.mobile(new, IMAGE, f / "bundle", page=False))
        found.append(digest(folder / "bundle"))
        if not killed:
            break
        step = 2 * step + 1
    assert step > 3 and found[-1] not in (None, digest(first / "bundle"))
    assert set(found[:-1]) <= {None, digest(first / "bundle"), found[-1]}
