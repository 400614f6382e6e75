"""How far the channels of a plan are from silence after sparse training, and the last bit of the way."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.core.surgery import check_plan
from compressor.core.tape import named_tensors
from compressor.errors import InputError
from compressor.tables import aligned
from compressor.training.sparsity.slices import Slices
from compressor.training.sparsity.targets import planned, targets

__all__ = ["GroupSilence", "Silence", "silence_", "silenced"]


@dataclass(frozen=True)
class GroupSilence:
    """Of a group's planned channels: how many, the largest size of one, and the share not yet silent.

    The size of a norm's scale is |γ|, that of a writer's slice the root mean square of its numbers.
    """

    group: str
    channels: int
    largest: float
    loud: int


@dataclass(frozen=True)
class Silence:
    """How far from zero planned channels are; a channel is silent where it is at most `tolerance`."""

    groups: tuple[GroupSilence, ...]
    tolerance: float

    @property
    def largest(self) -> float:
        """The size of the loudest planned channel."""
        return max(group.largest for group in self.groups)

    @property
    def done(self) -> bool:
        """Whether all planned channels are silent."""
        return all(group.loud == 0 for group in self.groups)

    def __str__(self) -> str:
        rows = [(one.group, str(one.channels), f"{one.largest:.3g}", str(one.loud)) for one in self.groups]
        lines = aligned([("group", "channels", "largest", "loud"), *rows])
        verdict = "silent" if self.done else "not silent yet"
        return "\n".join([*lines, f"{verdict} (tolerance {self.tolerance:g})"])


def silenced(plan: Plan, graph: Graph, *, model: nn.Module | None = None, tolerance: float = 1e-6) -> Silence:
    """How far the scales (and, where no norm silences them, the filters) of planned channels are from zero.

    `model` is the graph's or one of the same structure, such as an average of its weights (EMA).
    Channels are counted once for each tensor that holds them.

    Raises PlanMismatchError for a plan or model that does not fit.

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))
    >>> graph = cp.capture(net, torch.rand(2, 4))
    >>> plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    >>> print(silenced(plan, graph))
    group     channels  largest  loud
    0.weight         1        1     1
    not silent yet (tolerance 1e-06)
    """
    net = _of_plan(plan, graph, model)
    tensors = named_tensors(net)
    sizes: dict[str, list[torch.Tensor]] = {}
    for slices in _watched(plan, graph):
        size_K = _sizes(slices, tensors[slices.name])
        for position in dict.fromkeys(graph.group_of[slices.units].tolist()):
            here = torch.from_numpy(graph.group_of[slices.units] == position)
            sizes.setdefault(graph.groups[position].name, []).append(size_K[here])
    found = []
    for name, parts in sizes.items():
        size = torch.cat(parts)
        loud = int((~(size <= tolerance)).sum())  # not a number is loud
        found.append(GroupSilence(name, len(size), float(size.max()), loud))
    return Silence(tuple(found), tolerance)


@torch.no_grad()
def silence_(plan: Plan, graph: Graph, *, model: nn.Module | None = None, tolerance: float = 1e-2) -> None:
    """Set what `silenced` looks at to exactly zero, in place; only where all of it is close to zero.

    For what ends close by: subgradients oscillate around zero, an average of weights approaches it.
    Raises InputError where a channel is further away than `tolerance`, before anything changes.
    """
    found = silenced(plan, graph, model=model, tolerance=tolerance)
    if not found.done:
        loud = max(found.groups, key=lambda group: group.largest)
        raise InputError(
            f"{sum(group.loud for group in found.groups)} planned channels are not within {tolerance:g} of "
            f"zero; the largest is {loud.largest:.3g} in group {loud.group!r}. Train further, with a "
            f"stronger form (Within(rates) derives it from the schedule), or allow a larger tolerance"
        )
    tensors = named_tensors(_of_plan(plan, graph, model))
    for slices in _watched(plan, graph):
        slices.put_(tensors[slices.name], torch.zeros_like(slices.rows(tensors[slices.name])))


def _of_plan(plan: Plan, graph: Graph, model: nn.Module | None) -> nn.Module:
    if model is None:
        return graph.model
    check_plan(model, plan)
    return model


def _watched(plan: Plan, graph: Graph) -> tuple[Slices, ...]:
    found = targets(graph, planned(plan, graph))
    return (*found.scales, *found.writers)


def _sizes(slices: Slices, tensor: torch.Tensor) -> torch.Tensor:
    """The size of each channel [K], on the host."""
    rows_KN = slices.rows(tensor.detach()).to(torch.float32)
    size_K: torch.Tensor = torch.linalg.vector_norm(rows_KN, dim=1) / math.sqrt(rows_KN.shape[1])
    return size_K.cpu()
