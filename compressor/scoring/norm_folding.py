"""Weights as a network applies them: with the scale of the batch norm behind them folded in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from compressor.core.batch_norms import BATCH_NORMS, CONVOLUTIONS, sole_norms
from compressor.core.graph import Graph
from compressor.core.tape import Op, Ref, Tape, references
from compressor.observing.precision import widened
from compressor.scoring.weights import weights_of

__all__ = ["Contraction", "contractions", "folded_weights"]

_PRODUCTS = {"aten.mm.default": 1, "aten.addmm.default": 2}  # which argument is the matrix


@dataclass(frozen=True)
class Contraction:
    """One use of a weight by a convolution or a matrix product.

    `out_axis` is the axis of the weight that outputs lie along, per group; `output` the value on the tape.
    """

    weight: str
    out_axis: int
    groups: int
    output: int


def folded_weights(graph: Graph) -> dict[str, Tensor]:
    """Every parameter and buffer by canonical name, detached, batch norms folded in where that is exact.

    A weight is multiplied by γ / √(σ² + ε), output by output, where it is used once, by a convolution or a
    matrix product, and a batch norm in eval mode is all that reads the result. Weights with no such norm
    (norms of other kinds, sums in front of the norm) are as they are. What folding adds to the bias is left
    out.

    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    >>> net[1].weight.data = torch.tensor([1.0, -2.0, 0.0, 4.0])
    >>> graph = cp.capture(net.eval(), torch.ones(1, 3, 5, 5))
    >>> (folded_weights(graph)["0.weight"] / net[0].weight.data)[:, 0, 0, 0]
    tensor([ 1.0000, -2.0000,  0.0000,  4.0000], dtype=torch.float64)
    """
    tape, weights = graph.tape, weights_of(graph)
    reads = Counter(
        value for op in tape.ops for value in set(references((op.args, tuple(op.kwargs.values()))))
    )
    reads.update(tape.outputs)
    scales = dict(_scales(tape, weights))
    for use in contractions(tape):
        if reads[tape.by_name[use.weight]] == 1 and use.output in scales:
            weights[use.weight] = _scaled(weights[use.weight], scales[use.output], use)
    return weights


def contractions(tape: Tape) -> list[Contraction]:
    """Every convolution and product with a matrix that is a parameter itself, in the order of the tape."""
    turned: dict[int, int] = {}  # values that are a matrix seen from the other side
    found = []
    for op in tape.ops:
        if op.target == "aten.t.default" and isinstance(op.args[0], Ref) and op.outputs[0] is not None:
            turned[op.outputs[0]] = op.args[0].value
        use = _contraction(op, tape, turned)
        if use is not None:
            found.append(use)
    return found


def _contraction(op: Op, tape: Tape, turned: Mapping[int, int]) -> Contraction | None:
    output = op.outputs[0] if op.outputs else None
    if output is None:
        return None
    if op.target in CONVOLUTIONS:
        name = _name(op.args[1], tape)
        return Contraction(name, int(bool(op.args[6])), int(op.args[8]), output) if name else None
    if op.target in _PRODUCTS:
        matrix = op.args[_PRODUCTS[op.target]]
        value = matrix.value if isinstance(matrix, Ref) else -1
        seen = Ref(turned[value]) if value in turned else matrix
        name = _name(seen, tape)
        return Contraction(name, 0 if value in turned else 1, 1, output) if name else None
    return None


def _scales(tape: Tape, weights: Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
    """γ / √(σ² + ε) [O] of each value that only a batch norm reads whose scale and statistics are known."""
    for value, norm in sole_norms(tape).items():
        variance, gamma = _name(norm.args[4], tape), _name(norm.args[1], tape)
        is_computed = norm.args[1] is not None and not gamma  # in the forward: not known here
        if not variance or is_computed:
            continue
        scale = torch.rsqrt(widened(weights[variance]) + norm.args[BATCH_NORMS[norm.target].epsilon])
        yield value, scale * weights[gamma] if gamma else scale


def _name(argument: Any, tape: Tape) -> str:
    """The parameter or buffer that an argument is, or ""."""
    return tape.values[argument.value].name if isinstance(argument, Ref) else ""


def _scaled(weight: Tensor, scale_O: Tensor, use: Contraction) -> Tensor:
    """The weight, outputs along `use.out_axis` in each of its groups multiplied by their scales."""
    if use.out_axis == 0:
        return widened(weight) * scale_O.reshape(-1, *[1] * (weight.ndim - 1))
    # [I, O / groups, …] of a transposed convolution: the rows of group a go with the a-th part of the scales.
    grouped = widened(weight).reshape(use.groups, -1, *weight.shape[1:])
    return (grouped * scale_O.reshape(use.groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
