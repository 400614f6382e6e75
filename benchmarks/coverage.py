"""Exactness: every convolutional classifier of torchvision, captured, pruned by two plans, checked.

    python -m benchmarks.coverage [--quick] [--models NAME ...]

Every network runs in a process of its own. Two oracles look at each cut: `compressor.verify`, and
`benchmarks.reference`, which shares no code with it. For each network a wrong cut is planted, too:
an oracle that lets it pass fails the network. The exit code is 1 if anything fails.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

import compressor as cp
from benchmarks import results, zoo
from benchmarks.reference import error_against_reference, scrambled_
from compressor.budget import Budget, Uniform
from compressor.errors import CompressorError
from compressor.scoring import Norm, Random, Scorer

TOLERANCE = 1e-9
SEED = 0
# Peak memory in float64 weights: the network, verify's copy of it and pruned copies with gradients,
# and the noise for the largest tensor. Measured on VGG and RegNet.
_COPIES_OF_ALL, _COPIES_OF_LARGEST = 3.2, 2.5

PLANS: tuple[tuple[str, Scorer, Budget], ...] = (
    ("random 30 %", Random(SEED), Uniform(0.3)),
    ("norm 50 %", Norm(), Uniform(0.5)),
)


def main() -> int:
    """The exit code after checking the networks that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small variant of each family")
    parser.add_argument("--models", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="skip networks that need more")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        models = zoo.torchvision(options.shared)
    except zoo.Missing as missing:
        print(f"skipped: {missing}")
        return 0
    if options.one:
        row = check(zoo.build(models, options.one, seed=SEED), options.one, options.memory_gb)
        print(json.dumps(row))
        return 0
    names = options.models or zoo.networks(models, quick=options.quick)
    # A run over a few chosen networks does not replace the table of all.
    kind = "coverage-some" if options.models else "coverage-quick" if options.quick else "coverage"
    facts = results.context("coverage", vars(options), seeds=[SEED])
    rows = []
    for number, name in enumerate(names, start=1):
        row = _in_a_process(name, options)
        rows.append(row)
        print(f"[{number}/{len(names)}] {'  '.join(cells(row))}", flush=True)
        table = table_of(rows)
        written = results.save(kind, facts, rows, [table])
    print(f"\n{table.text()}\n\nwritten to {written}")
    return 1 if any(row["failures"] for row in rows) else 0


