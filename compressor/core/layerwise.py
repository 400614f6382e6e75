"""What every layer of a run computes, as one number each: enough to tell two runs apart.

The outputs alone would not do. Behind many sigmoids, or one ReLU that is never above zero, a wrong
channel changes them by less than rounding does. So each product (convolution, linear layer, ...) is
compared where it happens, on the channels that stay. No result is kept: its inner product with fixed
random numbers is, which two different results share with probability zero.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.core.graph import Graph, Mask
from compressor.core.reference import kept_positions, take

__all__ = ["Difference", "Layer", "Layers", "Sums", "difference", "products_of"]

_PRODUCTS = ("convolution", "addmm", "mm", "bmm", "baddbmm", "addmv", "mv", "linear")

# An operator and the how many-th of its calls it is.
Call = tuple[str, int]


@dataclass(frozen=True, eq=False)
class Layer:
    """One product of the recording: where it is, its shape, and the positions of it that stay."""

    module: str
    shape: tuple[int, ...]
    kept: Mapping[int, Tensor]

    def fits(self, result: Tensor) -> bool:
        """Whether the result has its channels; the example may be of another size since."""
        return result.dim() == len(self.shape) and all(
            result.shape[axis] == self.shape[axis] for axis in self.kept
        )


Layers = Mapping[Call, Layer]


def products_of(graph: Graph, removed: Mask) -> Layers:
    """Every product that the recording ran, in order."""
    padded = np.append(removed, False)
    calls: Counter[str] = Counter()
    found = {}
    for op in graph.tape.ops:
        out = op.outputs[0] if op.outputs else None
        if out is not None and op.target.split(".")[1] in _PRODUCTS:
            calls[op.target] += 1
            kept = kept_positions(graph.axes_of(out), padded)
            found[op.target, calls[op.target]] = Layer(op.module, graph.tape.values[out].shape, kept)
    return found


@dataclass(frozen=True)
class _Sum:
    shape: tuple[int, ...]
    value: complex
    norm: float


class Sums:
    """Takes note of every product of one run; with `layers`, of the positions that stay only."""

    def __init__(self, layers: Layers | None = None) -> None:
        self._layers = layers
        self.calls: Counter[str] = Counter()
        self.by_call: dict[Call, _Sum] = {}
        self.strayed = False

    def __call__(self, func: Any, result: Any) -> None:
        """Take note of one operator's result."""
        target = str(func)
        if target.split(".")[1] not in _PRODUCTS or not isinstance(result, Tensor):
            return
        self.calls[target] += 1
        call = target, self.calls[target]
        if self._layers is not None:
            layer = self._layers.get(call)
            if layer is None or not layer.fits(result):
                self.strayed = True
                return
            result = take(result, layer.kept)
        self.by_call[call] = _sum(result)


def _sum(x: Tensor) -> _Sum:
    total = x
    for axis in reversed(range(x.dim())):
        total = total @ _numbers(x.shape[axis], axis).to(x)
    return _Sum(tuple(x.shape), complex(total.item()), float(torch.linalg.vector_norm(x)))


def _numbers(count: int, seed: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(count, generator=generator, dtype=torch.float64, device="cpu")


@dataclass(frozen=True)
class Difference:
    """The largest relative difference of `compared` layers, and the first module above the tolerance."""

    error: float
    compared: int
    first: str | None


def difference(layers: Layers, expected: Sums, found: Sums, tolerance: float) -> Difference:
    """How two runs differ, layer by layer.

    Nothing is said of layers where the reference took another branch than the recording did. Operators
    that the pruned model runs another number of times are passed over: torch may take another way
    through a product of which one channel is left.
    """
    worst, compared, first = 0.0, 0, None
    counts = Counter(target for target, _ in layers)
    for call, layer in () if expected.strayed else layers.items():
        if not expected.calls[call[0]] == found.calls[call[0]] == counts[call[0]]:
            continue
        a, b = expected.by_call[call], found.by_call[call]
        if not math.isfinite(a.norm):
            continue
        error = abs(a.value - b.value) / (a.norm or 1.0) if a.shape == b.shape else math.inf
        compared += 1
        worst = error if not error <= worst else worst
        if first is None and not error <= tolerance:
            first = layer.module
    return Difference(worst, compared, first)
