"""What lets an operator that tripped run as expected: an attribute that follows the cut, or a patched call.

All places that trip try their next candidates in the same run.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from compressor.core.channels import Mask
from compressor.core.findings import Attribute, Attributes, Place, Rules
from compressor.core.sizes import Number
from compressor.core.tape import Op
from compressor.core.trial import Trial

__all__ = ["MOST_COMBINATIONS", "attributes_for", "likewise", "patches_for"]

MOST_COMBINATIONS = 64


def attributes_for(
    trial: Trial, places: Sequence[Place], removed: Mask, rules: Rules, most: int
) -> dict[Place, Attributes]:
    """Attributes which, once they follow the cut, let operators run as expected.

    Every trip tries its next candidates in the same run, until they are used up.
    """
    numbers = {place: trial.numbers(place) for place in places}
    padded = np.append(removed, False)
    waiting = {
        place: list(itertools.islice(_combinations(trial, place, numbers[place], padded), most))
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
        more = rules.with_attributes({**found, **tried}, numbers.__getitem__)
        helped = _helped(trial, tried, removed, more)
        for place, attributes in tried.items():
            if place in helped:
                found[place] = attributes
                waiting[place] = []
    return found


def likewise(trial: Trial, found: Mapping[Place, Attributes]) -> dict[Place, Attributes]:
    """The same attributes of modules of the same class, at the same operators of theirs."""
    modules = dict(trial.subject.model.named_modules())
    more: dict[Place, Attributes] = {}
    for (tape, index), attributes in found.items():
        ops: dict[str, list[int]] = {}
        for op in trial.tapes[tape].ops:
            ops.setdefault(op.module, []).append(op.index)
        home = trial.tapes[tape].ops[index].module
        for path, own in ops.items():
            if path != home and type(modules[path]) is type(modules[home]) and len(own) == len(ops[home]):
                place = tape, own[ops[home].index(index)]
                theirs = tuple(replace(a, module=_beside(a.module, home, path)) for a in attributes)
                if place not in trial.state.found and _hold(trial, place, theirs, modules):
                    more[place] = theirs
    return more


def _hold(trial: Trial, place: Place, attributes: Attributes, modules: Mapping[str, nn.Module]) -> bool:
    """Whether the attributes exist and are now the numbers of the operator that they are to be."""
    numbers = trial.numbers(place)
    for a in attributes:
        if a.module not in modules or a.which >= len(numbers):
            return False
        value = vars(modules[a.module]).get(a.attribute)
        if (a.item, numbers[a.which].old()) not in _entries(value):
            return False
    return attributes not in trial.state.refuted.get(place, ())


def _combinations(
    trial: Trial, place: Place, numbers: Sequence[Number], padded: Mask
) -> Iterator[Attributes]:
    """Attributes that may hold the numbers of an operator that change, nearest modules first."""
    op = trial.tapes[place[0]].ops[place[1]]
    own = len(list(trial.sizes[place[0]].numbers(op)))
    refuted = trial.state.refuted.get(place, set())
    new = [n.new(padded) for n in numbers]
    for some in (range(own), range(own, len(numbers))):
        changing = [
            i
            for i in some
            if new[i] != numbers[i].old() and not any(numbers[i].follows(n) for n in numbers[:i])
        ]
        known = [[*_candidates(trial, op, numbers[i], i), None] for i in changing]
        tried = itertools.islice(itertools.product(*known), MOST_COMBINATIONS)
        # One attribute before two: what need not change stays.
        chosen = sorted((tuple(a for a in choice if a is not None) for choice in tried), key=len)
        for combination in chosen:
            if combination and combination not in refuted and _agree({}, combination, new):
                yield combination


def _candidates(trial: Trial, op: Op, number: Number, which: int) -> Iterator[Attribute]:
    """Whole numbers of that value in the running module and those around it, nearest first."""
    modules = dict(trial.subject.model.named_modules())
    known = {(r.module, r.attribute, r.item) for r in trial.graph.size_rules}
    path = op.module
    while True:
        for name, value in vars(modules[path]).items():
            for item, entry in _entries(value):
                if entry == number.old() and (path, name, item) not in known:
                    yield Attribute(path, name, item, which)
        if not path:
            return
        path = path.rpartition(".")[0]


def patches_for(trial: Trial, places: Sequence[Place], removed: Mask, rules: Rules) -> dict[Place, str]:
    """For operators whose calls, once patched, let them run as expected, the kind of rule that does."""
    found: dict[Place, str] = {}
    for kind in ("size", "firm"):
        tried = {
            place: own
            for place in places
            if place not in found and (place, kind) not in trial.state.tried
            if (own := trial.patch_rules(place, kind))
        }
        if not tried:
            continue
        known = [r for place, k in found.items() for r in trial.patch_rules(place, k)]
        more = rules.and_patches([*known, *(rule for own in tried.values() for rule in own)])
        helped = _helped(trial, tried, removed, more)
        for place in tried:
            if place in helped:
                found[place] = kind
            else:
                trial.state.tried.add((place, kind))
    return found


def _helped(trial: Trial, places: Collection[Place], removed: Mask, rules: Rules) -> set[Place]:
    """Those of the places that run as expected under these rules, as far as the forward comes."""
    after = [trip for trip in trial.trips(removed, rules) if not trip.by_number]
    end = min((trip.place for trip in after if trip.stops), default=None)
    tripping = {trip.place for trip in after}
    return {place for place in places if place not in tripping and (end is None or place < end)}


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
