"""Backward elimination: in which order the inputs of linear layers go so that the rest makes up for most.

Shapes: K inputs and O outputs of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Reader", "eliminate"]


@dataclass(eq=False)
class Reader:
    """One layer that reads units: what its least-squares weights leave when inputs go.

    `inverse` [K, K] is that of E xxᵀ of the inputs that are there, `weights` [K, O] are the best ones with
    them, in units in which errors of all outputs and layers add up. `columns` gives each unit its inputs.
    Inputs that are gone have zeros in both.
    """

    inverse: Tensor
    weights: Tensor
    columns: dict[int, Tensor]

    def costs(self, units: Sequence[int]) -> Tensor:
        """By how much the error grows when each unit's inputs go and the others are fitted anew.

        For inputs c that is tr(W_cᵀ (A_cc)⁻¹ W_c) with A the inverse: the block form of the optimal brain
        surgeon.
        """
        found = torch.zeros(len(units), dtype=self.weights.dtype, device=self.weights.device)
        by_size: dict[int, list[int]] = {}
        for position, unit in enumerate(units):
            if unit in self.columns:
                by_size.setdefault(len(self.columns[unit]), []).append(position)
        for positions in by_size.values():
            columns = torch.stack([self.columns[units[p]] for p in positions])
            blocks = self.inverse[columns[:, :, None], columns[:, None, :]]
            weights = self.weights[columns]
            found[torch.tensor(positions, device=found.device)] = (
                (weights * torch.linalg.solve(blocks, weights)).sum((1, 2)).clamp(min=0)
            )
        return found

    def remove(self, unit: int) -> None:
        """Take the unit's inputs away, and fit the others anew."""
        columns = self.columns.pop(unit, None)
        if columns is None:
            return
        across = self.inverse[:, columns]
        solved = torch.linalg.solve(self.inverse[columns][:, columns], across.mT).mT
        self.weights = self.weights - solved @ self.weights[columns]
        self.inverse = self.inverse - solved @ across.mT
        self.inverse[columns] = 0
        self.inverse[:, columns] = 0
        self.weights[columns] = 0


def eliminate(
    readers: Sequence[Reader], cells: Sequence[Sequence[int]]
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """The units in the order in which they go, and by how much each makes the error grow [n].

    Greedy: each time the unit that costs least, all readers together, of the cells that lost least so far
    (cells are to lose equally many). The readers are used up.

    >>> def alone():  # inputs of mean squares 1, 4 and 9, unrelated, with weight 1
    ...     inverse = torch.diag(1 / torch.tensor([1.0, 4.0, 9.0]))
    ...     return Reader(inverse, torch.ones(3, 1), {unit: torch.tensor([unit]) for unit in range(3)})
    >>> order, growth = eliminate([alone()], [[0, 1, 2]])
    >>> order, growth.round(4).tolist()
    ([0, 1, 2], [1.0, 4.0, 9.0])
    """
    alive = [list(cell) for cell in cells]
    order: list[int] = []
    growth: list[float] = []
    while any(alive):
        most = max(map(len, alive))
        units = [unit for cell in alive if len(cell) == most for unit in cell]
        costs = torch.stack([reader.costs(units).cpu() for reader in readers]).sum(0)
        chosen = int(costs.argmin())
        for reader in readers:
            reader.remove(units[chosen])
        for cell in alive:
            if units[chosen] in cell:
                cell.remove(units[chosen])
        order.append(units[chosen])
        growth.append(float(costs[chosen]))
    return order, np.array(growth)
