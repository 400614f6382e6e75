"""Which memory a recorded forward pass holds when: from the operator that computes it to its last reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.core.tape import Op, Tape, references

__all__ = ["Lifetime", "lifetimes"]


@dataclass(frozen=True, slots=True)
class Lifetime:
    """The memory of one tensor and all its views: it is held while the operators `first` … `last` run.

    `value` is the tensor it was made for, a position in `Tape.values`. For what is there before the first
    operator `first` is -1.
    """

    value: int
    first: int
    last: int


def lifetimes(tape: Tape) -> tuple[Lifetime, ...]:
    """The memory of inputs and of all that operators compute, in the order in which it is taken.

    The caller holds the inputs, and gets the outputs, so both stay to the end. Views lie in the memory
    of what they show, in-place operators take none. What nobody reads is held while its operator runs.
    Parameters, buffers and constants are held by the model and are not among it.

    >>> import torch; from torch import nn; from compressor.core.tape import record
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    >>> tape = record(net, [torch.ones(1, 4)], {})
    >>> [op.target for op in tape.ops if not op.is_view]
    ['aten.addmm.default', 'aten.relu_.default', 'aten.addmm.default']
    >>> [(life.first, life.last) for life in lifetimes(tape)]  # input, hidden, output; 5 operators
    [(-1, 4), (1, 4), (4, 4)]
    """
    end = len(tape.ops) - 1
    home: dict[int, int] = {}  # for each value the value that its memory was made for
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for value in tape.inputs:
        home[value], first[value], last[value] = value, -1, end
    for position, op in enumerate(tape.ops):
        for value in references((*op.args, *op.kwargs.values())):
            if value in home:
                last[home[value]] = max(last[home[value]], position)
        home.update({new: home[old] for old, new in op.mutated if old in home})
        if op.shares_memory:
            base = next(references(op.args), None)
            home.update({out: home[base] for out in _results(op) if base in home})
            continue
        for out in _results(op):
            home[out], first[out], last[out] = out, position, position
    for value in tape.outputs:
        if value in home:
            last[home[value]] = end
    return tuple(Lifetime(value, first[value], last[value]) for value in first)


def _results(op: Op) -> Iterator[int]:
    """The values that the operator returns, but for those that it wrote into."""
    written = {new for _, new in op.mutated}
    return (out for out in op.outputs if out is not None and out not in written)
