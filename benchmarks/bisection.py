"""A budget for libraries that know ratios only: the largest network within a fraction of the MACs."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

import compressor as cp

__all__ = ["largest_within"]


def largest_within(
    fraction: float, model: nn.Module, x: Tensor, cut: Callable[[float], nn.Module | None], *, steps: int = 10
) -> nn.Module:
    """The largest of the networks `cut(ratio)` with at most `fraction` of the MACs of `model`, by bisection.

    `cut` returns None where a ratio leaves nothing that can run; that is too much. Raises RuntimeError
    where no ratio that was tried gets there.
    """
    most = fraction * _macs(model, x)
    low, high, best = 0.0, 1.0, None
    for _ in range(steps):
        ratio = (low + high) / 2
        small = cut(ratio)
        if small is not None and _macs(small, x) > most:
            low = ratio
        else:
            high, best = ratio, small if small is not None else best
    if best is None:
        raise RuntimeError(f"no ratio reaches {fraction:g} of the MACs")
    return best


def _macs(model: nn.Module, x: Tensor) -> float:
    return cp.profiling.macs(cp.capture(model, x)).total()
