"""Finding sizes written into a forward: run a model cut by a trial plan and see where it trips.

The trial removes some units of every group. Its forward is recorded on the meta device (shapes only,
no arithmetic) and compared with what the plan demands, operator by operator. Where they part, the
number is looked for among the attributes of the modules that were running; if changing one helps, it
becomes a size rule. If none does, another reading of the operator is tried, and at last its labels
are pinned. So whatever the graph offers for removal is known to run.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.core.coupling import PIN_ALL, Coupling, couple
from compressor.core.graph import Graph, SizeRule
from compressor.core.plan import Plan
from compressor.core.sizes import Mask, Number, Sizes
from compressor.core.stand_in import Answers, disguised
from compressor.core.surgery import cut_copy, cut_tensor, set_sizes
from compressor.core.tape import Op, Tape, record_attempt
from compressor.core.units import Units, find_units
from compressor.errors import CaptureError

__all__ = ["Reading", "read"]

log = logging.getLogger(__name__)
_MOST_COMBINATIONS = 64
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, eq=False)
class Reading:
    """The outcome: labels read in a way that a trial confirmed, and the attributes that hold sizes."""

    graph: Graph
    rules: tuple[SizeRule, ...]


@dataclass(slots=True)
class _State:
    """How operators are read so far, and which attributes were found to hold sizes."""

    choices: dict[tuple[int, int], str] = field(default_factory=dict)
    found: dict[tuple[int, int], tuple[_Attribute, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Attribute:
    """`module.attribute` (or one item of it) holds this number of the operator."""

    module: str
    attribute: str
    item: int | None
    which: int


def read(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tapes: Sequence[Tape],
    build: Callable[[Coupling, Units], Graph],
) -> Reading:
    """Couple the tapes, rehearse, correct, until every tape's trial runs as expected.

    `build(coupling, units)` makes the Graph of the current reading.
    """
    state = _State()
    limit = 2 * sum(len(tape.ops) for tape in tapes) + 8
    for _ in range(limit):
        coupling = couple(tapes, state.choices)
        units = find_units(coupling.space)
        rules = _rules(state, tapes, coupling, units)
        graph = build(coupling, units)
        trial = _Trial(model, args, kwargs, tapes, coupling, units, graph)
        tripped = trial.first_trip(rules) if units.count else None
        if tripped is None:
            return Reading(graph, rules)
        _correct(state, trial, tripped, rules)
    raise CaptureError(
        f"{type(model).__name__}: its forward could not be followed for a pruned copy; the last operator "
        f"that tripped was {tripped!r}. Please report the model, or ignore the layers around it"
    )


def _correct(state: _State, trial: _Trial, tripped: tuple[int, int], rules: tuple[SizeRule, ...]) -> None:
    """Record what explains the trip: attributes, else another reading, else pins."""
    tape, index = tripped
    attributes = trial.attributes_for(tripped, rules) if tripped not in state.found else None
    if attributes is not None:
        state.found[tripped] = attributes
        return
    state.found.pop(tripped, None)
    options = trial.coupling.options.get(tripped, ())
    current = state.choices.get(tripped, options[0] if options else PIN_ALL)
    op = trial.tapes[tape].ops[index]
    if current in options and current != options[-1]:
        state.choices[tripped] = options[options.index(current) + 1]
    elif state.choices.get(tripped) != PIN_ALL:
        state.choices[tripped] = PIN_ALL
    else:
        # Nothing left at this operator: its inputs were decided by the nearest one before it.
        earlier = (tape, index - 1)
        while earlier[1] > 0 and state.choices.get(earlier) == PIN_ALL:
            earlier = (tape, earlier[1] - 1)
        state.choices[earlier] = PIN_ALL
    log.info("%s in %r: sizes do not follow, read as %r", op.target, op.module, state.choices.get(tripped))


def _rules(
    state: _State, tapes: Sequence[Tape], coupling: Coupling, units: Units
) -> tuple[SizeRule, ...]:
    rules = []
    for (tape, index), attributes in state.found.items():
        numbers = list(Sizes(tapes[tape], tape, coupling, units).numbers(tapes[tape].ops[index]))
        for a in attributes:
            if a.which < len(numbers):
                number = numbers[a.which]
                rules.append(SizeRule(a.module, a.attribute, a.item, number.units, number.divisor))
    return tuple(rules)


@dataclass(frozen=True, eq=False)
class _Trial:
    """One reading of the tapes under trial."""

    model: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    tapes: Sequence[Tape]
    coupling: Coupling
    units: Units
    graph: Graph

    def first_trip(self, rules: tuple[SizeRule, ...]) -> tuple[int, int] | None:
        """The first operator of any tape that the cut model runs otherwise than expected."""
        removed = _some_units(self.units)
        plan = replace(self.graph, size_rules=(*self.graph.size_rules, *rules)).plan(removed)
        for number, tape in enumerate(self.tapes):
            index = self._trip(number, tape, plan, removed)
            if index is not None:
                return number, index
        return None

    def _trip(self, number: int, tape: Tape, plan: Plan, removed: Mask) -> int | None:
        index = self._compare(number, tape, plan, removed, meta=True)
        if index is not None:
            # Some operators and branches need real numbers; only a real trip counts.
            index = self._compare(number, tape, plan, removed, meta=False)
        return index

    def _compare(self, number: int, tape: Tape, plan: Plan, removed: Mask, *, meta: bool) -> int | None:
        padded = np.append(removed, False)
        sizes = Sizes(tape, number, self.coupling, self.units)
        if meta:
            answers = Answers(tape, sizes, padded)
            args, kwargs = _pytree.tree_map_only(
                Tensor, lambda x: x.to("meta"), (self.args, self.kwargs)
            )
            with disguised(self.model, plan):
                rehearsed, error = record_attempt(
                    self.model, args, kwargs, training=tape.training, stand_in=answers
                )
        else:
            small = cut_copy(self.model, plan.cuts, cut_tensor)
            set_sizes(small, plan.sizes)
            rehearsed, error = record_attempt(small, self.args, self.kwargs, training=tape.training)
        for op, found in zip(tape.ops, rehearsed.ops, strict=False):
            if not sizes.agrees(op, found, rehearsed.values, padded):
                return op.index
        done = len(rehearsed.ops)
        if error is not None or done != len(tape.ops):
            log.debug("rehearsal stopped after %d operators: %s", done, error)
            return min(done, len(tape.ops) - 1)
        return None

    # -- attributes ------------------------------------------------------------------------------

    def attributes_for(
        self, tripped: tuple[int, int], rules: tuple[SizeRule, ...]
    ) -> tuple[_Attribute, ...] | None:
        """Attributes which, once they follow the cut, let the operator run as expected."""
        number, index = tripped
        tape = self.tapes[number]
        op = tape.ops[index]
        padded = np.append(_some_units(self.units), False)
        numbers = list(Sizes(tape, number, self.coupling, self.units).numbers(op))
        changing = [i for i, n in enumerate(numbers) if n.new(padded) != n.old()]
        candidates = [list(self._candidates(op, numbers[i], i)) for i in changing]
        known = [c for c in candidates if c]
        if not known:
            return None
        for combination in itertools.islice(itertools.product(*known), _MOST_COMBINATIONS):
            if len({(a.module, a.attribute, a.item) for a in combination}) < len(combination):
                continue
            extra = tuple(
                SizeRule(a.module, a.attribute, a.item, numbers[a.which].units, numbers[a.which].divisor)
                for a in combination
            )
            after = self.first_trip((*rules, *extra))
            if after is None or after > tripped:
                return combination
        return None

    def _candidates(self, op: Op, number: Number, which: int) -> Iterator[_Attribute]:
        """Whole numbers of that value in the running module and those around it, nearest first."""
        modules = dict(self.model.named_modules())
        known = {(r.module, r.attribute, r.item) for r in self.graph.size_rules}
        path = op.module
        while True:
            for name, value in vars(modules[path]).items():
                for item, entry in _entries(value):
                    if entry == number.old() and (path, name, item) not in known:
                        yield _Attribute(path, name, item, which)
            if not path:
                return
            path = path.rpartition(".")[0]


def _entries(value: Any) -> Iterator[tuple[int | None, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield None, value
    elif isinstance(value, (list, tuple)):
        for item, entry in enumerate(value):
            if isinstance(entry, int) and not isinstance(entry, bool):
                yield item, entry


def _some_units(units: Units) -> Mask:
    """A third to two thirds of every group's ranks, a different share from group to group.

    They are spread so that every run of ranks loses some, the earlier ones more: whatever number a
    forward holds, it changes, and numbers that were equal mostly become different.
    """
    removed = np.zeros(units.count, dtype=bool)
    for position, group in enumerate(units.groups):
        if group.size > 1:
            share = 0.35 + 0.3 * (position * _GOLDEN % 1)
            ranks = np.arange(group.size)
            order = np.argsort(ranks * _GOLDEN % 1 + 0.5 * ranks / group.size)
            gone = order[: min(max(1, round(share * group.size)), group.size - 1)]
            for cell in group.cells:
                removed[cell[gone]] = True
    return removed

