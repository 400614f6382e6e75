"""All that is checked of one network: capture, two plans, two oracles, training, batches, export."""

from __future__ import annotations

import copy
import gc
import math
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import compressor as cp
from benchmarks.pinned import pinned_share
from benchmarks.reference import (
    CannotJudge,
    InDouble,
    error_against_reference,
    plain_kernels,
    relative_error,
)
from benchmarks.scrambling import scrambled_
from benchmarks.zoo import Entry, Inputs, one_by_one, outputs, taken
from compressor.budget import Budget, Uniform
from compressor.errors import CompressorError, VerifyError
from compressor.scoring import Norm, Random, Scorer

__all__ = ["PLANS", "SEED", "TOLERANCE", "check", "empty_row", "status"]

TOLERANCE = 1e-9
SEED = 0
Row = dict[str, Any]

PLANS: tuple[tuple[str, Scorer, Budget], ...] = (
    ("random 30 %", Random(SEED), Uniform(0.3)),
    ("norm 50 %", Norm(), Uniform(0.5)),
)


def empty_row(entry: Entry) -> Row:
    """What is known of a network before anything ran."""
    named = {"source": entry.source, "family": entry.family, "network": entry.name}
    return {**named, "stage": "build", "failures": [], "plans": {}, "notes": []}


class Checked:
    """A network under examination: everything the checks share, and the row they fill."""

    def __init__(self, entry: Entry, save: Callable[[Row], None]) -> None:
        """Build and scramble the network; the row is saved after every step."""
        self.row = empty_row(entry)
        self.save = save
        self.model, inputs = entry.build(SEED)
        self.auxiliary = entry.name in ("googlenet", "inception_v3")
        self.row["parameters"] = sum(p.numel() for p in self.model.parameters())
        scrambled_(self.model, inputs, seed=SEED)
        self.inputs = inputs.double()

    def stage(self, name: str) -> None:
        """Note what runs now, so that a run that is cut short says where it was."""
        self.row["stage"] = name
        self.save(self.row)


def check(entry: Entry, save: Callable[[Row], None], *, onnx: bool = False) -> Row:
    """All that is measured of one network; `failures` says in words what went wrong."""
    start = time.perf_counter()
    torch.set_default_dtype(torch.float32)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            it = Checked(entry, save)
        except Exception as error:
            row = {**empty_row(entry), "failures": [f"build: {_said(error)}"], "status": "not run"}
            save(row)
            return row
        row = it.row
        try:
            _examine(it, onnx)
            it.stage("done")
        except CompressorError as error:
            row["refused"] = f"{it.row['stage']}: {_said(error)}"
        except Exception as error:
            row["failures"].append(f"{row['stage']}: {_said(error)}")
            row["trace"] = traceback.format_exc()[-1500:]
    row["notes"] += _notes(caught)
    row["seconds"] = time.perf_counter() - start
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    row["status"] = status(row)
    if row["status"] == "not run" and row["failures"]:
        row["refused"] = f"memory limit in {row['stage']}"
    save(row)
    return row


_OUT_OF_MEMORY = ("can't allocate memory", "MemoryError", "Unable to allocate")


def status(row: Row) -> str:
    """The verdict on one network in one or two words."""
    texts = " ".join(row["failures"])
    if row["failures"] and all(any(m in text for m in _OUT_OF_MEMORY) for text in row["failures"]):
        return "not run"
    if "verify: " in texts or "reference" in texts or "batch" in texts or "forward" in texts:
        return "wrong"
    if row["failures"]:
        return "fails"
    if "refused" in row:
        return "refused"
    if row["stage"] != "done":
        return "not run"
    kept = any(plan.get("statistics") for plan in row["plans"].values())
    return "exact, kept statistics" if kept else "exact"


