"""Tensors inside whatever a forward takes and returns."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence, Set
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree

__all__ = ["output_tensors", "outside_of_torch", "with_tensors"]

# What holds no tensors, or none that are results.
_CLOSED = (
    *(Tensor, np.ndarray, nn.Module, torch.Generator, torch.dtype, torch.device, Enum),
    *(str, bytes, int, float, complex, type(None), type, types.ModuleType, types.FunctionType),
)


def output_tensors(tree: Any) -> list[Tensor]:
    """Every tensor in nested containers, dataclasses and other objects, in order.

    >>> output_tensors({"logits": torch.zeros(2), "side": (torch.ones(1), 3.0)})
    [tensor([0., 0.]), tensor([1.])]
    """
    return [leaf for leaf in _leaves(tree, set()) if isinstance(leaf, Tensor)]


def with_tensors(convert: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """The same structure with every tensor converted; objects that hold tensors are copied for it.

    >>> with_tensors(torch.neg, [torch.ones(1), {"scale": torch.ones(1), "name": "x"}])
    [tensor([-1.]), {'scale': tensor([-1.]), 'name': 'x'}]
    """

    def leaf(item: Any) -> Any:
        if isinstance(item, Tensor):
            return convert(item)
        if isinstance(item, (*_CLOSED, Iterator)) or not output_tensors(item):
            return item
        new = copy.copy(item)
        if isinstance(item, MutableMapping):
            new.update({key: with_tensors(convert, value) for key, value in item.items()})
        elif not isinstance(item, (Mapping, Sequence, Set)):
            for name in _names(item):
                # A frozen dataclass would refuse to have its own copy filled.
                object.__setattr__(new, name, with_tensors(convert, getattr(item, name)))
        return new

    return _pytree.tree_map(leaf, tree)


def outside_of_torch(tree: Any) -> list[Any]:
    """Every array and iterator in `tree`: results whose tensors cannot be seen."""
    found = (np.ndarray, Iterator)
    return [leaf for leaf in _leaves(tree, set()) if isinstance(leaf, found)]


def _leaves(tree: Any, seen: set[int]) -> Iterator[Any]:
    for leaf in _pytree.tree_leaves(tree):
        if isinstance(leaf, (*_CLOSED, Iterator)):
            yield leaf
        elif id(leaf) not in seen:
            seen.add(id(leaf))
            for part in _parts(leaf):
                yield from _leaves(part, seen)


def _parts(leaf: Any) -> Iterable[Any]:
    if isinstance(leaf, Mapping):
        return list(leaf.values())
    if isinstance(leaf, (Sequence, Set)):
        return list(leaf)
    return [getattr(leaf, name) for name in _names(leaf)]


def _names(item: Any) -> list[str]:
    """The attributes that an object holds, in its dictionary or its slots."""
    names = [*getattr(item, "__dict__", ())]
    for kind in type(item).__mro__:
        slots = vars(kind).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else slots
    return [name for name in dict.fromkeys(names) if hasattr(item, name)]
