"""Stacks and unbinds whose pieces nothing sees side by side.

The channels of such pieces need not be the same, only equally many. Recurrent layers take their first
states from one tensor of zeros, a piece for each layer and direction, and stack the last ones, which
often nobody wants, or only one of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from compressor.core.tape import Op, Tape, references

__all__ = ["PIECES", "with_loose_pieces"]

_STACK, _UNBIND, _SELECT = "aten.stack.default", "aten.unbind.int", "aten.select.int"
# Under this key an operator that takes pieces off a stack again names them.
PIECES = "pieces"


def with_loose_pieces(tape: Tape) -> Tape:
    """The tape with `Op.is_loose` found out, and with pieces named where they are taken off a stack."""
    if not any(op.target in (_STACK, _UNBIND) for op in tape.ops):
        return tape
    uses = _Uses(tape)
    changed: dict[int, Op] = {}
    for op in tape.ops:
        if op.index in changed:
            continue
        if op.target == _UNBIND and uses.is_private(op):
            changed[op.index] = replace(op, is_loose=True)
        elif op.target == _STACK:
            changed.update({new.index: new for new in uses.apart(op)})
    return replace(tape, ops=tuple(changed.get(op.index, op) for op in tape.ops))


class _Uses:
    """Who reads each value of a tape, and which values are written into under some name."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._readers: dict[int, list[Op]] = defaultdict(list)
        self._made_by: dict[int, Op] = {}
        self._live = set(tape.outputs)
        self._written: set[int] = set()
        for op in reversed(tape.ops):
            taken = list(references((*op.args, *op.kwargs.values())))
            for value in taken:
                self._readers[value].append(op)
            for out in op.outputs:
                if out is not None and not op.mutated:
                    self._made_by[out] = op
            if op.mutated or not self._live.isdisjoint(op.outputs):
                self._live.update(taken)
            if op.mutated:
                self._written.update(old for old, _ in op.mutated)
            elif op.is_view and not self._written.isdisjoint(op.outputs):
                # Whoever writes into a view writes into what it shows.
                self._written.add(op.args[0].value)

    def is_private(self, unbind: Op) -> bool:
        """Whether the pieces of an unbind are all that is seen of its operand, and stay as they are."""
        source = unbind.args[0].value
        made_by = self._made_by.get(source)
        return (
            made_by is not None
            and not made_by.is_view
            and len(self._readers[source]) == 1
            and source not in self._tape.outputs
            and source not in self._written
        )

    def apart(self, stack: Op) -> Iterator[Op]:
        """The stack made loose, and its readers told their pieces; nothing where it is seen as a whole."""
        (out,) = stack.outputs
        readers = self._readers[out] if out in self._live else []
        if out is None or out in self._tape.outputs or out in self._written:
            return
        pieces, dim = stack.args[0], _dim(stack, 1, len(self._tape.values[out].shape))
        told = []
        for reader in readers:
            if reader.target not in (_SELECT, _UNBIND):
                return
            if _dim(reader, 1, len(self._tape.values[out].shape)) != dim:
                return
            own = [pieces[reader.args[2]]] if reader.target == _SELECT else pieces
            told.append(replace(reader, kwargs={**reader.kwargs, PIECES: list(own)}))
        yield replace(stack, is_loose=True)
        yield from told


def _dim(op: Op, place: int, ndim: int) -> int:
    return int(op.args[place] if len(op.args) > place else 0) % ndim
