"""Whether a pruned model is as fast as was promised, and as its MACs let one hope: measured, both in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.errors import InputError
from compressor.profiling.latency import Latency, latency
from compressor.runtimes import Runtime

__all__ = ["Promise", "keeps_promise"]

_TOLERANCE = 0.10


@dataclass(frozen=True)
class Promise:
    """The fraction of the latency that was to be left, and what both models took in the end."""

    fraction: float
    measured: Latency

    @property
    def measured_fraction(self) -> float:
        """The fraction of the latency that is left, from the ratios within each round."""
        return 1 / self.measured.speedup

    @property
    def is_kept(self) -> bool:
        """Whether what is left is at most 10 % more than promised."""
        return self.measured_fraction <= self.fraction * (1 + _TOLERANCE)

    def __str__(self) -> str:
        whole, small = self.measured.timings[0].ms, self.measured.timings[-1].ms
        verdict = "kept" if self.is_kept else "NOT kept"
        return (
            f"promise of latency {verdict}: {self.fraction:.3g} of it was to be left, "
            f"{self.measured_fraction:.3g} is ({whole:.3f} -> {small:.3f} ms, {self.measured.runtime}, "
            f"{self.measured.rounds} interleaved rounds)"
        )


def keeps_promise(
    model: nn.Module,
    small: nn.Module,
    *args: Any,
    fraction: float,
    runtime: Runtime,
    kwargs: Mapping[str, Any] | None = None,
    rounds: int | None = None,
) -> Promise:
    """Whether at most `fraction` of the latency of `model` is left in `small` on `runtime`, measured now.

    `args` and `kwargs` are inputs of both. Rounds are interleaved, see `latency`.

    >>> import torch; from compressor.runtimes import Eager
    >>> wide, narrow, x = nn.Linear(2048, 1024), nn.Linear(2048, 16), torch.zeros(32, 2048)
    >>> keeps_promise(wide, narrow, x, fraction=0.5, runtime=Eager(), rounds=5).is_kept
    True
    """
    if not fraction > 0:
        raise InputError(
            f"keeps_promise(fraction={fraction}): the share of the latency that is left is expected"
        )
    return Promise(fraction, latency(model, small, *args, kwargs=kwargs, runtime=runtime, rounds=rounds))
