"""What constant picks become under a removal, and whether the recording lets them follow one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from compressor.core.channels import Mask, UnitArray
from compressor.core.graph import PatchRule
from compressor.core.picks import Pick, Shift, actual_positions, actual_shift
from compressor.core.tape import Op, Tape, references

__all__ = ["is_random", "makers", "origins", "pick_rule", "picks_as_expected", "spare"]

Picks = Mapping[int, tuple[Pick | Shift, ...]]


def pick_rule(op: Op, pick: Pick | Shift, units: UnitArray) -> PatchRule | None:
    """The rule for one pick along an axis of these units; None where it is the same whatever goes."""
    assert op.call is not None
    place = (op.call.module, op.call.function, op.call.ordinal, pick.path)
    if isinstance(pick, Pick):
        return PatchRule(*place, tuple(pick.positions.tolist()), (units,), picks=True)
    size, number = units.shape[-1], pick.number
    if number == 0:
        return None
    # Always, as forward may compute the shift from the length.
    if -size <= number < 0:
        return PatchRule(*place, number, (units[..., :-number],), divisor=-1, always=True)
    last = number if 0 < number <= size else number % size
    return PatchRule(*place, number, (units[..., size - last :],), always=True)


def picks_as_expected(op: Op, pick: Pick | Shift, rule: PatchRule, args: Sequence[Any], padded: Mask) -> bool:
    """Whether a run of the operator picks what the rule says; also where that cannot be seen."""
    patch = rule.patch(padded)
    expected = rule.old if patch is None else patch.new
    if isinstance(pick, Pick):
        found = actual_positions(op, pick, args)
        return found is None or tuple(found) == expected
    length = max(args[0].shape[pick.axis], 1)
    return isinstance(expected, int) and (actual_shift(pick, args) - expected) % length == 0


# -- where indices come from ---------------------------------------------------------------------


def makers(tape: Tape) -> dict[int, int]:
    """For each computed value the operator that made it what it is."""
    made = {}
    for op in tape.ops:
        made.update(dict.fromkeys((out for out in op.outputs if out is not None), op.index))
        made.update(dict.fromkeys((new for _, new in op.mutated), op.index))
    return made


def origins(tape: Tape, made_by: Mapping[int, int], value: int) -> set[int]:
    """The operators that a value was computed by."""
    found: set[int] = set()
    waiting = [value]
    while waiting:
        op = made_by.get(waiting.pop())
        if op is not None and op not in found:
            found.add(op)
            waiting.extend(_operands(tape.ops[op]))
    return found


def _operands(op: Op) -> Iterator[int]:
    yield from references((*op.args, *op.kwargs.values()))


def is_random(op: Op) -> bool:
    """Whether the operator draws numbers."""
    return any(op.target.startswith(f"aten.{name}") for name in _RANDOM)


_RANDOM = (
    "rand",
    "normal",
    "bernoulli",
    "multinomial",
    "uniform",
    "poisson",
    "exponential",
    "geometric",
    "native_dropout",
)


def spare(tape: Tape, picks: Picks) -> Collection[int]:
    """Values that only say positions which follow a cut anyway: how many there are is no matter."""
    if not any(isinstance(pick, Pick) for own in picks.values() for pick in own):
        return ()
    needed, read = set(tape.outputs), set[int]()
    for op in reversed(tape.ops):
        indices = {pick.index for pick in picks.get(op.index, ()) if isinstance(pick, Pick)}
        read |= indices
        operands = set(_operands(op)) - indices
        outputs = {out for out in op.outputs if out is not None}
        passes = op.is_pointwise or op.target in _OF_ANY_LENGTH
        if passes and not op.mutated and outputs <= read and not outputs & needed:
            read |= operands
        else:
            needed |= operands
    return read - needed


# Of what length their operands are is all the same to these.
_OF_ANY_LENGTH = frozenset(
    f"aten.{name}"
    for name in (
        *("arange.default", "arange.start", "arange.start_step", "lift_fresh.default", "_to_copy.default"),
        *("clone.default", "detach.default", "flip.default", "unsqueeze.default", "expand.default"),
        *("slice.Tensor", "permute.default", "t.default", "transpose.int", "cat.default"),
    )
)
