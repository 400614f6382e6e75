"""Deep copies of modules at the price of their structure.

`copy.deepcopy` takes every module apart through the pickle protocol and copies its ten hook
dictionaries one by one; for a network of many small layers that costs more than all the cutting.
Here a module that copies itself in no special way is rebuilt directly; whatever it holds beyond
tensors, modules and plain values is left to `copy.deepcopy`, with one memo for all.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

__all__ = ["copy_module"]

_ATOMS = (int, float, complex, bool, str, bytes, type(None), type)
_ATOM_KINDS = frozenset(_ATOMS)
_SPECIAL = (
    *("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__slots__"),
    *("__getnewargs__", "__getnewargs_ex__"),
)


def copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of `module`; objects in `memo` (by id) are replaced by their entries."""
    known = memo.get(id(module))
    if known is not None:
        return known  # type: ignore[no-any-return] # a memo holds anything
    if not _is_plain(type(module)):
        return copy.deepcopy(module, memo)
    new = type(module).__new__(type(module))
    memo[id(module)] = new
    # deepcopy keeps the originals alive while their ids are in the memo; here the caller does.
    held = vars(new)
    for name, value in vars(module).items():
        # What `module.compile()` made runs the original; torch's own copies lack it too.
        held[name] = None if name == "_compiled_call_impl" else _copy(value, memo)
    return new


def _is_plain(kind: type) -> bool:
    """Whether objects of this class are copied as nn.Module are."""
    # A convolution's __setstate__ only completes states that old versions of torch saved.
    base = _ConvNd if issubclass(kind, _ConvNd) else nn.Module
    return all(getattr(kind, name, None) is getattr(base, name, None) for name in _SPECIAL)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _ATOM_KINDS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict or kind is OrderedDict:
        memo[id(value)] = new = kind()
        for key, entry in value.items():
            new[key if isinstance(key, _ATOMS) else copy.deepcopy(key, memo)] = _copy(entry, memo)
        return new
    if isinstance(value, nn.Module):
        return copy_module(value, memo)
    if isinstance(value, _ATOMS):
        return value
    if kind in (tuple, list, set) and all(isinstance(entry, _ATOMS) for entry in value):
        memo[id(value)] = new = value if kind is tuple else kind(value)
        return new
    return copy.deepcopy(value, memo)
