"""Where a forward reads a number off its inputs: Python may branch on it, and one path was recorded."""

from __future__ import annotations

from compressor.core.tape import Op, Tape, references

__all__ = ["branching_modules"]

# Operators that hand a number of a tensor to Python.
_READING = frozenset(
    f"aten.{name}.default" for name in ("_local_scalar_dense", "is_nonzero", "equal", "allclose", "item")
)
# How many positions each step of a packed sequence has: a recurrent layer reads that, whatever it is.
_PACKING = "aten._pack_padded_sequence.default"


def branching_modules(tape: Tape) -> tuple[str, ...]:
    """The paths of modules that read numbers computed from the inputs, in order of execution."""
    if not any(op.target in _READING for op in tape.ops):
        return ()
    dependent = set(tape.inputs)
    shown_by: dict[int, int] = {}
    found: dict[str, None] = {}
    for op in tape.ops:
        taken = set(references((*op.args, *op.kwargs.values())))
        if op.is_view:
            shown_by.update({out: op.args[0].value for out in op.outputs if out is not None})
        if _takes_shape_only(op) or dependent.isdisjoint(taken):
            continue
        if op.target in _READING:
            found[op.module] = None
        outputs = op.outputs[:1] if op.target == _PACKING else op.outputs
        dependent.update(out for out in outputs if out is not None)
        for old, new in op.mutated:
            dependent.add(new)
            whole: int | None = old
            while whole is not None:
                # Written through a view: what it shows holds the inputs from now on.
                dependent.add(whole)
                whole = shown_by.get(whole)
    return tuple(found)


def _takes_shape_only(op: Op) -> bool:
    """Whether the result is a constant with the shape of the operand."""
    name = op.target.split(".")[1]
    return name.startswith("new_") or name.endswith("_like")
