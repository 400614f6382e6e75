"""A guard for pruned models: whether fewer MACs became less time, and which widths would make it so."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import LatencyWarning
from compressor.profiling.cost import macs
from compressor.profiling.latency import Latency, latency
from compressor.profiling.latency_table import LatencyTable, fastest_multiple
from compressor.profiling.latency_table.layers import layers_of
from compressor.runtimes import OnnxRuntime, Runtime

__all__ = ["Gain", "guard"]

_POOR = 0.5  # of the ratio of MACs; a uniform cut of a convolutional net gains 0.54 to 0.75 of it


@dataclass(frozen=True)
class Gain:
    """What fewer MACs have brought: how many times fewer they are, how many times faster the model is.

    `round_to` is the multiple that the widths of the pruned model should have been rounded to, None where
    they are multiples of it, or where the gain is good; `unaligned` of its `layers` layers have other widths.
    """

    macs_ratio: float
    measured: Latency
    round_to: int | None
    unaligned: int
    layers: int

    @property
    def speedup(self) -> float:
        """How many times faster the pruned model is."""
        return self.measured.speedup

    @property
    def is_good(self) -> bool:
        """Whether the model is faster, and at least by half of what its MACs let one hope."""
        return self.speedup >= max(1.0, _POOR * self.macs_ratio)

    def __str__(self) -> str:
        head = (
            f"{self.macs_ratio:.2f}x fewer MACs, {self.speedup:.2f}x the speed ({self.measured.runtime}, "
            f"{self.measured.rounds} interleaved rounds)"
        )
        if self.is_good:
            return head
        if self.round_to is None:
            return (
                f"{head}: no rounding of widths would help; try a budget on latency, Latency(fraction, table)"
            )
        return (
            f"{head}: {self.unaligned} of {self.layers} layers have widths that this runtime is slow at; "
            f"prune with round_to={self.round_to}, or with round_to=latency_table(capture(model, x))"
        )


def guard(
    model: nn.Module,
    small: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
    table: LatencyTable | None = None,
    measured: Latency | None = None,
    rounds: int | None = None,
) -> Gain:
    """What fewer MACs have brought on `runtime` (default: `runtimes.OnnxRuntime()`), measured now.

    Warns with LatencyWarning where `small` is slower than `model`, or gains less than half of what its MACs
    let one hope, and then proposes the multiple to round widths to: that of `table`, or one measured now on
    the largest layers (some seconds). `args` and `kwargs` are inputs of both models; `measured` is for those
    that were timed on `runtime` already, the larger one first.

        gain = guard(model, small, x)
        print(gain)  # 1.11x fewer MACs, 0.66x the speed ...: prune with round_to=16
    """
    by = (OnnxRuntime() if table is None else table.runtime) if runtime is None else runtime
    whole, left = (capture(m, *args, **(kwargs or {})) for m in (model, small))
    if measured is None:
        measured = latency(model, small, *args, kwargs=kwargs, runtime=by, rounds=rounds)
    ratio = macs(whole).total() / max(macs(left).total(), 1)
    gain = Gain(ratio, measured, None, 0, len(layers_of(left)))
    if gain.is_good:
        return gain
    multiple = table.round_to if table is not None else fastest_multiple(whole, by)
    unaligned = _unaligned(whole, left, multiple)
    gain = Gain(ratio, measured, multiple if unaligned else None, unaligned, gain.layers)
    warnings.warn(str(gain), LatencyWarning, stacklevel=2)
    return gain


def _unaligned(whole: Graph, left: Graph, multiple: int) -> int:
    """How many layers of the pruned model have a width that is no multiple and that the whole one has not."""
    before = [placed.widths for placed in layers_of(whole)]
    after = [placed.widths for placed in layers_of(left)]
    same = before if len(before) == len(after) else [(0, 0)] * len(after)
    return sum(
        any(now % multiple and now != then for now, then in zip(widths, old, strict=True))
        for widths, old in zip(after, same, strict=True)
    )
