"""One operator call as a rule sees it: its operands as labelled values, and ways to state facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.core.labels import Ids, LabelSpace, Layer, Value
from compressor.core.tape import Op

__all__ = ["MEETS_FIXED", "Call", "Layers", "Restriction", "WorkFact"]

_FLATTENED = "flattened together with another channel axis"
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


def _no_blocks(name: str, groups: int, columns: int) -> Ids:
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
    works: list[WorkFact] = field(default_factory=list)
    restrictions: list[Restriction] = field(default_factory=list)
    choices: dict[int, tuple[str, ...]] = field(default_factory=dict)
    block_labels: Callable[[str, int, int], Ids] = _no_blocks

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

    def meet(self, one: Layers, other: Layers) -> None:
        """The layers along one axis of two operands that meet there, position by position."""
        if len(one) == len(other):
            for a, b in zip(one, other, strict=True):
                self.merge(a.ids, b.ids)
        elif len(other) == 1:
            self._meet_flattened(one, other[0])
        elif len(one) == 1:
            self._meet_flattened(other, one[0])
        else:
            for layer in (*one[1:], *other):
                self.merge(one[0].ids, layer.ids)

    def _meet_flattened(self, several: Layers, single: Layer) -> None:
        reason = f"{MEETS_FIXED} ({self.where})"
        self.space.merge_one(tuple(layer.ids for layer in several), single.ids, reason)

    def cross(self, one: Layer, other: Layer) -> None:
        """Two channel axes were flattened into one here."""
        self.space.cross(one.ids, other.ids, f"{_FLATTENED} ({self.where})")

    def only_ids(self, value: Value, axis: int) -> Ids:
        """The labels along `axis` for a rule that can follow one layer; further ones are pinned."""
        for layer in value.over(axis)[1:]:
            self.pin(layer, _FLATTENED)
        return value.ids(axis)

    def tie(self, rows: Ids) -> Ids:
        """Merge the labels of each row of `rows` [n, m]; the first label of every row [n]."""
        self.merge(rows, rows[:, :1])
        return rows[:, 0]

    def equal(self, rows: Ids, reason: str) -> None:
        """Each row must lose equally many labels."""
        self.space.equal(rows, f"{reason} ({self.where})")

    def changes_statistics(self, layer: Layer) -> None:
        """Removing these labels changes a statistic that other channels see."""
        self.space.statistics.append(layer.ids[layer.ids >= 0])

    def restrict(self, kind: str, axes: Mapping[int, Iterable[int]]) -> None:
        """The reference must run this operator on the kept positions along these axes of its operands."""
        chosen = {operand: frozenset(some) for operand, some in axes.items()}
        self.restrictions.append(Restriction(self.op, kind, chosen))

    def work(self, coefficient: int, *dims: Ids, divisor: int = 1) -> None:
        """State the operator's multiply-accumulates."""
        self.works.append(WorkFact(self.op, int(coefficient), dims, divisor))

    def choose(self, *options: str) -> str:
        """How to read an ambiguous operator: the option in force (the first unless it was refuted)."""
        self.choices[self.op.index] = options
        return self.choice if self.choice in options else options[0]
