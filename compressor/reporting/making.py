"""The verb `report`: everything that is known of a cut, checked, proved and put in order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import check_plan, plan_of
from compressor.core.verify import TOLERANCE, removed_units, verify
from compressor.errors import InputError
from compressor.filters import FilterReport
from compressor.profiling import Latency, profile
from compressor.reporting.case import Case
from compressor.reporting.document import Report
from compressor.reporting.sections import SECTIONS
from compressor.scoring import Scores
from compressor.search import Frontier, Sensitivity

__all__ = ["report"]

_SEED = 0


def report(
    model: nn.Module,
    small: nn.Module,
    *args: Any,
    plan: Plan | None = None,
    quality: Mapping[str, tuple[float, float]] | None = None,
    latency: Latency | Sequence[Latency] = (),
    scores: Scores | None = None,
    sensitivity: Sensitivity | None = None,
    frontier: Frontier | None = None,
    filters: tuple[FilterReport, FilterReport] | None = None,
    title: str = "",
    **kwargs: Any,
) -> Report:
    """A report on what was removed from `model` to make `small`: `.write("report.html")`, `.to_markdown()`.

    `args` and `kwargs` are example inputs of both, which stay as they are. The cut is verified first, so that
    no report is of a model that is not what its plan says; costs are counted on the inputs. What takes time
    to measure is handed in, and is left out of the report without it:

    - `plan`: the one plan on `model` that made `small`; that of `plan_of(small)` by default.
    - `quality`: what you measured of both, `{"accuracy": (0.926, 0.914)}`, the original first.
    - `latency`: of the two models, `profiling.latency(model, small, x)`; several, of several runtimes say.
    - `scores`: of a graph of `model`, `score(capture(model, x), scorer)`.
    - `sensitivity`: of `model`, `search.sensitivity(model, x, evaluate=...)`.
    - `frontier`: quality and costs of several cuts, `search.frontier(...)`, or points of your own, also with
      measured costs: `search.Frontier(points, "accuracy", by=("macs", "latency_ms"))`.
    - `filters`: before and after, `(filters.report(model, x), filters.report(small, x))`.

    Raises InputError for what does not belong to these models, PlanMismatchError and VerifyError where
    `small` is not `model` cut as the plan says, CaptureError where `model` does not run on the inputs.

    >>> import torch, compressor as cp
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> x = torch.rand(2, 8)
    >>> small = cp.prune(net, x, budget=cp.budget.Macs(0.5))
    >>> report(net, small, x, latency=cp.profiling.latency(net, small, x, rounds=5))
    Report(Sequential, pruned: summary, costs, channels, certificate, plan)
    """
    used = _plan(model, small, plan)
    timed = _timed(latency)
    _check_quality(quality)
    _check_filters(filters)
    graph = _graph(model, args, kwargs, scores)
    _check_search(graph, sensitivity, frontier)
    proof = verify(model, small, used, *args, graph=graph, seed=_SEED, **kwargs)
    case = Case(
        graph=graph,
        plan=used,
        removed=removed_units(graph, used),
        proof=proof,
        tolerance=TOLERANCE,
        seed=_SEED,
        before=profile(model, *args, **kwargs),
        after=profile(small, *args, **kwargs),
        latencies=timed,
        quality=quality or {},
        scores=scores,
        sensitivity=sensitivity,
        frontier=frontier,
        filters=filters,
    )
    found = (section(case) for section in SECTIONS)
    return Report(title or f"{type(model).__name__}, pruned", tuple(s for s in found if s is not None))


def _plan(model: nn.Module, small: nn.Module, plan: Plan | None) -> Plan:
    for name, given in (("model", model), ("small", small)):
        if not isinstance(given, nn.Module):
            raise InputError(f"report: `{name}` must be a torch.nn.Module, got {type(given).__name__}")
    if plan is not None and not isinstance(plan, Plan):
        raise InputError(f"report: `plan` must be a Plan, got {type(plan).__name__}; Plan.load reads a file")
    used = plan if plan is not None else plan_of(small)
    if used is None:
        raise InputError(
            f"report: it is not known which plan made the small {type(small).__name__}, as it was not cut or "
            f"loaded in this process; give plan=Plan.load(...)"
        )
    check_plan(model, used)
    return used


def _timed(latency: object) -> tuple[Latency, ...]:
    given = tuple(latency) if isinstance(latency, Sequence) else (latency,)
    for found in given:
        if not isinstance(found, Latency) or len(found.timings) != 2:
            raise InputError(
                "report: `latency` takes what profiling.latency(model, small, x) returns, timings of the "
                f"original and the small model, got {found!r}"
            )
    return given


def _check_quality(quality: object) -> None:
    if quality is None:
        return
    pairs = quality.items() if isinstance(quality, Mapping) else [(None, None)]
    for name, pair in pairs:
        numbers = pair if isinstance(pair, tuple) and len(pair) == 2 else (None,)
        if not isinstance(name, str) or not all(
            isinstance(n, int | float) and math.isfinite(n) for n in numbers
        ):
            raise InputError(
                "report: `quality` takes finite numbers of the original and of the small model, by what they "
                f"are: {{'accuracy': (0.926, 0.914)}}, got {quality!r}"
            )


def _check_filters(filters: object) -> None:
    both = filters if isinstance(filters, tuple) and len(filters) == 2 else (None,)
    if filters is not None and not all(isinstance(each, FilterReport) for each in both):
        raise InputError(
            "report: `filters` takes two filter reports, (filters.report(model), filters.report(small)), got "
            f"{type(filters).__name__}"
        )


def _check_search(graph: Graph, sensitivity: object, frontier: object) -> None:
    if sensitivity is not None:
        if not isinstance(sensitivity, Sensitivity):
            raise InputError(
                "report: `sensitivity` takes what search.sensitivity(model, x, evaluate=...) returns, got "
                f"{type(sensitivity).__name__}"
            )
        sensitivity.drops_of(graph)  # raises for another model's
        for curve in sensitivity.curves:
            if not all(map(math.isfinite, (sensitivity.quality, *curve.quality))):
                raise InputError(f"report: the sensitivity of {curve.group} has a quality that is not finite")
    if frontier is not None:
        if not isinstance(frontier, Frontier):
            raise InputError(
                "report: `frontier` takes a search.Frontier, such as search.Frontier(points, 'accuracy'), "
                f"got {type(frontier).__name__}"
            )
        for point in frontier.points:
            if not all(map(math.isfinite, (point.quality, *point.costs.values()))):
                raise InputError(
                    f"report: point {point.name!r} of the frontier has a quality or cost that is not finite, "
                    f"{point.quality} at {dict(point.costs)}; leave it out, or measure it again"
                )


def _graph(model: nn.Module, args: Any, kwargs: Any, scores: Scores | None) -> Graph:
    """The graph of the scores, whose units these are of; else a new one."""
    if scores is None:
        return capture(model, *args, **kwargs)
    if not isinstance(scores, Scores) or scores.graph.model is not model:
        of = scores.graph.signature.model if isinstance(scores, Scores) else type(scores).__name__
        raise InputError(
            f"report: `scores` must be of the model that is given, got those of another {of}; score "
            f"capture(model, x)"
        )
    return scores.graph
