"""Quality against costs of several cuts of one model: points, which of them are beaten, as a value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from compressor.core.graph import Graph, require_graph
from compressor.core.plan import Plan
from compressor.errors import FileError, InputError
from compressor.profiling.cost import removed_by
from compressor.profiling.costs import costs
from compressor.search.evaluating import Evaluate, check_evaluate, name_of, weights_digest
from compressor.search.files import Journal, load_json, write_json
from compressor.search.measuring import Task, measured, plan_digest
from compressor.tables import aligned

__all__ = ["Frontier", "Point", "frontier", "point"]

_FORMAT = "compressor-frontier"


@dataclass(frozen=True)
class Point:
    """One cut of a model: its quality, larger = better, and its costs by name, as `profiling.Costs` has them.

    `plan` is None where nothing is cut.
    """

    name: str
    quality: float
    costs: Mapping[str, float]
    plan: Plan | None = None

    def __repr__(self) -> str:
        return f"Point({self.name}: {self.quality:.4g})"


@dataclass(frozen=True, repr=False)
class Frontier:
    """Points of one model and one evaluation, and which of them no other beats.

    A point is dominated by another that is nowhere worse, and better somewhere, in quality and the costs
    named in `by`. Of equal points none dominates the other.

    >>> points = [Point("a", 0.9, {"macs": 50}), Point("b", 0.8, {"macs": 60}), Point("c", 0.7, {"macs": 20})]
    >>> print(Frontier(tuple(points), "accuracy"))
    2 of 3 points are not dominated in accuracy and macs
           accuracy  macs
    c        0.7000    20
    a        0.9000    50
    (b)      0.8000    60
    """

    points: tuple[Point, ...]
    evaluation: str
    by: tuple[str, ...] = ("macs",)

    def __post_init__(self) -> None:
        if isinstance(self.by, str):
            raise InputError(f"by is a tuple of costs, such as ({self.by!r},), got {self.by!r}")
        if not self.points or not self.by:
            raise InputError("a frontier needs at least one point, and one cost to hold the quality against")
        for each in self.points:
            for cost in self.by:
                if cost not in each.costs:
                    raise InputError(f"{each!r} has no cost {cost!r}; it has {', '.join(each.costs)}")

    @property
    def dominated(self) -> tuple[bool, ...]:
        """For each point whether another one beats it."""
        values = np.array([[-p.quality, *(p.costs[cost] for cost in self.by)] for p in self.points])
        found = [bool(((values <= own).all(axis=1) & (values < own).any(axis=1)).any()) for own in values]
        return tuple(found)

    @property
    def best(self) -> tuple[Point, ...]:
        """The points that are not dominated, the cheapest first."""
        kept = [p for p, beaten in zip(self.points, self.dominated, strict=True) if not beaten]
        return tuple(sorted(kept, key=lambda p: (p.costs[self.by[0]], -p.quality)))

    def __repr__(self) -> str:
        of = f"{len(self.best)} of {len(self.points)} points"
        return f"Frontier({of}, {self.evaluation} by {', '.join(self.by)})"

    def __str__(self) -> str:
        beaten = dict(zip(map(id, self.points), self.dominated, strict=True))
        ranked = sorted(self.points, key=lambda p: (p.costs[self.by[0]], -p.quality))
        rows = [["", self.evaluation, *self.by]]
        for p in ranked:
            name = f"({p.name})" if beaten[id(p)] else p.name
            rows.append([name, f"{p.quality:.4f}", *(_amount(p.costs[cost]) for cost in self.by)])
        free = sum(not each for each in beaten.values())
        head = (
            f"{free} of {len(self.points)} points are not dominated in {self.evaluation} and "
            f"{', '.join(self.by)}"
        )
        return "\n".join([head, *aligned(rows)])

    def to_dict(self) -> dict[str, Any]:
        """The value as plain data; plans as the text of their files."""
        points = [
            {**asdict(replace(p, plan=None)), "costs": dict(p.costs), "plan": p.plan and p.plan.to_json()}
            for p in self.points
        ]
        return {"points": points, "evaluation": self.evaluation, "by": list(self.by)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Frontier:
        """The value of `to_dict`; raises FileError where the data is none."""
        try:
            points = tuple(
                Point(
                    str(each["name"]),
                    float(each["quality"]),
                    dict(each["costs"]),
                    None if each["plan"] is None else Plan.from_json(each["plan"]),
                )
                for each in data["points"]
            )
            return cls(points, str(data["evaluation"]), tuple(map(str, data["by"])))
        except (KeyError, TypeError, ValueError, OverflowError, InputError, FileError) as error:
            raise FileError(f"the data is no frontier: {error!r}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a JSON file; raises FileError where that is not possible."""
        write_json(path, _FORMAT, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Frontier:
        """What `save` wrote; raises FileError for anything else."""
        return load_json(path, _FORMAT, cls.from_dict)


def _amount(cost: float) -> str:
    return f"{cost:,.6g}" if isinstance(cost, float) else f"{cost:,}"


def point(graph: Graph, name: str, quality: float, plan: Plan | None) -> Point:
    """The point of a plan, with its costs as the graph counts them."""
    return Point(name, quality, asdict(costs(graph, plan)), plan)


def frontier(
    graph: Graph,
    plans: Mapping[str, Plan],
    *,
    evaluate: Evaluate,
    cache: str | os.PathLike[str] | None = None,
    name: str | None = None,
    workers: int | Executor = 1,
    seed: int = 0,
    by: tuple[str, ...] = ("macs",),
) -> Frontier:
    """The points of some plans by name, and of the model as it is, "original".

    `evaluate`, `cache`, `name`, `workers` and `seed` are those of `sensitivity`, which may share the cache.
    Raises PlanMismatchError for a plan of another model.

    >>> import torch; from torch import nn; import compressor as cp
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> scores = cp.score(cp.capture(net, torch.ones(1, 4)), cp.scoring.Norm())
    >>> plans = {f"{f:.0%}": cp.plan(scores, cp.budget.Macs(f)) for f in (0.75, 0.5)}
    >>> frontier(scores.graph, plans, evaluate=lambda net: float(len(net[0].weight)), name="width")
    Frontier(3 of 3 points, width by macs)
    """
    require_graph("frontier", graph)
    check_evaluate(evaluate)
    called = name_of(evaluate, name, kept=cache is not None)
    if not isinstance(plans, Mapping):
        raise InputError(
            f"plans is a mapping of names to plans, {{'half': plan}}, got {type(plans).__name__}"
        )
    for plan in plans.values():
        removed_by(graph, plan)  # raises before anything is asked
    whole = graph.plan(np.zeros(graph.n_units, dtype=bool))
    tasks = {each: Task(plan_digest(plan), each, plan) for each, plan in {"original": whole, **plans}.items()}
    head: dict[str, str | int] = {"weights": weights_digest(graph.model), "evaluation": called, "seed": seed}
    journal = Journal(cache, head)
    left = {task.key: task for task in tasks.values() if task.key not in journal.known}
    for task, quality in measured(graph.model, list(left.values()), evaluate, seed=seed, workers=workers):
        journal.add(task.key, quality, what=task.what)
    points = [
        point(graph, each, journal.known[task.key], None if task.plan is whole else task.plan)
        for each, task in tasks.items()
    ]
    return Frontier(tuple(points), called, by)
