"""The convolutions that ran in one forward pass: their weights as computed, depths, and norms behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.batch_norms import BATCH_NORMS, CONVOLUTIONS, sole_norms
from compressor.core.modes import DispatchMode
from compressor.core.tape import Op, Tape, record, references
from compressor.errors import CaptureError, CompressorError, ModelError

__all__ = ["Convolution", "Norm", "convolutions_of"]

_CASTS = frozenset(("aten._to_copy.default", "aten.clone.default"))


@dataclass(frozen=True, eq=False)
class Norm:
    """What a batch norm in eval mode computes with; `weight` is None where it has none."""

    weight: Tensor | None
    variance: Tensor
    epsilon: float

    @property
    def scale(self) -> Tensor:
        """The factor γ / sqrt(σ² + ε) of each channel [O], in float64 on the CPU."""
        deviation = (self.variance.detach().cpu().double() + self.epsilon).sqrt()
        return (1.0 if self.weight is None else self.weight.detach().cpu().double()) / deviation


@dataclass(frozen=True, eq=False)
class Convolution:
    """One convolution that ran.

    `weight` is what was multiplied by, in torch's layout. `norm` is the batch norm that alone reads the
    result. `depth` is the longest path from an input, in operators, where a `norm` is none.
    """

    name: str
    module: str
    weight: Tensor
    groups: int
    transposed: bool
    depth: int
    norm: Norm | None


def convolutions_of(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Convolution, ...]:
    """Every convolution of `model(*args, **kwargs)` in eval mode, in the order in which they run.

    The model is left as it was. Raises CaptureError where it does not run, ModelError where a weight is
    computed from the inputs.
    """
    # Inference mode hides the operators that others are made of.
    with torch.inference_mode(False), _Operands() as seen:
        try:
            tape = record(model, args, kwargs)
        except CompressorError:
            raise
        except Exception as error:
            raise CaptureError(
                f"{type(model).__name__} does not run on the example inputs: {type(error).__name__}: "
                f"{error}. They are a tensor, a tuple of arguments, or a mapping of keyword arguments"
            ) from error
    operands = dict(zip((op.index for op in _seen(tape.ops)), seen.operands, strict=True))
    alone = sole_norms(tape)
    norms = {
        op.index: alone[out]
        for op in tape.ops
        if op.target in CONVOLUTIONS
        for out in op.outputs
        if out in alone
    }
    levels = _levels(tape, {norm.index for norm in norms.values()})
    return tuple(
        _convolution(tape, op, operands, norms.get(op.index), levels)
        for op in tape.ops
        if op.target in CONVOLUTIONS
    )


class _Operands(DispatchMode):
    """Keeps what convolutions and norms compute with, never their inputs.

    The recorder lies above and hands every operator that it has written down to this mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operands: list[tuple[Any, ...]] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        target = str(func)
        if target in CONVOLUTIONS or target in BATCH_NORMS:
            self.operands.append((None, *args[1:]))
        return func(*args, **(kwargs or {}))


def _seen(ops: Iterable[Op]) -> Iterable[Op]:
    return (op for op in ops if op.target in CONVOLUTIONS or op.target in BATCH_NORMS)


def _convolution(
    tape: Tape,
    op: Op,
    operands: Mapping[int, tuple[Any, ...]],
    norm: Op | None,
    levels: Mapping[int, int],
) -> Convolution:
    place = op.args[1].value
    parameter = tape.values[_source(tape, place)].name
    name = parameter.removesuffix("weight").removesuffix(".") or op.module or "(model)"
    if place in levels:
        raise ModelError(
            f"the weight of the convolution in {name!r} is computed from the inputs, so the model has no "
            f"filters there: banks(model) without example inputs gives those of its modules"
        )
    _, weight, *_, transposed, _, groups = operands[op.index]
    entering = levels.get(op.args[0].value)
    depth = 0 if entering is None else entering + 1
    found = None if norm is None else _norm(operands[norm.index], BATCH_NORMS[norm.target].epsilon)
    return Convolution(name, op.module, weight, groups, transposed, depth, found)


def _source(tape: Tape, value: int) -> int:
    """The value that this one shows, in other numbers or another view."""
    writers = {out: op for op in tape.ops for out in op.outputs if out is not None}
    while value in writers and (writers[value].is_view or writers[value].target in _CASTS):
        value = writers[value].args[0].value
    return value


def _norm(operands: tuple[Any, ...], epsilon: int) -> Norm:
    return Norm(operands[1], operands[4], operands[epsilon])


def _levels(tape: Tape, uncounted: set[int]) -> dict[int, int]:
    """For each value that an input reaches the longest path to it, in operators."""
    levels = dict.fromkeys(tape.inputs, 0)
    shown_by: dict[int, int] = {}
    for op in tape.ops:
        if op.shares_memory:
            shown_by.update({out: op.args[0].value for out in op.outputs if out is not None})
        taken = set(references((*op.args, *op.kwargs.values())))
        reached = [levels[value] for value in taken if value in levels]
        if not reached:
            continue
        level = max(reached) + (op.index not in uncounted)
        levels.update({out: level for out in op.outputs if out is not None})
        for old, new in op.mutated:
            levels[new] = level
            whole: int | None = old
            while whole is not None:  # written through a view: what it shows holds the inputs from now on
                levels[whole] = max(level, levels.get(whole, 0))
                whole = shown_by.get(whole)
    return levels
