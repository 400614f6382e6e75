"""Where two runs part: the first module whose result is not the reference's kept channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.doubles import copies
from compressor.core.graph import Graph, Mask
from compressor.core.reference import Doubling, Restricted, call_in_double, kept_positions, plainly, take
from compressor.core.tape import RECURRENT_WEIGHTS, undisturbed

__all__ = ["first_divergence", "relative_error"]


def relative_error(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """The largest difference relative to the largest expected value; infinite where shapes differ."""
    if len(expected) != len(found):
        return float("inf")
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.shape != b.shape or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            return float("inf")
        if a.numel():
            scale = float(a.abs().max()) or 1.0
            worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


class _Watching(Doubling):
    """Keeps what every operator computed."""

    def __init__(self, inner: Restricted | None) -> None:
        super().__init__()
        self._inner = inner
        self.results: list[tuple[str, Any]] = []

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator and keep a copy of its first result."""
        run = super().call if self._inner is None else self._inner.call
        out = run(func, args, kwargs)
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        self.results.append((str(func), first.clone() if isinstance(first, Tensor) else None))
        return out


def first_divergence(
    graph: Graph,
    removed: Mask,
    full: nn.Module,
    small: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tolerance: float,
) -> str:
    """The first operator whose result is not the reference's kept channels, in words."""
    padded = np.append(removed, False)
    runs = []
    for model, inner in ((full, Restricted(graph.restrictions, removed)), (small, None)):
        watching = _Watching(inner)
        own_args, own_kwargs = copies(args, kwargs)
        try:
            with undisturbed(model, training=False), torch.no_grad(), plainly(model), watching:
                call_in_double(model, own_args, own_kwargs)
        except Exception as error:
            return f"it stops with {type(error).__name__}: {error}"
        runs.append(watching.results)
    ops = [op for op in graph.tape.ops if op.target != RECURRENT_WEIGHTS]
    for op, (name, a), (other, b) in zip(ops, *runs, strict=False):
        where = f"module {op.module!r} (operator {op.target})" if op.module else f"operator {op.target}"
        if name != op.target or other != op.target:
            return f"the first operator that does not follow the recording is in {where}"
        out = op.outputs[0]
        if a is None or b is None or out is None or not a.is_floating_point():
            continue
        if "empty" in op.target:  # whatever was in memory
            continue
        kept = kept_positions(graph.axes_of(out), padded)
        if relative_error([take(a, kept)], [b]) > tolerance:
            return f"the first module that diverges is {where}"
    return "no single operator differs by as much before the output"
