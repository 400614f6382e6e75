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

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from compressor.core.channels import Mask
from compressor.core.coupling import PIN_ALL, Coupling, couple
from compressor.core.findings import Findings, Place, Rules
from compressor.core.graph import PINNED, Graph
from compressor.core.remedies import MOST_COMBINATIONS, attributes_for, likewise, patches_for
from compressor.core.sizes import Sizes
from compressor.core.stand_in import Trip
from compressor.core.subject import Subject
from compressor.core.tape import Tape
from compressor.core.trial import Trial
from compressor.core.units import Units, find_units
from compressor.errors import CaptureError

__all__ = ["read"]

log = logging.getLogger(__name__)
# So many attributes are tried before the call itself is patched.
_LIKELY = 8


def read(subject: Subject, tapes: Sequence[Tape], build: Callable[[Coupling, Units, Sizes], Graph]) -> Graph:
    """The graph of a reading that trials confirmed: couple the tapes, rehearse, correct, until all run.

    `build(coupling, units, sizes)` makes the Graph of the current reading; `sizes` are of the first tape.
    """
    state = Findings()
    limit = 2 * sum(len(tape.ops) for tape in tapes) + 8
    trips: list[Trip] = []
    for _ in range(limit):
        coupling = couple(tapes, state.choices, state.factors)
        for held in state.held:
            coupling.space.pin_factor(held.tensor, held.axis, held.factor, held.channels, held.reason)
        _tie(state, tapes, coupling)
        units = find_units(coupling.space)
        sizes = tuple(Sizes(tape, number, coupling, units) for number, tape in enumerate(tapes))
        trial = Trial(subject, tapes, coupling, units, sizes, build(coupling, units, sizes[0]), state)
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
            return rules.of(trial.graph)
    raise CaptureError(
        f"{type(subject.model).__name__}: its forward could not be followed for a pruned copy; the last "
        f"operator that tripped was {trips[0] if trips else None}. Please report the model, or ignore the "
        f"layers around it"
    )


def _correct(state: Findings, trial: Trial, trips: list[Trip], removed: Mask, rules: Rules) -> None:
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
    found = attributes_for(trial, places, removed, rules, _LIKELY)
    left = [place for place in places if place not in found]
    patched = patches_for(trial, left, removed, rules.with_attributes(found, trial.numbers))
    left = [place for place in left if place not in patched]
    if left and not (found or patched):
        found = attributes_for(trial, left, removed, rules, MOST_COMBINATIONS)
    state.found.update(found)
    state.found.update(likewise(trial, found))
    state.patched.update(patched)
    if not (found or patched):
        _read_otherwise(state, trial, left, removed, rules)


def _correct_numbers(state: Findings, trial: Trial, trips: list[Trip], removed: Mask, rules: Rules) -> None:
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
            _read_otherwise(state, trial, places, removed, rules)


def _refute(state: Findings, places: Sequence[Place]) -> bool:
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


def _shared(state: Findings, place: Place) -> Iterator[frozenset[tuple[Place, int]]]:
    """Pairs of a number of this operator and one of another that the same attribute is to hold."""
    for mine in state.found[place]:
        for other, attributes in state.found.items():
            for theirs in attributes if other != place else ():
                if replace(theirs, which=mine.which) == mine:
                    yield frozenset(((place, mine.which), (other, theirs.which)))


def _tie(state: Findings, tapes: Sequence[Tape], coupling: Coupling) -> None:
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


def _read_otherwise(
    state: Findings, trial: Trial, places: Sequence[Place], removed: Mask, rules: Rules
) -> None:
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
                if pinned and _forget(state, trial, (tape, index)):
                    continue
                held = trial.stopping((tape, index), removed, rules, pairs=not pinned)
                state.held.extend(held)
                if not held:
                    _pin_at(state, trial, (tape, index))
    for tape, index in places:
        op = trial.tapes[tape].ops[index]
        log.info(
            "%s in %r: sizes do not follow, read as %r",
            op.target,
            op.module,
            state.choices.get((tape, index)),
        )


def _pin_at(state: Findings, trial: Trial, place: Place) -> None:
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


def _forget(state: Findings, trial: Trial, place: Place) -> bool:
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