def check(model: nn.Module, name: str, memory_gb: float) -> dict[str, Any]:
    """All that is measured of one network; `failures` says in words what went wrong."""
    sizes = [8e-9 * parameter.numel() for parameter in model.parameters()]
    needed_gb = _COPIES_OF_ALL * sum(sizes) + _COPIES_OF_LARGEST * max(sizes)
    row: dict[str, Any] = {"network": name, "failures": [], "plans": {}, "notes": []}
    if needed_gb > memory_gb:
        row["skipped"] = f"needs about {needed_gb:.0f} GB, more than --memory-gb {memory_gb:g}"
        return row
    start = time.perf_counter()
    x = zoo.example(name, batch=2, seed=SEED).double()
    scrambled_(model, x, seed=SEED)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _capture_and_prune(model, name, x, row)
        except Exception as error:
            row["failures"].append(f"{type(error).__name__}: {error}")
    row["notes"] += _notes(caught)
    row["seconds"] = time.perf_counter() - start
    row["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return row


def _capture_and_prune(model: nn.Module, name: str, x: Tensor, row: dict[str, Any]) -> None:
    before = time.perf_counter()
    graph = cp.capture(model, x)
    row["capture_s"] = time.perf_counter() - before
    row["units"], row["groups"] = graph.n_units, len(graph.groups)
    row["notes"] += _without_rule(graph)
    whole = cp.profile(graph)
    for label, scorer, budget in PLANS:
        plan = cp.plan(cp.score(graph, scorer), budget)
        small = cp.apply(model, plan)
        facts = row["plans"][label] = _facts(model, small, plan, name, x, graph)
        cost = cp.profile(small, x)
        facts["macs_left"], facts["params_left"] = (
            cost.macs / whole.macs,
            cost.params / whole.params,
        )
        for kind in ("verify_error", "reference_error", "batch_error"):
            error = facts[kind]
            if isinstance(error, str):
                row["failures"].append(f"{label}: {error}")
            elif not error <= TOLERANCE:
                row["failures"].append(f"{label}: {kind} {error:.1e}")
        for kind in ("forward", "backward"):
            if facts[kind] is not True:
                row["failures"].append(f"{label}: {kind}: {facts[kind]}")
        del small
        gc.collect()
    row["planted_error"] = _planted_error(model, name, x, graph)
    if not row["planted_error"] > TOLERANCE:
        row["failures"].append(f"a planted wrong cut was not seen ({row['planted_error']:.1e})")


def _facts(
    model: nn.Module, small: nn.Module, plan: cp.Plan, name: str, x: Tensor, graph: cp.Graph
) -> dict[str, Any]:
    auxiliary = name in ("googlenet", "inception_v3")
    reference = error_against_reference(model, small, plan, x, auxiliary=auxiliary)
    try:
        verified: float | str = cp.verify(model, small, plan, x, graph=graph).error
    except CompressorError as error:
        verified = f"{type(error).__name__}: {error}"
    return {
        "verify_error": verified,
        "reference_error": reference,
        "batch_error": _batch_error(small, x),
        "forward": _forward(model, small, x),
        "backward": _backward(small, x),  # last: it moves the statistics
    }


def _batch_error(small: nn.Module, x: Tensor) -> float:
    """How much three examples together differ from the three one by one (relative)."""
    three = torch.cat([x, x[:1].flip(-1)])
    with torch.no_grad():
        together = small(three)
        one_by_one = torch.cat([small(example) for example in three.split(1)])
    if together.shape != one_by_one.shape:
        return math.inf
    return float((together - one_by_one).abs().max() / one_by_one.abs().max())


def _forward(model: nn.Module, small: nn.Module, x: Tensor) -> bool | str:
    with torch.no_grad():
        expected, found = model(x).shape, small(x)
    if found.shape != expected:
        return f"output {list(found.shape)}, expected {list(expected)}"
    return bool(torch.isfinite(found).all()) or "not finite"


def _backward(small: nn.Module, x: Tensor) -> bool | str:
    """True if a step in training mode, with auxiliary heads, gives every parameter a gradient."""
    torch.manual_seed(SEED)
    small.train()
    torch.stack([out.square().mean() for out in zoo.outputs(small(x))]).sum().backward()
    for name, parameter in small.named_parameters():
        if parameter.grad is None:
            return f"{name} has no gradient"
        if parameter.grad.shape != parameter.shape or not bool(parameter.grad.isfinite().all()):
            return f"{name} has a wrong gradient"
    small.eval()
    return True


def _planted_error(model: nn.Module, name: str, x: Tensor, graph: cp.Graph) -> float:
    """The reference's error when one layer keeps the slices that read the removed channels."""
    _, scorer, budget = PLANS[0]
    plan = cp.plan(cp.score(graph, scorer), budget)
    readers = [i for i, cut in enumerate(plan.cuts) if cut.role == "reader" and cut.blocks == 1]
    position = readers[len(readers) // 2]
    cut = plan.cuts[position]
    wrong = replace(cut, keep=tuple(sorted((*cut.removed, *cut.keep)[: len(cut.keep)])))
    cuts = (*plan.cuts[:position], wrong, *plan.cuts[position + 1 :])
    small = cp.apply(model, replace(plan, cuts=cuts))
    auxiliary = name in ("googlenet", "inception_v3")
    return error_against_reference(model, small, plan, x, auxiliary=auxiliary)


def _without_rule(graph: cp.Graph) -> list[str]:
    """Operators whose lack of a rule pins channels: no fault, but compression lost."""
    reasons = {reason for found in graph.reasons.values() for reason in found}
    return sorted(f"pinned: {reason}" for reason in reasons if "no rule" in reason)


def _notes(caught: list[warnings.WarningMessage]) -> list[str]:
    """The library's own warnings in short, each once."""
    ours = [w for w in caught if w.category.__module__.startswith("compressor")]
    return list(dict.fromkeys(f"{w.category.__name__}: {str(w.message)[:120]}" for w in ours))


# -- one process for each network ----------------------------------------------------------------


def _in_a_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "benchmarks.coverage"]
    command += ["--one", name, "--memory-gb", str(options.memory_gb)]
    if options.shared:
        command += ["--shared", str(Path(options.shared).resolve())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=zoo.ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        row = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(row, dict)
        return row
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    failure = f"process ended with {done.returncode}: {last}"
    return {"network": name, "failures": [failure], "plans": {}, "notes": []}


# -- the table -----------------------------------------------------------------------------------

COLUMNS = (
    "network",
    "units",
    "groups",
    "MACs left",
    "params left",
    "verify",
    "reference",
    "planted",
    "fwd",
    "bwd",
    "batch 3",
    "seconds",
    "GB",
    "note",
)


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One line of the table."""
    plans = list(row["plans"].values())

    def both(key: str, form: str) -> str:
        values = [p.get(key, "-") for p in plans]
        shown = (format(v, form) if isinstance(v, float) else "FAIL" if len(v) > 1 else v for v in values)
        return " / ".join(shown) or "-"

    def ok(key: str) -> str:
        return "-" if not plans else "ok" if all(p.get(key) is True for p in plans) else "FAIL"

    exact = [p.get("batch_error", math.inf) <= TOLERANCE for p in plans]
    if "skipped" in row:
        note = f"skipped: {row['skipped']}"
    elif row["failures"]:
        note = f"FAIL {'; '.join(row['failures'])}"
    else:
        note = "; ".join(row["notes"])
    return (
        row["network"],
        str(row.get("units", "-")),
        str(row.get("groups", "-")),
        both("macs_left", ".2f"),
        both("params_left", ".2f"),
        both("verify_error", ".0e"),
        both("reference_error", ".0e"),
        format(row["planted_error"], ".0e") if "planted_error" in row else "-",
        ok("forward"),
        ok("backward"),
        "-" if not plans else "ok" if all(exact) else "FAIL",
        format(row["seconds"], ".1f") if "seconds" in row else "-",
        format(row["peak_gb"], ".1f") if "peak_gb" in row else "-",
        note,
    )


def table_of(rows: list[dict[str, Any]]) -> results.Table:
    """All networks, with a verdict below."""
    skipped = [row["network"] for row in rows if "skipped" in row]
    failed = [row["network"] for row in rows if row["failures"]]
    cuts = [plan for row in rows for plan in row["plans"].values()]
    found = [cut[key] for cut in cuts for key in ("verify_error", "reference_error")]
    errors = [error for error in found if isinstance(error, float)]
    verdict = (
        f"{len(rows) - len(skipped) - len(failed)} of {len(rows)} networks exact, {len(failed)} "
        f"failed{_listed(failed)}, {len(skipped)} skipped{_listed(skipped)}; largest error of a "
        f"cut {max(errors, default=math.nan):.0e} (allowed {TOLERANCE:.0e})"
    )
    notes = (
        verdict,
        f"Two plans: {' / '.join(label for label, _, _ in PLANS)} of each group's channels. "
        "verify, reference: largest relative error, float64, scrambled weights, by the library and "
        "by an oracle that shares no code with it. planted: the reference's error when one layer "
        "keeps the wrong slices.",
        "fwd: output shape; bwd: a training step gives every parameter a gradient; batch 3: three "
        "examples together equal the three one by one. seconds: everything, two plans checked.",
    )
    return results.Table("Coverage", COLUMNS, tuple(cells(row) for row in rows), notes, (0, -1))


def _listed(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


if __name__ == "__main__":
    sys.exit(main())