def _examine(it: Checked, onnx: bool) -> None:
    row = it.row
    it.stage("forward")
    with torch.no_grad():
        it.inputs.call(it.model)
        row["forward_s"], expected = _timed(lambda: it.inputs.call(it.model))
    row["outputs"] = [list(leaf.shape) for leaf in outputs(expected)]
    it.stage("capture")
    row["capture_s"], graph = _timed(lambda: cp.capture(it.model, *it.inputs.args, **it.inputs.kwargs))
    row["units"], row["groups"] = graph.n_units, len(graph.groups)
    row["pinned"] = pinned_share(graph)
    trained = _trained(it)
    for number, (label, scorer, budget) in enumerate(PLANS):
        it.stage(f"plan {label}")
        plan = cp.plan(cp.score(graph, scorer), budget)
        facts: Row = {}
        row["plans"][label] = facts
        _plan_checked(it, graph, plan, label, facts, trained, onnx and number == 1)
        gc.collect()
    it.stage("planted")
    _planted(it, graph)


def _plan_checked(
    it: Checked, graph: cp.Graph, plan: cp.Plan, label: str, facts: Row, trained: set[str], onnx: bool
) -> None:
    failures = it.row["failures"]
    facts["cuts"] = len(plan.cuts)
    try:
        it.stage(f"apply {label}")
        facts["apply_s"], small = _timed(lambda: cp.apply(it.model, plan))
    except Exception as error:
        failures.append(f"{label}: apply: {_said(error)}")
        return
    facts["parameters"] = sum(p.numel() for p in small.parameters())
    it.stage(f"verify {label}")
    try:
        facts["verify_s"], report = _timed(
            lambda: cp.verify(it.model, small, plan, *it.inputs.args, graph=graph, **it.inputs.kwargs)
        )
        facts["verify_error"], facts["statistics"] = report.error, report.statistics
    except VerifyError as error:
        failures.append(f"{label}: verify: {_said(error)}")
    except Exception as error:
        failures.append(f"{label}: verify crashed: {_said(error)}")
    for name, look in (
        ("forward", lambda: _forward(it, small)),
        ("reference", lambda: _reference(it, small, plan)),
        ("batch", lambda: _batch(it, small)),
        ("onnx", lambda: _onnx(it, small) if onnx else None),
        ("backward", lambda: _backward(it, small, trained)),  # last: it moves the statistics
    ):
        it.stage(f"{name} {label}")
        try:
            facts[name] = look()
        except CannotJudge as reason:
            facts[name] = f"cannot judge: {reason}"
        except Exception as error:
            facts[name] = f"fails: {_said(error)}"
            failures.append(f"{label}: {name}: {_said(error)}")


def _forward(it: Checked, small: nn.Module) -> list[list[int]]:
    found, expected = _shapes(it.inputs, small), it.row["outputs"]
    if found != expected and _shapes(taken(it.inputs, (1, 0)), it.model) != expected:
        # As many detections as there are: the second oracle compares them with those that should be found.
        alike = [len(shape) for shape in found] == [len(shape) for shape in expected]
    else:
        alike = found == expected
    if not alike:
        raise AssertionError(f"outputs {found}, expected {expected}")
    return found


def _shapes(inputs: Inputs, model: nn.Module) -> list[list[int]]:
    with torch.no_grad():
        return [list(leaf.shape) for leaf in outputs(inputs.call(model))]


def _reference(it: Checked, small: nn.Module, plan: cp.Plan) -> float:
    error = error_against_reference(it.model, small, plan, it.inputs, auxiliary=it.auxiliary)
    if not error <= TOLERANCE:
        raise AssertionError(f"differs from the reference by {error:.1e}")
    return error


def _batch(it: Checked, small: nn.Module) -> float | str:
    """How much three examples together differ from the three one by one (relative)."""
    examples = (1, 0, 1)
    try:
        whole = _batch_error(it.model, it.inputs, examples)
    except Exception as error:
        return f"not of the original either: {_said(error)}"
    if whole is None or whole > TOLERANCE:
        return f"not of the original either: {whole}"
    cut = _batch_error(small, it.inputs, examples)
    if cut is None or not cut <= TOLERANCE:
        raise AssertionError(f"three examples differ from the three one by one by {cut}")
    return cut


