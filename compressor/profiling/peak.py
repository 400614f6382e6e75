"""The most memory that activations take at once, exactly, for any removal of units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from compressor.core.channels import Mask
from compressor.core.graph import Graph, require_graph
from compressor.core.tape import Tape
from compressor.profiling.cost import Cost
from compressor.profiling.counting import Counts, Numbers, RemovalOrder, products
from compressor.profiling.lifetimes import Lifetime, lifetimes

__all__ = ["Held", "Peak", "PeakCost", "peak_activation_bytes", "recorded_peak_bytes"]


@dataclass(frozen=True)
class Held:
    """Memory that is held at a peak: of `value`, which `operator` in `module` computed ("" for an input)."""

    value: int
    module: str
    operator: str
    bytes: int


@dataclass(frozen=True)
class Peak:
    """Where the most memory is held: while `operator` of `module` runs; `held` says what, largest first."""

    module: str
    operator: str
    held: tuple[Held, ...]


@dataclass(frozen=True, eq=False)
class PeakCost:
    """The largest sum, over all operators of a forward pass, of the bytes held while one runs.

    It has what `Cost` has, but does not add up over modules. `lives` says when which memory is held, and
    the entries of `each` what it costs; `owner` [n_entries] are positions in `lives`.
    """

    name: str
    graph: Graph
    each: Cost
    owner: Counts
    lives: tuple[Lifetime, ...]

    @cached_property
    def _events(self) -> tuple[Counts, Counts, Counts]:
        """Entries of `each` as they are taken (+1) and given back (-1), in order, and at which operator."""
        first = np.array([life.first for life in self.lives], dtype=np.int64)[self.owner]
        last = np.array([life.last for life in self.lives], dtype=np.int64)[self.owner]
        entry = np.tile(np.arange(len(self.owner)), 2)
        sign = np.repeat([1, -1], len(self.owner))
        # What an operator reads is given back after it, hence after what it computes was taken.
        when = np.concatenate([2 * first, 2 * last + 1])
        order = np.argsort(when, kind="stable")
        return entry[order], sign[order], when[order] // 2

    def _held(self, values: Numbers) -> Numbers:
        """The bytes held after each event [..., n_events], for entries [..., n_entries]."""
        entry, sign, _ = self._events
        return np.asarray(np.cumsum(values[..., entry] * sign, axis=-1))

    def total(self, removed: Mask | None = None) -> int:
        """The peak in bytes when the `removed` [n_units] units go (None: nothing goes)."""
        return int(self._held(np.array(self.each.per_entry(removed), dtype=object)).max(initial=0))

    def along(self, order: RemovalOrder) -> Callable[[Counts], Numbers]:
        """The peak [...] as a function of the ranks lost [..., n_groups], see `Cost.along`."""
        entries = self.each.entries_along(order)
        return lambda lost: np.asarray(self._held(entries(lost)).max(axis=-1, initial=0))

    def peak(self, removed: Mask | None = None) -> Peak:
        """Where the peak is when the `removed` [n_units] units go, the first place of several."""
        values = np.array(self.each.per_entry(removed), dtype=object)
        held_after = self._held(values)
        ops = self.graph.tape.ops
        at = int(self._events[2][int(np.argmax(held_after))]) if len(held_after) else -1
        sizes = [0] * len(self.lives)
        for owner, value in zip(self.owner.tolist(), values.tolist(), strict=True):
            sizes[owner] += value
        held = [
            Held(life.value, *_maker(self.graph.tape, life), size)
            for life, size in zip(self.lives, sizes, strict=True)
            if life.first <= at <= life.last and size
        ]
        where = (ops[at].module, ops[at].target) if 0 <= at < len(ops) else ("", "")
        return Peak(*where, tuple(sorted(held, key=lambda item: -item.bytes)))

    def by_module(self, removed: Mask | None = None) -> dict[str, int]:
        """What is held at the peak, by the module that computed it; inputs are of the model itself, ""."""
        shares: dict[str, int] = {}
        for held in self.peak(removed).held:
            shares[held.module] = shares.get(held.module, 0) + held.bytes
        return shares


def peak_activation_bytes(graph: Graph) -> PeakCost:
    """The most bytes of activations that one forward pass on the example inputs holds at once.

    A tensor is held from the operator that computes it to the last that reads it, both included; inputs and
    outputs are held to the end. Views and in-place operators take nothing. That is what a runtime needs that
    frees what it can; PyTorch holds more where a forward keeps a name for what it no longer needs, and
    kernels may take working memory. Attention is counted in its plain form, with the matrix of weights,
    and `nn.MultiheadAttention` as the forward that it has once it was cut.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> cost = peak_activation_bytes(capture(net, torch.ones(1, 4)))
    >>> cost.total()  # at Tanh: the input, what it reads and what it writes: (4 + 8 + 8) * 4
    80
    >>> cost.total(np.arange(8) < 4), cost.peak().module
    (48, '1')
    """
    require_graph("peak_activation_bytes", graph)
    lives = lifetimes(graph.tape)
    entries, owner = [], []
    for position, life in enumerate(lives):
        meta, axes = graph.tape.values[life.value], graph.axes_of(life.value)
        fixed = math.prod(size for axis, size in enumerate(meta.shape) if axis not in axes)
        own = products(*_maker(graph.tape, life), fixed * meta.dtype.itemsize, tuple(axes.values()))
        for term in own:
            entries.append(term)
            owner.append(position)
    name = "peak activation bytes"
    each = Cost(name, tuple(entries), graph.n_units)
    return PeakCost(name, graph, each, np.array(owner, dtype=np.int64), lives)


def recorded_peak_bytes(tape: Tape) -> int:
    """The most bytes of activations that a recording holds at once, see `peak_activation_bytes`."""
    change = [0] * (len(tape.ops) + 2)
    for life in lifetimes(tape):
        meta = tape.values[life.value]
        size = math.prod(meta.shape) * meta.dtype.itemsize
        change[life.first + 1] += size
        change[life.last + 2] -= size
    return int(np.cumsum(np.array(change, dtype=object)).max())


def _maker(tape: Tape, life: Lifetime) -> tuple[str, str]:
    """Module and operator that made the memory."""
    op = tape.ops[life.first] if life.first >= 0 else None
    return ("", "input") if op is None else (op.module, op.target)
