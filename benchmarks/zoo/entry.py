"""One network of the zoo: how it is built, what it is called with, what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BATCH", "Entry", "Inputs", "one_by_one", "outputs", "taken"]

BATCH = 2


@dataclass(frozen=True)
class Inputs:
    """What a network is called with: a batch of `BATCH` examples along axis 0 of every tensor.

    Examples that come as a list (images of a detector) are counted by the list.
    """

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def call(self, model: nn.Module) -> Any:
        """What `model` returns for these inputs; where it draws numbers, always the same."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return model(*self.args, **self.kwargs)

    def double(self) -> Inputs:
        """The same in float64; integers stay."""
        return Inputs(_mapped(self.args, _double), _mapped(dict(self.kwargs), _double))


@dataclass(frozen=True)
class Entry:
    """A network of one `family`; `build(seed)` gives it in eval mode, with its inputs."""

    source: str
    family: str
    name: str
    build: Callable[[int], tuple[nn.Module, Inputs]]

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others of its source."""
        return self.family, self.name


def taken(inputs: Inputs, examples: Sequence[int]) -> Inputs:
    """The inputs with these examples of the batch, in this order, some perhaps twice."""

    def pick(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.shape[0] == BATCH:
            return leaf[list(examples)]
        return leaf

    def of(value: Any) -> Any:
        if isinstance(value, list) and len(value) == BATCH and isinstance(value[0], Tensor):
            return [value[i] for i in examples]
        return _mapped(value, pick, of)

    return Inputs(
        tuple(of(value) for value in inputs.args),
        {name: of(value) for name, value in inputs.kwargs.items()},
    )


def one_by_one(model: nn.Module, inputs: Inputs, examples: Sequence[int]) -> list[Tensor] | None:
    """The outputs of single examples, joined; None where they do not join along axis 0."""
    single = [outputs(taken(inputs, [i]).call(model)) for i in examples]
    if len({len(found) for found in single}) > 1:
        return None
    joined = []
    for leaves in zip(*single, strict=True):
        if any(leaf.dim() == 0 or leaf.shape[0] != 1 for leaf in leaves):
            return None
        if len({leaf.shape for leaf in leaves}) > 1:
            return None
        joined.append(torch.cat(leaves))
    return joined


def outputs(result: Any) -> list[Tensor]:
    """All floating-point tensors of what a network returned, however they are packed."""
    if isinstance(result, Tensor):
        return [result] if result.is_floating_point() or result.is_complex() else []
    if isinstance(result, Mapping):
        return [leaf for value in result.values() for leaf in outputs(value)]
    if isinstance(result, list | tuple | set):
        return [leaf for value in result for leaf in outputs(value)]
    if is_dataclass(result) and not isinstance(result, type):
        return [leaf for part in fields(result) for leaf in outputs(getattr(result, part.name))]
    return []


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def _mapped(value: Any, leaf: Callable[[Any], Any], inner: Callable[[Any], Any] | None = None) -> Any:
    again = inner or (lambda item: _mapped(item, leaf))
    if isinstance(value, dict):
        return {key: again(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(again(item) for item in value)
    return leaf(value)
