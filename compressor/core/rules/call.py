"""One operator call as a rule sees it: its operands as labelled values, and ways to state facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.core.labels import Ids, LabelSpace, Layer, Value
from compressor.core.tape import Op

__all__ = ["Call", "Layers", "Restriction", "WorkFact"]

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

    The reference of `verify` runs it on the kept positions only.
    """

    op: Op
    kind: str


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
        self.space.merge(a, b, f"meets values without a label ({self.where})")

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

    def restrict(self, kind: str) -> None:
        """The reference must run this operator on the kept positions."""
        self.restrictions.append(Restriction(self.op, kind))

    def work(self, coefficient: int, *dims: Ids, divisor: int = 1) -> None:
        """State the operator's multiply-accumulates."""
        self.works.append(WorkFact(self.op, int(coefficient), dims, divisor))

    def choose(self, *options: str) -> str:
        """How to read an ambiguous operator: the option in force (the first unless it was refuted)."""
        self.choices[self.op.index] = options
        return self.choice if self.choice in options else options[0]
