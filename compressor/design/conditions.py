"""Which filters of a network are degenerate: conditions on the filters of one convolution."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.design.choosing import Chosen, Filters, chosen_filters
from compressor.design.layer import layers_in
from compressor.errors import InputError
from compressor.filters import FilterBank, banks
from compressor.filters.quality import Verdict, dead_filters, duplicates, quality

__all__ = ["Condition", "Copies", "Dead", "Judged", "Where", "degenerate", "flagged"]

# From the filters of one convolution to flags [O].
Condition = Callable[[FilterBank], Tensor]
Where = Condition | Filters


@dataclass(frozen=True)
class Dead:
    """True of filters whose every kernel is below `epsilon` of the layer's largest weight.

    *Source: as `filters.quality.dead_filters`.*

    >>> weight = torch.ones(3, 2, 3, 3)
    >>> weight[1] = 1e-4
    >>> Dead()(FilterBank(weight, "conv"))
    tensor([False,  True, False])
    """

    epsilon: float = 0.01

    def __call__(self, bank: FilterBank) -> Tensor:
        """The flags [O]."""
        return dead_filters(bank.weight, epsilon=self.epsilon)


@dataclass(frozen=True)
class Copies:
    """True of filters that point where an earlier filter of their group does that is kept: cos ≥ `above`.

    One of each kind stays. Filters that point the opposite way are none: behind a ReLU they say something
    else.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [-1.0, 0.0]])
    >>> Copies()(FilterBank(rows[:, :, None], "conv"))
    tensor([False, False,  True, False])
    """

    above: float = 0.95

    def __call__(self, bank: FilterBank) -> Tensor:
        """The flags [O]."""
        filters = len(bank.weight)
        found = duplicates(bank.weight, above=self.above, groups=bank.groups, limit=filters * filters)
        copies = torch.zeros(filters, dtype=torch.bool)
        for first, second in sorted((i, j) for i, j, cosine in found.pairs if cosine > 0):
            if not copies[first]:
                copies[second] = True
        return copies


@dataclass(frozen=True)
class Judged:
    """True of all filters of a layer on which one of the verdicts was passed, random or sparse by default.

    *Source: as `filters.quality.Verdict`.* A layer that was just drawn is random, so this says nothing about
    a network that was not trained.

    >>> drawn = torch.randn(16, 16, 3, 3, generator=torch.manual_seed(0))
    >>> bool(Judged()(FilterBank(drawn, "conv")).all())
    True
    """

    verdicts: tuple[Verdict, ...] = (Verdict.RANDOM, Verdict.SPARSE)

    def __call__(self, bank: FilterBank) -> Tensor:
        """The flags [O], all alike."""
        passed = not set(self.verdicts).isdisjoint(quality(bank).verdicts)
        return torch.full((len(bank.weight),), passed)


def degenerate(bank: FilterBank) -> Tensor:
    """True of filters that are `Dead`, or `Copies` of another that is not [O].

    >>> weight = torch.ones(3, 2, 3, 3)
    >>> weight[0] = 1e-4
    >>> degenerate(FilterBank(weight, "conv"))
    tensor([ True, False,  True])
    """
    dead = Dead()(bank)
    living = bank.weight.masked_fill(dead.reshape(-1, *[1] * (bank.weight.dim() - 1)), 0)
    return dead.cpu() | Copies()(FilterBank(living, bank.name, groups=bank.groups)).cpu()


def flagged(model: nn.Module, where: Where, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Chosen:
    """The flags [O] by path of a layer, of what `where` says.

    A condition is asked of every convolution module; with example inputs its weight has the batch norm
    behind it folded in.
    """
    if not callable(where):
        return chosen_filters(model, where)
    if inspect.isclass(where):
        raise InputError(f"where is a condition such as {where.__name__}(), got the class {where.__name__}")
    found: Chosen = {}
    names = {path or "(model)": path for path, _ in layers_in(model)}
    for bank in _banks(model, args, kwargs):
        if bank.name in names:
            own = _checked(where, bank)
            path = names[bank.name]
            found[path] = found[path] | own if path in found else own
    return chosen_filters(model, {path: flags for path, flags in found.items() if bool(flags.any())})


def _banks(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[FilterBank, ...]:
    if args and kwargs:
        raise InputError(
            "example inputs are positional or by name, not both: conditions run the model on them"
        )
    if not args and not kwargs:
        return banks(model, include_transposed=True)
    return banks(model, args or kwargs, include_transposed=True, fold_batch_norm=True)


def _checked(where: Condition, bank: FilterBank) -> Tensor:
    flags = where(bank)
    count = len(bank.weight)
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool or flags.shape != (count,):
        got = f"{flags.dtype} {list(flags.shape)}" if isinstance(flags, Tensor) else type(flags).__name__
        raise InputError(f"{where!r}: flags of {bank.name} are a bool tensor [{count}], it returned {got}")
    return flags.cpu()
