"""Which groups a name pattern, a module class or a module speaks of: those it writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import accumulate

import numpy as np
from torch import Tensor, nn

from compressor.core.graph import Graph
from compressor.errors import BudgetError

__all__ = ["Layers", "Target"]

Target = str | type[nn.Module] | nn.Module


class Layers:
    """The layers of a graph by name, class and identity.

    A pattern matches a tensor by its name ("layer1.0.conv1.weight") or by the path of any module
    that holds it ("layer1.0.conv1", "layer1"); `*` and `?` also match dots. A group belongs to
    every layer that writes any of its channels.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._model = graph.model
        self._writers = _writers_of(graph)

    @cached_property
    def _names(self) -> Mapping[str, set[str]]:
        return _names_of(self._graph)

    @cached_property
    def _canonical(self) -> dict[int, str]:
        return {id(tensor): name for name, tensor in _tensors(self._model)}

    def groups_of(self, option: str, target: Target) -> list[int]:
        """The groups that `target` writes; raises BudgetError where it matches nothing."""
        if isinstance(target, str):
            tensors = self._by_pattern(option, target)
        elif isinstance(target, nn.Module):
            tensors = self._by_module(option, type(target).__name__, [target])
        elif isinstance(target, type) and issubclass(target, nn.Module):
            tensors = self._by_class(option, target)
        else:
            raise BudgetError(
                f"{option} takes name patterns, module classes and modules, got {target!r} "
                f"({type(target).__name__})"
            )
        return [i for i, writers in enumerate(self._writers) if not writers.isdisjoint(tensors)]

    def writers(self, position: int) -> list[str]:
        """The tensors that write the channels of a group, by name."""
        return sorted(self._writers[position])

    def _by_pattern(self, option: str, pattern: str) -> set[str]:
        found = {
            tensor
            for tensor, places in self._names.items()
            if any(fnmatchcase(place, pattern) for place in places)
        }
        if not found:
            raise BudgetError(
                f"{option}: {pattern!r} matches no layer or tensor of the model; {self._close_to(pattern)}"
            )
        return found

    def _by_class(self, option: str, kind: type[nn.Module]) -> set[str]:
        modules = [module for module in self._model.modules() if isinstance(module, kind)]
        if not modules:
            present = ", ".join(sorted({type(module).__name__ for module in self._model.modules()}))
            raise BudgetError(f"{option}: the model has no {kind.__name__}; it has {present}")
        return self._by_module(option, kind.__name__, modules)

    def _by_module(self, option: str, name: str, modules: Iterable[nn.Module]) -> set[str]:
        tensors = [tensor for module in modules for _, tensor in _tensors(module)]
        if not tensors:
            raise BudgetError(
                f"{option}: {name} has no parameters, so it writes no channels that could be left alone"
            )
        if any(id(tensor) not in self._canonical for tensor in tensors):
            raise BudgetError(
                f"{option}: this {name} is no part of the captured model (of a copy of it?); give its name "
                "instead"
            )
        return {self._canonical[id(tensor)] for tensor in tensors}

    def _close_to(self, pattern: str) -> str:
        known = sorted({place for places in self._names.values() for place in places})
        close = difflib.get_close_matches(pattern, known, n=3, cutoff=0.5)
        if close:
            return f"did you mean {' or '.join(map(repr, close))}?"
        return f"its names look like {', '.join(map(repr, known[:3]))}"


def _tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _names_of(graph: Graph) -> Mapping[str, set[str]]:
    """For each tensor its names and the paths of all modules that hold it."""
    canonical = {id(tensor): name for name, tensor in _tensors(graph.model)}
    names: dict[str, set[str]] = {name: set(_places(name)) for name, _ in graph.signature.tensors}
    for listing in (graph.model.named_parameters, graph.model.named_buffers):
        for alias, tensor in listing(remove_duplicate=False):
            names.setdefault(canonical[id(tensor)], set()).update(_places(alias))
    return names


def _places(name: str) -> Iterable[str]:
    """A name and its ancestors: "a", "a.b", "a.b.weight"."""
    return accumulate(name.split("."), lambda path, part: f"{path}.{part}")


def _writers_of(graph: Graph) -> list[set[str]]:
    writers: list[set[str]] = [{group.name} for group in graph.groups]
    groups: dict[int, list[int]] = {}  # of each array of units, which axes share
    for axis in graph.axes:
        if axis.role == "writer":
            if id(axis.units) not in groups:
                groups[id(axis.units)] = np.unique(graph.group_of[axis.sites()[1]]).tolist()
            for position in groups[id(axis.units)]:
                writers[position].add(axis.tensor)
    return writers