def _batch_error(model: nn.Module, inputs: Inputs, examples: Sequence[int]) -> float | None:
    with torch.no_grad(), plain_kernels(), InDouble():
        together = outputs(taken(inputs, examples).call(model))
        single = one_by_one(model, inputs, examples)
    return None if single is None else relative_error(single, together)


def _trained(it: Checked) -> set[str]:
    """The parameters that get a gradient in the original, by a copy of it."""
    it.stage("gradients of the original")
    try:
        return _gradients(copy.deepcopy(it.model), it.inputs)
    except Exception as error:
        it.row["notes"].append(f"backward of the original: {_said(error)}")
        return set()


def _gradients(model: nn.Module, inputs: Inputs) -> set[str]:
    """Names of parameters with a finite gradient of the right shape, after a step as in training."""
    model.train()
    torch.manual_seed(SEED)
    try:
        found = outputs(inputs.call(model))
    except Exception:  # BatchNorm over one value, labels wanted: then as in evaluation
        model.eval()
        found = outputs(inputs.call(model))
    finite = [leaf[leaf.isfinite()] for leaf in found if leaf.requires_grad]
    torch.stack([leaf.square().mean() for leaf in finite]).sum().backward()
    model.eval()
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
        and parameter.grad.shape == parameter.shape
        and bool(parameter.grad.isfinite().all())
    }


def _backward(it: Checked, small: nn.Module, trained: set[str]) -> bool:
    lost = sorted(trained - _gradients(small, it.inputs))
    if lost:
        raise AssertionError(f"{lost[0]} and {len(lost) - 1} more have no gradient")
    return True


def _onnx(it: Checked, small: nn.Module) -> float | str:
    try:
        return _exported(small, it.inputs)
    except CompressorError:
        try:
            _exported(it.model, it.inputs)
        except CompressorError as error:
            return f"not of the original either: {_said(error)}"
        raise


def _exported(small: nn.Module, inputs: Inputs) -> float:
    """How far onnxruntime is from torch for the network as a file, in float32."""
    single = copy.deepcopy(small).float()
    args = [leaf.float() if leaf.is_floating_point() else leaf for leaf in inputs.args]
    kwargs = {
        name: leaf.float() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf
        for name, leaf in inputs.kwargs.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        report = cp.export.onnx(single, *args, Path(folder) / "net.onnx", kwargs=kwargs, dynamic=())
    return report.agreement.error


def _planted(it: Checked, graph: cp.Graph) -> None:
    """The reference must see a layer that keeps the slices which read the removed channels."""
    _, scorer, budget = PLANS[0]
    plan = cp.plan(cp.score(graph, scorer), budget)
    readers = [i for i, cut in enumerate(plan.cuts) if cut.role == "reader" and cut.blocks == 1]
    seen = []
    for position in dict.fromkeys((len(readers) // 2, len(readers) - 1, 0)):
        if position >= len(readers):
            continue
        cut = plan.cuts[readers[position]]
        wrong = replace(cut, keep=tuple(sorted((*cut.removed, *cut.keep)[: len(cut.keep)])))
        if wrong == cut:
            continue
        cuts = (*plan.cuts[: readers[position]], wrong, *plan.cuts[readers[position] + 1 :])
        try:
            small = cp.apply(it.model, replace(plan, cuts=cuts))
            seen.append(error_against_reference(it.model, small, plan, it.inputs, auxiliary=it.auxiliary))
        except (CompressorError, CannotJudge):
            seen.append(math.inf)
        if seen[-1] > TOLERANCE:
            break
    it.row["planted_error"] = max(seen, default=None)
    if seen and not max(seen) > TOLERANCE:
        it.row["failures"].append(f"a planted wrong cut was not seen ({max(seen):.1e})")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    before = time.perf_counter()
    result = work()
    return time.perf_counter() - before, result


def _said(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:400]}"


def _notes(caught: list[warnings.WarningMessage]) -> list[str]:
    """The library's own warnings in short, each once."""
    ours = [w for w in caught if w.category.__module__.startswith("compressor")]
    return list(dict.fromkeys(f"{w.category.__name__}: {str(w.message)[:160]}" for w in ours))
