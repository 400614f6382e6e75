"""One operator call as a rule sees it: its operands as labelled values, and ways to state facts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compressor.core.labels import NEUTRAL, Ids, LabelSpace, Layer, Split, Value
from compressor.core.picks import Pick, Shift
from compressor.core.tape import Op

__all__ = ["MEETS_FIXED", "Call", "Layers", "Restriction", "WorkFact"]

_SPLIT = "split into heads or groups elsewhere"
MEETS_FIXED = "meets values whose channels are fixed, such as an input or a constant"

Layers = tuple[Layer, ...]


@dataclass(frozen=True, slots=True, eq=False)
class WorkFact:
    """Multiply-accumulates of an operator in terms of labels, see `graph.Work`."""

    op: Op
    coefficient: int
    dims: tuple[Ids, ...]
    divisor: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Restriction:
    """An operator that reads across labelled positions without a parameter to silence.

    The reference of `verify` runs it on the kept positions only, along these axes of these operands.
    """

    op: Op
    kind: str
    axes: Mapping[int, frozenset[int]]


def _no_blocks(name: str, groups: int, columns: int) -> tuple[Ids, ...]:
    raise AssertionError(f"no block labels for {name} ({groups} groups of {columns})")


@dataclass(slots=True)
class Call:
    """The operator, its arguments with every tensor replaced by its `Value`, and the label space."""

    op: Op
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    space: LabelSpace
    choice: str
    place: tuple[int, int] = (0, 0)
    splittable: bool = True
    works: list[WorkFact] = field(default_factory=list)
    restrictions: list[Restriction] = field(default_factory=list)
    picks: list[Pick | Shift] = field(default_factory=list)
    choices: dict[int, tuple[str, ...]] = field(default_factory=dict)
    block_labels: Callable[[str, int, int], tuple[Ids, ...]] = _no_blocks

    def arg(self, position: int, default: Any = None) -> Any:
        """The positional argument at `position`, or `default` where the call left it out."""
        return self.args[position] if position < len(self.args) else default

    def values(self) -> Iterator[Value]:
        """Every tensor operand, also those inside lists."""
        for item in (*self.args, *self.kwargs.values()):
            if isinstance(item, Value):
                yield item
            elif isinstance(item, (list, tuple)):
                yield from (x for x in item if isinstance(x, Value))

    @property
    def where(self) -> str:
        """The operator and its module, for reasons."""
        name = self.op.target.removeprefix("aten.").partition(".")[0]
        return f"{name} in {self.op.module or 'the model itself'}"

    # -- facts -----------------------------------------------------------------------------------

    def pin(self, layer: Layer, reason: str) -> None:
        """These labels cannot be removed."""
        self.space.pin(layer.ids, f"{reason} ({self.where})")

    def pin_all(self, reason: str) -> None:
        """No label that enters this operator can be removed."""
        for value in self.values():
            for layer in value.layers:
                self.pin(layer, reason)

    def merge(self, a: Ids, b: Ids) -> None:
        """Labels that meet here are one channel."""
        self.space.merge(a, b, f"{MEETS_FIXED} ({self.where})")

    def only_ids(self, value: Value, axis: int) -> Ids:
        """The labels along `axis` for a rule that can follow one factor; further ones are pinned."""
        found = value.over(axis)
        for layer in found[1:]:
            self.pin(layer, _SPLIT)
        return found[0].ids if found else value.ids(axis)

    def fresh(self, size: int, what: Hashable) -> tuple[Ids, ...]:
        """Labels [size] for each factor of an axis that this operator makes; `what` says which."""
        return self.space.axis((*self.place, what), size)

    def split(self, ids: Ids, parts: Sequence[Ids], reason: str) -> bool:
        """The labels `ids` are to fall into factors, label i at `parts[k][i]` of factor k.

        Where that cannot be (`splittable` is false, after a try), they are pinned for `reason`, and
        the result is False.
        """
        if self.splittable:
            self.space.splits.append(Split(ids, tuple(parts), self.op.index))
        else:
            self.space.pin(ids, f"{reason} ({self.where})")
        return self.splittable

    def tie(self, rows: Ids) -> Ids:
        """Merge the labels of each row of `rows` [n, m]; the first label of every row [n]."""
        self.merge(rows, rows[:, :1])
        return rows[:, 0]

    def equal(self, rows: Ids, reason: str) -> None:
        """Each row of `rows` [blocks, width] must lose equally many positions."""
        if (rows != NEUTRAL).all() and len(np.unique(rows[0])) < rows.shape[1]:
            # Of a factor every label fills several positions; once each is enough to count them.
            once = [np.unique(row) for row in rows]
            if len({len(row) for row in once}) == 1:
                rows = np.stack(once)
        self.space.equal(rows, f"{reason} ({self.where})")

    def changes_statistics(self, layer: Layer) -> None:
        """Removing these labels changes a statistic that other channels see."""
        self.space.statistics.append(layer.ids[layer.ids >= 0])

    def restrict(self, kind: str, axes: Mapping[int, Iterable[int]]) -> None:
        """The reference must run this operator on the kept positions along these axes of its operands."""
        chosen = {operand: frozenset(some) for operand, some in axes.items()}
        self.restrictions.append(Restriction(self.op, kind, chosen))

    def work(self, coefficient: int, *dims: Ids, divisor: int = 1) -> None:
        """State the operator's multiply-accumulates: each dim's labels, [n] or [factors, n]."""
        self.works.append(WorkFact(self.op, int(coefficient), dims, divisor))

    def choose(self, *options: str) -> str:
        """How to read an ambiguous operator: the option in force (the first unless it was refuted)."""
        self.choices[self.op.index] = options
        return self.choice if self.choice in options else options[0]
