"""Finding sizes written into a forward: run a model cut by a trial plan and see where it trips.

The trial removes some units of every group. Its forward is recorded on the meta device (shapes only,
no arithmetic) and compared with what the plan demands, operator by operator. Where they part, the
number is looked for among the attributes of the modules that were running; if changing one helps, it
becomes a size rule. If none does, another reading of the operator is tried, and at last its labels
are pinned. Where everything has its shape and yet a plain number differs (a sum divided by the channel
count), the channels it counts are pinned. So whatever the graph offers for removal is known to run.
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

from compressor.core.coupling import PIN_ALL, Choices, Coupling, couple
from compressor.core.graph import Graph, SizeRule, UnitArray
from compressor.core.plan import Plan
from compressor.core.removals import Rival, can_refute, removals
from compressor.core.sizes import Mask, Number, Sizes, numbers_of, steps
from compressor.core.stand_in import Answers, disguised
from compressor.core.surgery import cut_copy, cut_tensor, set_sizes
from compressor.core.tape import Op, Tape, record_attempt
from compressor.core.units import Units, find_units
from compressor.errors import CaptureError

__all__ = ["Reading", "read"]

log = logging.getLogger(__name__)
_MOST_COMBINATIONS = 64


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
    held: list[_Held] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """These channels of an axis stay, for a reason found by a trial."""

    tensor: str
    axis: int
    channels: tuple[int, ...]
    reason: str


@dataclass(frozen=True, order=True)
class _Trip:
    """The first operator of a tape that ran otherwise than expected; or only a plain number of it did."""

    tape: int
    op: int
    by_number: bool = False

    @property
    def place(self) -> tuple[int, int]:
        """The operator among those of all tapes."""
        return self.tape, self.op


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
    trip: _Trip | None = None
    for _ in range(limit):
        coupling = couple(tapes, state.choices)
        for held in state.held:
            coupling.space.pin_axis(held.tensor, held.axis, held.channels, held.reason)
        units = find_units(coupling.space)
        rules = _rules(state, tapes, coupling, units)
        graph = build(coupling, units)
        trial = _Trial(model, args, kwargs, tapes, coupling, units, graph, state.choices)
        trip = trial.first_trip(rules) if units.count else None
        idle = trial.idle() if trip is None else []
        if trip is not None:
            _correct(state, trial, trip, rules)
        elif idle:
            state.choices.update(dict.fromkeys(idle, "pin"))
        else:
            return Reading(graph, rules)
    raise CaptureError(
        f"{type(model).__name__}: its forward could not be followed for a pruned copy; the last operator "
        f"that tripped was {trip}. Please report the model, or ignore the layers around it"
    )


def _correct(state: _State, trial: _Trial, trip: _Trip, rules: tuple[SizeRule, ...]) -> None:
    """Record what explains the trip: what a number counts, attributes, else another reading, else pins."""
    held = trial.counted(rules) if trip.by_number else []
    if held:
        state.held.extend(held)
        return
    tripped = tape, index = trip.place
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
    log.info(
        "%s in %r: sizes do not follow, read as %r",
        op.target,
        op.module,
        state.choices.get(tripped),
    )


def _rules(state: _State, tapes: Sequence[Tape], coupling: Coupling, units: Units) -> tuple[SizeRule, ...]:
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
    choices: Choices

    def first_trip(self, rules: tuple[SizeRule, ...]) -> _Trip | None:
        """The first operator of any tape that a cut model runs otherwise than expected."""
        for removed in self._removals(rules):
            plan = self._plan(removed, rules)
            for number in range(len(self.tapes)):
                trip = self._trip(number, plan, removed)
                if trip is not None:
                    return trip
        return None

    def _removals(self, rules: tuple[SizeRule, ...]) -> Iterator[Mask]:
        """What is removed in trial after trial; one trial does where nothing had to be interpreted."""
        several = any(len({*options} - {"pin"}) > 1 for options in self.coupling.options.values())
        rivals = list(self._rivals())
        if not rules and not several and not rivals:
            return itertools.islice(removals(self.units, []), 1)
        return removals(self.units, rivals, thorough=bool(rules))

    def idle(self) -> list[tuple[int, int]]:
        """Operators whose bounds are read as shares of a length that cannot shrink: fixed costs less."""
        return [place for place in self._read_as("equal") if not self._moves(place)]

    def _moves(self, place: tuple[int, int]) -> bool:
        return any(can_refute(self.units, Rival(*pair, fixed=True)) for pair in self._bounds(place))

    def _read_as(self, choice: str) -> Iterator[tuple[int, int]]:
        """Slices and listed splits that are read in one of three ways, those read so."""
        for place, options in self.coupling.options.items():
            bounded = "free" in options and "equal" in options
            if bounded and self.choices.get(place, options[0]) == choice:
                yield place

    def _bounds(self, place: tuple[int, int]) -> Iterator[tuple[Number, Number]]:
        tape, index = place
        sizes = Sizes(self.tapes[tape], tape, self.coupling, self.units)
        return sizes.bounds(self.tapes[tape].ops[index])

    def _rivals(self) -> Iterator[Rival]:
        """Other readings of every bound that is read as following what is before it."""
        for place in self._read_as("free"):
            for pair in self._bounds(place):
                yield from (Rival(*pair, fixed) for fixed in (False, True))
        for tape, index in self.coupling.options:
            op = self.tapes[tape].ops[index]
            if op.target == "aten.constant_pad_nd.default" and self.choices.get((tape, index)) != "pin":
                sizes = Sizes(self.tapes[tape], tape, self.coupling, self.units)
                yield from (Rival(*pair, fixed=False) for pair in sizes.shares(op))

    def _plan(self, removed: Mask, rules: tuple[SizeRule, ...]) -> Plan:
        return replace(self.graph, size_rules=(*self.graph.size_rules, *rules)).plan(removed)

    def _trip(self, number: int, plan: Plan, removed: Mask) -> _Trip | None:
        trip = self._compare(number, plan, removed, meta=True)
        if trip is not None and not trip.by_number:
            # Some operators and branches need real numbers; only a real trip counts.
            trip = self._compare(number, plan, removed, meta=False)
        return trip

    def _compare(self, number: int, plan: Plan, removed: Mask, *, meta: bool) -> _Trip | None:
        tape, padded = self.tapes[number], np.append(removed, False)
        sizes = Sizes(tape, number, self.coupling, self.units)
        if meta:
            answers = Answers(tape, sizes, padded)
            args, kwargs = _pytree.tree_map_only(Tensor, lambda x: x.to("meta"), (self.args, self.kwargs))
            with disguised(self.model, plan):
                rehearsed, error = record_attempt(
                    self.model, args, kwargs, training=tape.training, stand_in=answers
                )
        else:
            small = cut_copy(self.model, plan.cuts, cut_tensor)
            set_sizes(small, plan.sizes)
            rehearsed, error = record_attempt(small, self.args, self.kwargs, training=tape.training)
        expected, found = steps(tape), steps(rehearsed)
        for op, other in zip(expected, found, strict=False):
            if not sizes.agrees(op, other, rehearsed.values, padded):
                return _Trip(number, op.index)
        if error is not None or len(found) != len(expected):
            log.debug("rehearsal stopped after %d operators: %s", len(found), error)
            return _Trip(number, expected[min(len(found), len(expected) - 1)].index)
        # Numbers read from tensors (`.item()`) may differ, and do not exist on the meta device.
        countable = meta or all(op.target != "aten._local_scalar_dense.default" for op in expected)
        for op, other in zip(expected, found, strict=True):
            if countable and numbers_of(op) != numbers_of(other):
                return _Trip(number, op.index, by_number=True)
        return None

    def counted(self, rules: tuple[SizeRule, ...]) -> list[_Held]:
        """The channels whose count enters arithmetic as a plain number, found group by group."""
        removed = next(self._removals(rules))
        held: list[_Held] = []
        for group in self.units.groups:
            alone = np.zeros_like(removed)
            for cell in group.cells:
                alone[cell] = removed[cell]
            trips = (self._trip(n, self._plan(alone, rules), alone) for n in range(len(self.tapes)))
            numbers = [trip for trip in trips if trip is not None and trip.by_number]
            if numbers:
                held.extend(self._held(np.concatenate(group.cells), numbers[0]))
        return held

    def _held(self, members: UnitArray, trip: _Trip) -> Iterator[_Held]:
        op = self.tapes[trip.tape].ops[trip.op]
        where = f"{op.target.split('.')[1]} in {op.module or 'the model itself'}"
        for axis in self.units.axes:
            channels = tuple(np.flatnonzero(np.atleast_2d(np.isin(axis.units, members)).any(0)).tolist())
            if channels:
                reason = f"their number enters the arithmetic ({where})"
                yield _Held(axis.tensor, axis.axis, channels, reason)

    # -- attributes ------------------------------------------------------------------------------

    def attributes_for(
        self, tripped: tuple[int, int], rules: tuple[SizeRule, ...]
    ) -> tuple[_Attribute, ...] | None:
        """Attributes which, once they follow the cut, let the operator run as expected."""
        number, index = tripped
        tape = self.tapes[number]
        op = tape.ops[index]
        padded = np.append(next(self._removals(rules)), False)
        numbers = list(Sizes(tape, number, self.coupling, self.units).numbers(op))
        changing = [
            i
            for i, n in enumerate(numbers)
            if n.new(padded) != n.old() and not any(n.follows(other) for other in numbers[:i])
        ]
        candidates = [list(self._candidates(op, numbers[i], i)) for i in changing]
        known = [c for c in candidates if c]
        if not known:
            return None
        for combination in itertools.islice(itertools.product(*known), _MOST_COMBINATIONS):
            if not _consistent(combination, [n.new(padded) for n in numbers]):
                continue
            extra = tuple(
                SizeRule(a.module, a.attribute, a.item, numbers[a.which].units, numbers[a.which].divisor)
                for a in combination
            )
            after = self.first_trip((*rules, *extra))
            if after is None or after.by_number or after.place > tripped:
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


def _consistent(combination: Sequence[_Attribute], new: Sequence[int]) -> bool:
    """Whether an attribute that explains several numbers is to become the same for each."""
    values: dict[tuple[str, str, int | None], int] = {}
    for a in combination:
        if values.setdefault((a.module, a.attribute, a.item), new[a.which]) != new[a.which]:
            return False
    return True


def _entries(value: Any) -> Iterator[tuple[int | None, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield None, value
    elif isinstance(value, (list, tuple)):
        for item, entry in enumerate(value):
            if isinstance(entry, int) and not isinstance(entry, bool):
                yield item, entry
