"""Which operators a MAC count leaves out, and what kind of work they do instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from compressor.core.tape import RECURRENT_WEIGHTS, Op, Tape
from compressor.profiling.contractions import contraction_macs

__all__ = ["Uncounted", "uncounted"]

# Operators whose names begin so only place elements elsewhere, or fill a tensor.
_MOVES = (
    *(
        "clone",
        "_to_copy",
        "copy",
        "cat",
        "stack",
        "detach",
        "lift_fresh",
        "resolve_",
        "contiguous",
    ),
    *("index", "gather", "embedding", "scatter", "select_", "slice_", "masked_", "nonzero"),
    *("constant_pad", "reflection_pad", "replication_pad", "roll", "flip", "repeat", "im2col"),
    *("pixel_", "channel_shuffle", "upsample_nearest", "_unsafe_view", "_reshape", "unfold_copy"),
    *("view_copy", "permute_copy", "transpose_", "expand_copy", "unsafe_", "split_with_sizes_copy"),
    *("as_strided", "squeeze_", "unsqueeze_", "t_", "swapaxes_", "_local_", "tril", "triu", "eye"),
    *("empty", "zeros", "ones", "full", "new_", "fill", "zero_", "arange", "scalar_tensor"),
)
# Arithmetic, but a few operations for each element that goes in: by custom no MACs.
_PER_ELEMENT = (
    *(
        "native_batch_norm",
        "native_layer_norm",
        "native_group_norm",
        "native_dropout",
        "cudnn_batch",
    ),
    *(
        "_native_batch_norm",
        "miopen_batch_norm",
        "_fused_rms_norm",
        "_weight_norm",
        "linalg_vector",
    ),
    *("max_pool", "avg_pool", "_adaptive_avg", "adaptive_max_pool", "upsample_", "grid_sampler"),
    *(
        "mean",
        "sum",
        "var",
        "std",
        "amax",
        "amin",
        "max",
        "min",
        "prod",
        "norm",
        "argmax",
        "argmin",
    ),
    *(
        "_softmax",
        "_safe_softmax",
        "_log_softmax",
        "logsumexp",
        "cum",
        "sort",
        "topk",
        "any",
        "all",
    ),
    *("bernoulli", "rand", "uniform", "glu", "col2im", "_prelu", "histc", "bincount"),
)


@dataclass(frozen=True)
class Uncounted:
    """Operators that add no MACs, by name, with how often they ran.

    `per_element` compute a few operations for each element (activations, norms, pooling, sums): the
    custom is to count them as 0 MACs. `moves` only place elements elsewhere. `unknown` may do any
    amount of arithmetic: the counts of this model lack it.
    """

    per_element: Mapping[str, int]
    moves: Mapping[str, int]
    unknown: Mapping[str, int]


def uncounted(tape: Tape) -> Uncounted:
    """The operators of a recorded forward pass that its MACs leave out.

    >>> import torch; from torch import nn; from compressor.core.tape import record
    >>> found = uncounted(record(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), [torch.ones(1, 4)], {}))
    >>> found.per_element, found.moves, found.unknown
    ({'relu': 1}, {'t': 1}, {})
    """
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ("per_element", "moves", "unknown")}
    for op in tape.ops:
        if contraction_macs(tape, op) is None and op.target != RECURRENT_WEIGHTS:
            found[_kind(op)][_name(op)] += 1
    return Uncounted(**{kind: dict(counter.most_common()) for kind, counter in found.items()})


def _name(op: Op) -> str:
    return op.target.removeprefix("aten.").rpartition(".")[0] or op.target


def _kind(op: Op) -> str:
    name = _name(op)
    if op.is_view or name.startswith(_MOVES):
        return "moves"
    return "per_element" if op.is_pointwise or name.startswith(_PER_ELEMENT) else "unknown"
