"""The scores of a graph's units, as a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compressor.core.graph import PINNED, Graph
from compressor.errors import ScoreError
from compressor.scoring.units import Values

__all__ = ["Scores"]


@dataclass(frozen=True, eq=False)
class Scores:
    """One number for each unit of a graph, larger = more worth keeping; read-only and finite.

    `scorer` says in words where they come from. Raises ScoreError for values that are not one
    finite number for each unit.

    >>> import torch
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> graph = cp.capture(net, torch.ones(1, 2))
    >>> Scores(graph, np.array([0.5, 2.0, 1.0]), "by hand")
    Scores(by hand of Sequential: 3 units in 1 group, 0.5 to 2)
    """

    graph: Graph
    values: Values
    scorer: str

    def __post_init__(self) -> None:
        # A copy: whoever made the array may write to it again.
        values = np.array(self.values, dtype=np.float64)
        if values.shape != (self.graph.n_units,):
            raise ScoreError(
                f"{self.scorer}: the graph of {self.graph.signature.model} has "
                f"{self.graph.n_units} units, got scores of shape {list(values.shape)}; give one "
                "score for each unit of the graph they are used with"
            )
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise ScoreError(
                f"{self.scorer}: unit {bad[0]} of {_group_name(self.graph, int(bad[0]))} has the "
                f"score {values[bad[0]]} ({len(bad)} of {len(values)} units are not finite); "
                "scores must be finite: look for NaN or infinite weights, or a division by zero"
            )
        values.flags.writeable = False
        object.__setattr__(self, "values", values)

    def __repr__(self) -> str:
        groups = len(self.graph.groups)
        size = f"{len(self.values)} units in {groups} group{'' if groups == 1 else 's'}"
        span = f", {self.values.min():.4g} to {self.values.max():.4g}" if len(self.values) else ""
        return f"Scores({self.scorer} of {self.graph.signature.model}: {size}{span})"

    def summary(self) -> str:
        """A table with one row for each group: how many units, their least, median and largest."""
        rows = [(group.name, self.values[np.concatenate(group.cells)]) for group in self.graph.groups]
        width = max([len("group"), *(len(name) for name, _ in rows)])
        lines = [repr(self), f"{'group':<{width}}  units       least      median     largest"]
        for name, values in rows:
            least, median, largest = np.quantile(values, (0, 0.5, 1))
            numbers = f"{len(values):>5}  {least:>10.4g}  {median:>10.4g}  {largest:>10.4g}"
            lines.append(f"{name:<{width}}  {numbers}")
        return "\n".join(lines)


def _group_name(graph: Graph, unit: int) -> str:
    position = graph.group_of[unit]
    return "no group" if position == PINNED else f"group {graph.groups[position].name!r}"
