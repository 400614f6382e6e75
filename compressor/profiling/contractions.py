"""Multiply-accumulates of recorded operators by their shapes: convolutions and matrix products."""

from __future__ import annotations

import math
from typing import Any

from compressor.core.tape import Op, Ref, Tape

__all__ = ["contraction_macs"]

# Where the first of the two operands of a matrix product stands among the arguments.
_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "dot": 0, "vdot": 0}
_PRODUCTS |= {"addmm": 1, "baddbmm": 1, "addmv": 1, "addbmm": 1}
_CONVOLUTIONS = ("convolution", "convolution_overrideable")


def contraction_macs(tape: Tape, op: Op) -> int | None:
    """The multiply-accumulates of one operator of the tape; None if it is no contraction.

    >>> import torch; from torch import nn; from compressor.core.tape import record
    >>> tape = record(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), [torch.zeros(1, 3, 6, 6)], {})
    >>> [contraction_macs(tape, op) for op in tape.ops]  # 16 positions, 8 x 3 kernels of 9
    [3456, None]
    """
    name = op.target.removeprefix("aten.").partition(".")[0]
    if name in _PRODUCTS:
        first = _PRODUCTS[name]
        left, right = (_shape(tape, op.args[first + i]) for i in range(2))
        return math.prod(left) * (right[-1] if len(right) > 1 else 1)
    if name == "linear":
        return math.prod(_shape(tape, op.args[0])) * _shape(tape, op.args[1])[0]
    if name in _CONVOLUTIONS:
        entering, weight, transposed = op.args[0], op.args[1], bool(op.args[6])
        assert op.outputs[0] is not None
        # The kernel is applied once for each output position, or input position when transposed.
        where = _shape(tape, entering) if transposed else tape.values[op.outputs[0]].shape
        return where[0] * math.prod(where[2:]) * math.prod(_shape(tape, weight))
    return None


def _shape(tape: Tape, argument: Any) -> tuple[int, ...]:
    assert isinstance(argument, Ref)
    return tape.values[argument.value].shape
