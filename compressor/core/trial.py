"""One reading of a model under trial: cut copies of it run beside what the labels demand.

Most run on shapes alone (`core.stand_in`); where an operator or a branch needs numbers, a cut copy runs
for real.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from torch import nn

from compressor.core.attention import sized
from compressor.core.channels import Mask
from compressor.core.coupling import Choices, Coupling
from compressor.core.findings import Findings, Held, Place, Rules
from compressor.core.graph import Graph, Group, PatchRule
from compressor.core.patch_rules import firm_rules, number_rules, size_rules
from compressor.core.patching import patched
from compressor.core.pick_rules import is_random
from compressor.core.picks import PICKING
from compressor.core.plan import Plan
from compressor.core.removals import Rival, can_refute, removals
from compressor.core.sizes import Number, Sizes
from compressor.core.stand_in import Trip, disguise, walk, without_numbers
from compressor.core.subject import Subject
from compressor.core.surgery import cut_copy, cut_tensor, set_sizes
from compressor.core.tape import Tape, conditions
from compressor.core.units import Units

__all__ = ["Trial"]

log = logging.getLogger(__name__)
_TURNING = "forward takes another way once one is left"


@dataclass(frozen=True, eq=False)
class Trial:
    """One reading of the tapes under trial."""

    subject: Subject
    tapes: Sequence[Tape]
    coupling: Coupling
    units: Units
    sizes: tuple[Sizes, ...]
    graph: Graph
    state: Findings

    @property
    def choices(self) -> Choices:
        """How ambiguous operators are read."""
        return self.state.choices

    def first_trips(self, rules: Rules) -> tuple[Mask | None, list[Trip]]:
        """The first removal under which anything trips, and everything that does (None where none does)."""
        for removed in self._removals(rules):
            trips = self.trips(removed, rules)
            if trips:
                return removed, trips
        return None, []

    def trips(self, removed: Mask, rules: Rules) -> list[Trip]:
        """Every operator, of all tapes, that a cut model runs otherwise than expected."""
        plan = self._plan(removed, rules)
        return [trip for number in range(len(self.tapes)) for trip in self._walk(number, plan, removed)]

    def _walk(self, number: int, plan: Plan, removed: Mask) -> list[Trip]:
        tape, sizes, padded = self.tapes[number], self.sizes[number], np.append(removed, False)
        model, args, kwargs = self.subject.model, self.subject.args, self.subject.kwargs
        if number not in self.state.real and self._runs_alike():
            shapes, named = without_numbers((args, kwargs))
            with conditions(model, training=tape.training, before=self.subject.before) as contents:
                disguise(model, plan)
                with patched(model, plan.patches):
                    trips, error = walk(model, shapes, named, tape, number, sizes, padded, contents)
            if error is None or trips[-1].place in self.state.failing:
                return sorted(trips)
            log.debug("a forward on shapes stopped: %s", error)
        # Some operators and branches need real numbers; only a real failure counts.
        small = cut_copy(model, plan.cuts, cut_tensor)
        set_sizes(small, plan.sizes)
        with (
            conditions(small, training=tape.training) as contents,
            sized(small),
            patched(small, plan.patches),
        ):
            trips, error = walk(small, args, kwargs, tape, number, sizes, padded, contents, real=True)
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
        recurrent = (module for module in self.subject.before.modules if isinstance(module, nn.RNNBase))
        return not any(p.device.type == "cpu" for module in recurrent for p in module.parameters())

    # -- removals --------------------------------------------------------------------------------

    def _removals(self, rules: Rules) -> Iterator[Mask]:
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

    def _plan(self, removed: Mask, rules: Rules) -> Plan:
        return rules.of(self.graph).plan(removed)

    # -- the last two ----------------------------------------------------------------------------

    def turning(self, trips: Sequence[Trip], removed: Mask, rules: Rules) -> list[Held]:
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
        held: list[Held] = []
        for group in pairs:
            stops = [trip for trip in self._trips_of([group], removed, rules) if trip.stops]
            if stops:
                held.extend(self._held(group, stops[0], _TURNING))
        return held

    # -- checks ----------------------------------------------------------------------------------

    def stopping(self, place: Place, removed: Mask, rules: Rules, *, pairs: bool) -> list[Held]:
        """The channels of every group that alone stops the forward before this operator.

        What enters the operator is not to blame: a check in the code before it compares a size. With
        `pairs`, groups of two only, of which the last one may take another way (see `turning`).
        """
        why = _TURNING if pairs else "a check in forward compares their number"

        def search(groups: Sequence[Group]) -> Iterator[Held]:
            stops = [trip for trip in self._trips_of(groups, removed, rules) if trip.stops]
            if not any(trip.place == place for trip in stops):
                return
            if len(groups) == 1:
                yield from self._held(groups[0], stops[0], why)
                return
            half = len(groups) // 2
            yield from search(groups[:half])
            yield from search(groups[half:])

        suspects = [group for group in self.units.groups if group.size == 2 or not pairs]
        return list(search(suspects)) if suspects else []

    # -- plain numbers ---------------------------------------------------------------------------

    def counted(self, removed: Mask, rules: Rules) -> list[Held]:
        """The channels whose count enters arithmetic as a plain number, found group by group."""
        held: list[Held] = []
        for group in self.units.groups:
            numbers = [trip for trip in self._trips_of([group], removed, rules) if trip.by_number]
            if numbers:
                held.extend(self._held(group, numbers[0], "their number enters the arithmetic"))
        return held

    def _trips_of(self, groups: Sequence[Group], removed: Mask, rules: Rules) -> list[Trip]:
        """What trips when of all that is removed only the channels of these groups are."""
        alone = np.zeros_like(removed)
        for group in groups:
            for cell in group.cells:
                alone[cell] = removed[cell]
        return self.trips(alone, rules) if alone.any() else []

    def _held(self, group: Group, trip: Trip, why: str) -> Iterator[Held]:
        members = np.concatenate(group.cells)
        op = self.tapes[trip.tape].ops[trip.op]
        where = f"{op.target.split('.')[1]} in {op.module or 'the model itself'}"
        reason = f"{why} ({where})"
        for axis in self.coupling.space.axes:
            for factor, ids in enumerate(self.units.of(axis.ids)):
                channels = tuple(np.flatnonzero(np.isin(ids, members)).tolist())
                if channels:
                    yield Held(axis.tensor, axis.axis, factor, channels, reason)

    # -- rules -----------------------------------------------------------------------------------

    def numbers(self, place: Place) -> list[Number]:
        """What an operator, or a check before it, may have taken from the model."""
        op, sizes = self.tapes[place[0]].ops[place[1]], self.sizes[place[0]]
        return [*sizes.numbers(op), *sizes.entering(op)]

    def known_rules(self) -> Rules:
        """What was found so far."""
        rules = Rules().with_attributes(self.state.found, self.numbers).and_patches(list(self.picks.values()))
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
        if not rules:
            return
        loose = self._shared_calls({place for place, _, _ in rules}, {key[:3] for _, key, _ in rules})
        modules = dict(self.subject.model.named_modules())
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
