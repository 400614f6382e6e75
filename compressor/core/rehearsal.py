"""Finding sizes written into a forward: run a model cut by a trial plan and see where it trips.

The trial removes some units of every group. Its forward runs on the meta device (shapes only, no
arithmetic) and is compared with what the plan demands, operator by operator; one run finds every trip.
Where they part, the number is looked for among the attributes of the modules that were running; if
changing one helps, it becomes a size rule. If none does, another reading of the operator is tried, and
at last its labels are pinned. Where everything has its shape and yet a plain number differs (a sum
divided by the channel count), the channels it counts are pinned. So whatever the graph offers for
removal is known to run.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from compressor.core.attention import sized
from compressor.core.channels import Mask, UnitArray
from compressor.core.coupling import PIN_ALL, Choices, Coupling, couple
from compressor.core.factors import Factors
from compressor.core.graph import PINNED, Graph, PatchRule, SizeRule
from compressor.core.patch_rules import firm_rules, number_rules, size_rules
from compressor.core.patching import patched
from compressor.core.pick_rules import is_random
from compressor.core.picks import PICKING
from compressor.core.plan import Plan
from compressor.core.removals import Rival, can_refute, removals
from compressor.core.sizes import Number, Sizes
from compressor.core.stand_in import Trip, disguised, walk, without_numbers
from compressor.core.surgery import cut_copy, cut_tensor, set_sizes
from compressor.core.tape import Op, Tape
from compressor.core.units import Units, find_units
from compressor.errors import CaptureError

__all__ = ["Reading", "read"]

log = logging.getLogger(__name__)
_MOST_COMBINATIONS = 64
# So many are tried before the call itself is patched.
_LIKELY = 8

Place = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Reading:
    """The outcome: a graph whose labels are read in a way that trials confirmed, with rules for numbers."""

    graph: Graph


@dataclass(frozen=True)
class _Attribute:
    """`module.attribute` (or one item of it) holds the `which`-th number of an operator."""

    module: str
    attribute: str
    item: int | None
    which: int


Attributes = tuple[_Attribute, ...]


@dataclass(slots=True)
class _State:
    """How operators are read so far, and which attributes were found to hold sizes.

    `patched` says by which kind of rule the call that an operator came from is patched, `tried` what did
    not help. `ties` are numbers (place, which) that one attribute holds, so that they stay equal.
    `failing` holds the operators before which a cut copy was seen to fail, `real` the tapes that cannot
    be followed on shapes alone.
    """

    choices: dict[Place, str] = field(default_factory=dict)
    factors: Factors = field(default_factory=Factors)
    found: dict[Place, Attributes] = field(default_factory=dict)
    patched: dict[Place, str] = field(default_factory=dict)
    tried: set[tuple[Place, str]] = field(default_factory=set)
    refuted: dict[Place, set[Attributes]] = field(default_factory=dict)
    held: list[_Held] = field(default_factory=list)
    ties: set[frozenset[tuple[Place, int]]] = field(default_factory=set)
    failing: set[Place] = field(default_factory=set)
    real: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Held:
    """A factor of an axis takes none of these channels away, for a reason found by a trial."""

    tensor: str
    axis: int
    factor: int
    channels: tuple[int, ...]
    reason: str


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
    trips: list[Trip] = []
    for _ in range(limit):
        coupling = couple(tapes, state.choices, state.factors)
        for held in state.held:
            coupling.space.pin_factor(held.tensor, held.axis, held.factor, held.channels, held.reason)
        _tie(state, tapes, coupling)
        units = find_units(coupling.space)
        trial = _Trial(model, args, kwargs, tapes, coupling, units, build(coupling, units), state)
        loose = list(trial.loose_picks())
        if loose:
            state.choices.update(dict.fromkeys(loose, "pin"))
            continue
        rules = trial.known_rules()
        removed, trips = trial.first_trips(rules) if units.count else (None, [])
        idle = [] if trips else trial.idle()
        if removed is not None:
            _correct(state, trial, trips, removed, rules)
        elif idle:
            state.choices.update(dict.fromkeys(idle, "pin"))
        else:
            return Reading(rules.of(trial.graph))
    raise CaptureError(
        f"{type(model).__name__}: its forward could not be followed for a pruned copy; the last operator "
        f"that tripped was {trips[0] if trips else None}. Please report the model, or ignore the layers "
        f"around it"
    )


def _correct(state: _State, trial: _Trial, trips: list[Trip], removed: Mask, rules: _Rules) -> None:
    """Record what explains the trips: attributes, patched calls, else other readings, else pins."""
    last = trial.turning(trips, removed, rules)
    if last:
        state.held.extend(last)
        return
    places = [trip.place for trip in trips if not trip.by_number]
    if not places:
        _correct_numbers(state, trial, trips, removed, rules)
        return
    picks = trial.picks_behind(places)
    if picks:
        state.choices.update(dict.fromkeys(picks, "pin"))
        return
    if _refute(state, places):
        return
    found = trial.attributes_for(places, removed, rules, _LIKELY)
    left = [place for place in places if place not in found]
    patched = trial.patches_for(left, removed, rules.with_attributes(trial, found))
    left = [place for place in left if place not in patched]
    if left and not (found or patched):
        found = trial.attributes_for(left, removed, rules, _MOST_COMBINATIONS)
    state.found.update(found)
    state.found.update(trial.likewise(found))
    state.patched.update(patched)
    if not (found or patched):
        _read_otherwise(state, trial, left)


def _correct_numbers(state: _State, trial: _Trial, trips: list[Trip], removed: Mask, rules: _Rules) -> None:
    """A number that is computed with stays what it was, or else the channels that it counts do."""
    places = [trip.place for trip in trips]
    for place in places:
        if state.patched.get(place) == "number":
            state.tried.add((place, state.patched.pop(place)))
    new = {
        place: "number"
        for place in places
        if (place, "number") not in state.tried and trial.patch_rules(place, "number")
    }
    state.patched.update(new)
    if not new:
        held = trial.counted(removed, rules)
        state.held.extend(held)
        if not held:
            _read_otherwise(state, trial, places)


def _refute(state: _State, places: Sequence[Place]) -> bool:
    """Take back what was found for operators that trip all the same; whether anything was."""
    wrong = [place for place in places if place in state.found or place in state.patched]
    for place in wrong:
        if place in state.patched:
            state.tried.add((place, state.patched.pop(place)))
            continue
        ties = set(_shared(state, place)) - state.ties
        if ties:
            state.ties |= ties
        else:
            state.refuted.setdefault(place, set()).add(state.found.pop(place))
    return bool(wrong)


def _shared(state: _State, place: Place) -> Iterator[frozenset[tuple[Place, int]]]:
    """Pairs of a number of this operator and one of another that the same attribute is to hold."""
    for mine in state.found[place]:
        for other, attributes in state.found.items():
            for theirs in attributes if other != place else ():
                if replace(theirs, which=mine.which) == mine:
                    yield frozenset(((place, mine.which), (other, theirs.which)))


def _tie(state: _State, tapes: Sequence[Tape], coupling: Coupling) -> None:
    """State that numbers which one attribute holds stay equal: their axes lose equally many channels."""
    # Lengths need no units yet: labels say all.
    blank = Units(0, np.full(coupling.space.count + 2, PINNED, dtype=np.int64), (), (), {})
    for tie in state.ties:
        rows = []
        for (tape, index), which in sorted(tie):
            sizes = Sizes(tapes[tape], tape, coupling, blank)
            op = tapes[tape].ops[index]
            numbers = [*sizes.numbers(op), *sizes.entering(op)]
            labels = numbers[which].labels if which < len(numbers) else None
            if labels is not None:
                rows.append(labels)
        if len(rows) > 1 and len({len(row) for row in rows}) == 1:
            coupling.space.equal(np.stack(rows), "one attribute holds several sizes")


def _read_otherwise(state: _State, trial: _Trial, places: Sequence[Place]) -> None:
    """Take the next option at every place that has one; else pin all that enters the first ones."""
    moved = False
    for place in places:
        options = trial.coupling.options.get(place, ())
        current = state.choices.get(place, options[0] if options else PIN_ALL)
        if current in options and current != options[-1]:
            state.choices[place] = options[options.index(current) + 1]
            moved = True
    if not moved:
        seen: set[tuple[int, str]] = set()
        for tape, index in places:
            home = tape, trial.tapes[tape].ops[index].module
            if home not in seen:
                seen.add(home)
                pinned = state.choices.get((tape, index)) == PIN_ALL
                # What is pinned and trips all the same is tripped by something that was changed.
                if not (pinned and _forget(state, trial, (tape, index))):
                    _pin_at(state, trial, (tape, index))
    for tape, index in places:
        op = trial.tapes[tape].ops[index]
        log.info(
            "%s in %r: sizes do not follow, read as %r",
            op.target,
            op.module,
            state.choices.get((tape, index)),
        )


def _pin_at(state: _State, trial: _Trial, place: Place) -> None:
    """Pin all that enters an operator; where that was done, all that enters its module, or one around it."""
    tape, index = place
    if state.choices.get(place) != PIN_ALL:
        state.choices[place] = PIN_ALL
        return
    path = trial.tapes[tape].ops[index].module
    while True:
        inside = [
            (tape, op.index)
            for op in trial.tapes[tape].ops
            if f"{op.module}.".startswith(f"{path}." if path else "")
            and state.choices.get((tape, op.index)) != PIN_ALL
        ]
        if inside or not path:
            state.choices.update(dict.fromkeys(inside, PIN_ALL))
            return
        path = path.rpartition(".")[0]


def _forget(state: _State, trial: _Trial, place: Place) -> bool:
    """Take back every attribute found for the module of an operator, or one around it; whether any was."""
    module = trial.tapes[place[0]].ops[place[1]].module
    wrong = [
        other
        for other, attributes in state.found.items()
        if any(f"{module}.".startswith(f"{a.module}." if a.module else "") for a in attributes)
    ]
    for other in wrong:
        state.refuted.setdefault(other, set()).add(state.found.pop(other))
    return bool(wrong)


@dataclass(frozen=True, eq=False)
class _Rules:
    """Numbers that follow a cut: attributes of modules, arguments of calls."""

    sizes: tuple[SizeRule, ...] = ()
    patches: tuple[PatchRule, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.sizes or self.patches)

    def of(self, graph: Graph) -> Graph:
        """The graph with these rules."""
        return replace(graph, size_rules=(*graph.size_rules, *self.sizes), patch_rules=self.patches)

    def and_sizes(self, sizes: Sequence[SizeRule]) -> _Rules:
        """With more attributes."""
        return replace(self, sizes=(*self.sizes, *sizes))

    def and_patches(self, patches: Sequence[PatchRule]) -> _Rules:
        """With more arguments of calls, each once."""
        known = {(p.module, p.function, p.call, p.argument) for p in self.patches}
        new = {(p.module, p.function, p.call, p.argument): p for p in patches}
        return replace(self, patches=(*self.patches, *(p for key, p in new.items() if key not in known)))

    def with_attributes(self, trial: _Trial, found: Mapping[Place, Attributes]) -> _Rules:
        """With the attributes that a trial found."""
        return self.and_sizes([r for place, a in found.items() for r in _as_rules(a, trial.numbers(place))])


def _as_rules(attributes: Attributes, numbers: Sequence[Number]) -> list[SizeRule]:
    return [
        SizeRule(a.module, a.attribute, a.item, numbers[a.which].units, numbers[a.which].divisor)
        for a in attributes
        if a.which < len(numbers)
    ]


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
    state: _State

    def __post_init__(self) -> None:
        sizes = tuple(Sizes(tape, n, self.coupling, self.units) for n, tape in enumerate(self.tapes))
        object.__setattr__(self, "sizes", sizes)

    sizes: tuple[Sizes, ...] = field(init=False)

    @property
    def choices(self) -> Choices:
        """How ambiguous operators are read."""
        return self.state.choices

    def first_trips(self, rules: _Rules) -> tuple[Mask | None, list[Trip]]:
        """The first removal under which anything trips, and everything that does (None where none does)."""
        for removed in self._removals(rules):
            trips = self.trips(removed, rules)
            if trips:
                return removed, trips
        return None, []

    def trips(self, removed: Mask, rules: _Rules) -> list[Trip]:
        """Every operator, of all tapes, that a cut model runs otherwise than expected."""
        plan = self._plan(removed, rules)
        return [trip for number in range(len(self.tapes)) for trip in self._walk(number, plan, removed)]

    def _walk(self, number: int, plan: Plan, removed: Mask) -> list[Trip]:
        tape, sizes, padded = self.tapes[number], self.sizes[number], np.append(removed, False)
        if number not in self.state.real and self._runs_alike():
            with disguised(self.model, plan), patched(self.model, plan.patches):
                args, kwargs = without_numbers((self.args, self.kwargs))
                trips, error = walk(self.model, args, kwargs, tape, number, sizes, padded)
            if error is None or trips[-1].place in self.state.failing:
                return sorted(trips)
            log.debug("a forward on shapes stopped: %s", error)
        # Some operators and branches need real numbers; only a real failure counts.
        small = cut_copy(self.model, plan.cuts, cut_tensor)
        set_sizes(small, plan.sizes)
        with sized(small), patched(small, plan.patches):
            trips, error = walk(small, self.args, self.kwargs, tape, number, sizes, padded, real=True)
        if error is None:
            self.state.real.add(number)
        else:
            log.debug("a forward of a cut copy stopped: %s", error)
            self.state.failing.add(trips[-1].place)
        if any(op.target == "aten._local_scalar_dense.default" for op in tape.ops):
            # Numbers read from tensors may differ.
            trips = [trip for trip in trips if not trip.by_number]
        return sorted(trips)

    def _runs_alike(self) -> bool:
        """Whether operators on the meta device are those that were recorded.

        A recurrent layer multiplies its input with its weights at once on the CPU, else step by step.
        """
        recurrent = (module for module in self.model.modules() if isinstance(module, nn.RNNBase))
        return not any(p.device.type == "cpu" for module in recurrent for p in module.parameters())

    # -- removals --------------------------------------------------------------------------------

    def _removals(self, rules: _Rules) -> Iterator[Mask]:
        """What is removed in trial after trial; one trial does where nothing had to be interpreted."""
        several = any(len({*options} - {"pin"}) > 1 for options in self.coupling.options.values())
        rivals = list(self._rivals())
        if not rules and not several and not rivals:
            return itertools.islice(removals(self.units, []), 1)
        return removals(self.units, rivals, thorough=bool(rules))

    def idle(self) -> list[Place]:
        """Operators whose bounds are read as shares of a length that cannot shrink: fixed costs less."""
        return [place for place in self._read_as("equal") if not self._moves(place)]

    def _moves(self, place: Place) -> bool:
        return any(can_refute(self.units, Rival(*pair, fixed=True)) for pair in self._bounds(place))

    def _read_as(self, choice: str) -> Iterator[Place]:
        """Slices and listed splits that are read in one of three ways, those read so."""
        for place, options in self.coupling.options.items():
            bounded = "free" in options and "equal" in options
            if bounded and self.choices.get(place, options[0]) == choice:
                yield place

    def _bounds(self, place: Place) -> Iterator[tuple[Number, Number]]:
        tape, index = place
        return self.sizes[tape].bounds(self.tapes[tape].ops[index])

    def _rivals(self) -> Iterator[Rival]:
        """Other readings of every bound that is read as following what is before it."""
        for place in self._read_as("free"):
            for pair in self._bounds(place):
                yield from (Rival(*pair, fixed) for fixed in (False, True))
        for tape, index in self.coupling.options:
            op = self.tapes[tape].ops[index]
            if op.target == "aten.constant_pad_nd.default" and self.choices.get((tape, index)) != "pin":
                yield from (Rival(*pair, fixed=False) for pair in self.sizes[tape].shares(op))

    def _plan(self, removed: Mask, rules: _Rules) -> Plan:
        return rules.of(self.graph).plan(removed)

    # -- the last two ----------------------------------------------------------------------------

    def turning(self, trips: Sequence[Trip], removed: Mask, rules: _Rules) -> list[_Held]:
        """Groups of two of which none can go, because the forward takes another way once one is left.

        torch itself does (axes of length one), and so do forwards (`if groups == 1`).
        """
        if not any(trip.stops for trip in trips):
            return []
        pairs = [g for g in self.units.groups if g.size == 2 and removed[np.concatenate(g.cells)].any()]
        lighter = removed.copy()
        for group in pairs:
            lighter[np.concatenate(group.cells)] = False
        if not pairs or not lighter.any() or any(trip.stops for trip in self.trips(lighter, rules)):
            return []
        held: list[_Held] = []
        for group in pairs:
            alone = removed & np.isin(np.arange(removed.size), np.concatenate(group.cells))
            stops = [trip for trip in self.trips(alone, rules) if trip.stops]
            if stops:
                members = np.concatenate(group.cells)
                held.extend(self._held(members, stops[0], "forward takes another way once one is left"))
        return held

    # -- plain numbers ---------------------------------------------------------------------------

    def counted(self, removed: Mask, rules: _Rules) -> list[_Held]:
        """The channels whose count enters arithmetic as a plain number, found group by group."""
        held: list[_Held] = []
        for group in self.units.groups:
            alone = np.zeros_like(removed)
            for cell in group.cells:
                alone[cell] = removed[cell]
            numbers = [trip for trip in self.trips(alone, rules) if trip.by_number] if alone.any() else []
            if numbers:
                members = np.concatenate(group.cells)
                held.extend(self._held(members, numbers[0], "their number enters the arithmetic"))
        return held

    def _held(self, members: UnitArray, trip: Trip, why: str) -> Iterator[_Held]:
        op = self.tapes[trip.tape].ops[trip.op]
        where = f"{op.target.split('.')[1]} in {op.module or 'the model itself'}"
        reason = f"{why} ({where})"
        for axis in self.coupling.space.axes:
            for factor, ids in enumerate(self.units.of(axis.ids)):
                channels = tuple(np.flatnonzero(np.isin(ids, members)).tolist())
                if channels:
                    yield _Held(axis.tensor, axis.axis, factor, channels, reason)

    # -- picks -----------------------------------------------------------------------------------

    @cached_property
    def picks(self) -> dict[tuple[str, str, int, str], PatchRule]:
        """The rules for constant picks, by the argument that holds one.

        They are no guess that a trip would refute: a wrong position has the right shape.
        """
        return {key: rule for _, key, rule in self._pick_rules()}

    def _pick_rules(self) -> Iterator[tuple[Place, tuple[str, str, int, str], PatchRule]]:
        for place in self.coupling.picks:
            for _, rule in self.sizes[place[0]].picks(self.tapes[place[0]].ops[place[1]]):
                yield place, (rule.module, rule.function, rule.call, rule.argument), rule

    def loose_picks(self) -> Iterator[Place]:
        """Picks that no rule can be given: of random positions, or one call that picks from several."""
        rules = list(self._pick_rules())
        loose = self._shared_calls({place for place, _, _ in rules}, {key[:3] for _, key, _ in rules})
        modules = dict(self.model.named_modules())
        for (tape, index), key, rule in rules:
            fixed = self.picks[key]
            alike = rule.old == fixed.old and len(rule.units) == len(fixed.units)
            if (
                not (alike and all(map(np.array_equal, rule.units, fixed.units)))
                or "forward" in vars(modules[rule.module])
                or any(is_random(self.tapes[tape].ops[op]) for op in self.sizes[tape].behind_picks(index))
            ):
                loose.add(key[:3])
        yield from (place for place, key, _ in rules if key[:3] in loose)

    def _shared_calls(
        self, followed: Collection[Place], calls: Collection[tuple[str, str, int]]
    ) -> set[tuple[str, str, int]]:
        """Those of the calls that in another run of their module pick what does not follow."""
        return {
            key
            for number, tape in enumerate(self.tapes)
            for op in (tape.ops if calls else ())
            if op.call is not None and op.target in PICKING and (number, op.index) not in followed
            if (key := (op.call.module, op.call.function, op.call.ordinal)) in calls
        }

    def picks_behind(self, places: Sequence[Place]) -> list[Place]:
        """Picks that tripped, or whose positions are computed where something did."""
        tripped = set(places)
        return [
            place
            for place in self.coupling.picks
            if place in tripped
            or tripped & {(place[0], op) for op in self.sizes[place[0]].behind_picks(place[1])}
        ]

    # -- calls -----------------------------------------------------------------------------------

    def known_rules(self) -> _Rules:
        """What was found so far."""
        rules = _Rules().with_attributes(self, self.state.found).and_patches(list(self.picks.values()))
        return rules.and_patches(
            [r for place, kind in self.state.patched.items() for r in self.patch_rules(place, kind)]
        )

    def patch_rules(self, place: Place, kind: str) -> tuple[PatchRule, ...]:
        """Rules of one kind for the call that an operator came from; none where it cannot be patched."""
        tape, op = self.tapes[place[0]], self.tapes[place[0]].ops[place[1]]
        axes_of = self.sizes[place[0]].axes
        if kind == "number":
            return number_rules(op) or ()
        # Also where a plan leaves the number as it was: forward takes it from something else, which may go.
        rules = tuple(replace(rule, always=True) for rule in size_rules(op, tape, axes_of) or ())
        return rules if kind == "size" else (*rules, *(firm_rules(op, tape, axes_of) or ()))

    def patches_for(self, places: Sequence[Place], removed: Mask, rules: _Rules) -> dict[Place, str]:
        """For operators whose calls, once patched, let them run as expected, the kind of rule that does."""
        found: dict[Place, str] = {}
        for kind in ("size", "firm"):
            tried = {
                place: own
                for place in places
                if place not in found and (place, kind) not in self.state.tried
                if (own := self.patch_rules(place, kind))
            }
            if not tried:
                continue
            known = [r for place, k in found.items() for r in self.patch_rules(place, k)]
            more = rules.and_patches([*known, *(rule for own in tried.values() for rule in own)])
            helped = self._helped(tried, removed, more)
            for place in tried:
                if place in helped:
                    found[place] = kind
                else:
                    self.state.tried.add((place, kind))
        return found

    def _helped(self, places: Collection[Place], removed: Mask, rules: _Rules) -> set[Place]:
        """Those of the places that run as expected under these rules, as far as the forward comes."""
        after = [trip for trip in self.trips(removed, rules) if not trip.by_number]
        end = min((trip.place for trip in after if trip.stops), default=None)
        tripping = {trip.place for trip in after}
        return {place for place in places if place not in tripping and (end is None or place < end)}

    # -- attributes ------------------------------------------------------------------------------

    def attributes_for(
        self, places: Sequence[Place], removed: Mask, rules: _Rules, most: int
    ) -> dict[Place, Attributes]:
        """Attributes which, once they follow the cut, let operators run as expected.

        Every trip tries its next candidates in the same run, until they are used up.
        """
        numbers = {place: self.numbers(place) for place in places}
        padded = np.append(removed, False)
        waiting = {
            place: list(itertools.islice(self._combinations(place, numbers[place], padded), most))
            for place in numbers
        }
        found: dict[Place, Attributes] = {}
        while any(waiting.values()):
            tried: dict[Place, Attributes] = {}
            values: dict[tuple[str, str, int | None], int] = {}
            for place, combinations in waiting.items():
                for position, combination in enumerate(combinations):
                    if _agree(values, combination, [n.new(padded) for n in numbers[place]]):
                        tried[place] = combinations.pop(position)
                        break
            if not tried:
                break
            extra = [r for p, a in (*found.items(), *tried.items()) for r in _as_rules(a, numbers[p])]
            helped = self._helped(tried, removed, rules.and_sizes(extra))
            for place, attributes in tried.items():
                if place in helped:
                    found[place] = attributes
                    waiting[place] = []
        return found

    def likewise(self, found: Mapping[Place, Attributes]) -> dict[Place, Attributes]:
        """The same attributes of modules of the same class, at the same operators of theirs."""
        modules = dict(self.model.named_modules())
        more: dict[Place, Attributes] = {}
        for (tape, index), attributes in found.items():
            ops: dict[str, list[int]] = {}
            for op in self.tapes[tape].ops:
                ops.setdefault(op.module, []).append(op.index)
            home = self.tapes[tape].ops[index].module
            for path, own in ops.items():
                if path != home and type(modules[path]) is type(modules[home]) and len(own) == len(ops[home]):
                    place = tape, own[ops[home].index(index)]
                    theirs = tuple(replace(a, module=_beside(a.module, home, path)) for a in attributes)
                    if place not in self.state.found and self._hold(place, theirs, modules):
                        more[place] = theirs
        return more

    def _hold(self, place: Place, attributes: Attributes, modules: Mapping[str, nn.Module]) -> bool:
        """Whether the attributes exist and are now the numbers of the operator that they are to be."""
        numbers = self.numbers(place)
        for a in attributes:
            if a.module not in modules or a.which >= len(numbers):
                return False
            value = vars(modules[a.module]).get(a.attribute)
            if (a.item, numbers[a.which].old()) not in _entries(value):
                return False
        return attributes not in self.state.refuted.get(place, ())

    def numbers(self, place: Place) -> list[Number]:
        """What an operator, or a check before it, may have taken from the model."""
        op, sizes = self.tapes[place[0]].ops[place[1]], self.sizes[place[0]]
        return [*sizes.numbers(op), *sizes.entering(op)]

    def _combinations(self, place: Place, numbers: Sequence[Number], padded: Mask) -> Iterator[Attributes]:
        """Attributes that may hold the numbers of an operator that change, nearest modules first."""
        op = self.tapes[place[0]].ops[place[1]]
        own = len(list(self.sizes[place[0]].numbers(op)))
        refuted = self.state.refuted.get(place, set())
        new = [n.new(padded) for n in numbers]
        for some in (range(own), range(own, len(numbers))):
            changing = [
                i
                for i in some
                if new[i] != numbers[i].old() and not any(numbers[i].follows(n) for n in numbers[:i])
            ]
            known = [[*self._candidates(op, numbers[i], i), None] for i in changing]
            tried = itertools.islice(itertools.product(*known), _MOST_COMBINATIONS)
            # One attribute before two: what need not change stays.
            chosen = sorted((tuple(a for a in choice if a is not None) for choice in tried), key=len)
            for combination in chosen:
                if combination and combination not in refuted and _agree({}, combination, new):
                    yield combination

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


def _beside(module: str, home: str, path: str) -> str:
    """The module that is to `path` what `module`, `home` itself or one around it, is to `home`."""
    up = home.count(".") - module.count(".") + (1 if not module and home else 0)
    for _ in range(up):
        path = path.rpartition(".")[0]
    return path


def _agree(
    values: dict[tuple[str, str, int | None], int], attributes: Attributes, new: Sequence[int]
) -> bool:
    """Whether attributes are to become one number each, those of `values` included; adds them to it."""
    mine = dict(values)
    for a in attributes:
        if mine.setdefault((a.module, a.attribute, a.item), new[a.which]) != new[a.which]:
            return False
    values.update(mine)
    return True


def _entries(value: Any) -> Iterator[tuple[int | None, int]]:
    if isinstance(value, int) and not isinstance(value, bool):
        yield None, value
    elif isinstance(value, (list, tuple)):
        for item, entry in enumerate(value):
            if isinstance(entry, int) and not isinstance(entry, bool):
                yield item, entry
