"""Convolutions and batch norms on a tape: which operators they are, and which norm follows what alone."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.core.tape import Op, Ref, Tape, references

__all__ = ["BATCH_NORMS", "CONVOLUTIONS", "NormArguments", "sole_norms", "takes_batch_statistics"]

CONVOLUTIONS = frozenset(("aten.convolution.default", "aten.convolution_overrideable.default"))


@dataclass(frozen=True)
class NormArguments:
    """The places of ε, and of the argument that says that the batch's own statistics are taken, if any."""

    epsilon: int
    training: int | None


BATCH_NORMS = {
    "aten.native_batch_norm.default": NormArguments(7, 5),
    "aten.cudnn_batch_norm.default": NormArguments(7, 5),
    "aten.miopen_batch_norm.default": NormArguments(7, 5),
    "aten.batch_norm.default": NormArguments(7, 5),
    "aten._native_batch_norm_legit_no_training.default": NormArguments(6, None),
}
"""The input is argument 0, γ 1, β 2, the mean 3, the variance 4."""


def takes_batch_statistics(norm: Op) -> bool:
    """Whether a batch norm of the tape takes the statistics of its batch: it is no fixed scale then."""
    training = BATCH_NORMS[norm.target].training
    return training is not None and bool(norm.args[training])


def sole_norms(tape: Tape) -> dict[int, Op]:
    """The batch norm in eval mode that alone reads a value, for each value that has one.

    It can be folded into what writes the value, as nothing else sees the difference.
    """
    readers: dict[int, list[Op]] = {}
    for op in tape.ops:
        for value in set(references((*op.args, *op.kwargs.values()))):
            readers.setdefault(value, []).append(op)
    found = {}
    for value, reading in readers.items():
        norm = reading[0]
        if len(reading) > 1 or norm.target not in BATCH_NORMS or value in tape.outputs:
            continue
        if norm.args[0] == Ref(value) and not takes_batch_statistics(norm):
            found[value] = norm
    return found
