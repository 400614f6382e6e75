"""Example inputs as an exporter sees them: a name for each tensor, and inputs of a second shape."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.errors import InputError

__all__ = ["Axes", "Example", "bind"]

# Axes of every input, with names for them or without; or by the name of the input.
Axes = Sequence[int] | Mapping[int, str] | Mapping[str, Sequence[int] | Mapping[int, str]]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Example:
    """The arguments of one call, by parameter of `forward`, and the tensors in them by name."""

    arguments: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    signature: inspect.Signature

    @property
    def call(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments, in the order of the signature."""
        bound = inspect.BoundArguments(self.signature, dict(self.arguments))
        return bound.args, bound.kwargs

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every tensor, by name."""
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def mapped(self, function: Callable[[str, Tensor], Any]) -> dict[str, Any]:
        """The arguments with every tensor replaced by `function(name, tensor)`."""
        names = iter(self.tensors)
        mapped: dict[str, Any] = _pytree.tree_map(
            lambda leaf: function(next(names), leaf) if isinstance(leaf, Tensor) else None,
            dict(self.arguments),
        )
        return mapped

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Example:
        """The same call with other tensors of these names."""
        names = iter(self.tensors)
        arguments = _pytree.tree_map_only(Tensor, lambda _: tensors[next(names)], dict(self.arguments))
        return replace(self, arguments=arguments, tensors=dict(tensors))

    def reshaped(self, shapes: Mapping[str, Shape], *, seed: int = 0) -> Example:
        """A call whose tensors have other shapes and values, of the kind the example has."""
        generator = torch.Generator().manual_seed(seed)
        return self.with_tensors(
            {name: _resampled(tensor, shapes[name], generator) for name, tensor in self.tensors.items()}
        )

    def axes(self, wanted: Axes) -> dict[str, tuple[int, ...]]:
        """For each tensor which of its axes are `wanted`; raises InputError for axes it has not."""
        _check_axes(wanted)
        by_input = _by_input(wanted)
        if by_input is not None:
            return self._axes_by_input(by_input)
        each = cast("Sequence[int] | Mapping[int, str]", wanted)
        most = max(tensor.dim() for tensor in self.tensors.values())
        for axis in each:
            if not isinstance(axis, int) or not 0 <= axis < most:
                raise InputError(f"dynamic axis {axis}: no input has it; the inputs are {self.shapes}")
        return {
            name: tuple(axis for axis in each if axis < tensor.dim()) for name, tensor in self.tensors.items()
        }

    def axis_names(self, wanted: Axes) -> dict[str, dict[int, str]]:
        """The names that `wanted` gives to axes, by tensor; InputError for a name that is no word."""
        by_input = _by_input(wanted)
        if by_input is None:
            each = cast("Sequence[int] | Mapping[int, str]", wanted)
            by_input = dict.fromkeys(self.tensors, each)
        found: dict[str, dict[int, str]] = {}
        for name, axes in by_input.items():
            named: dict[int, str] = dict(axes) if isinstance(axes, Mapping) else {}
            for axis, word in named.items():
                if not isinstance(word, str) or not word.isidentifier():
                    raise InputError(f"dynamic axis {axis} of {name!r} is named {word!r}: a word is expected")
            found[name] = named
        return found

    def _axes_by_input(
        self, wanted: Mapping[str, Sequence[int] | Mapping[int, str]]
    ) -> dict[str, tuple[int, ...]]:
        for name, axes in wanted.items():
            if name not in self.tensors:
                raise InputError(f"dynamic names the input {name!r}; the inputs are {self.shapes}")
            for axis in axes:
                if not 0 <= axis < self.tensors[name].dim():
                    raise InputError(f"dynamic axis {axis} of {name!r}: its shape is {self.shapes[name]}")
        return {name: tuple(wanted.get(name, ())) for name in self.tensors}


def _check_axes(wanted: object) -> None:
    parts = wanted.values() if isinstance(wanted, Mapping) else [wanted]
    named = isinstance(wanted, Mapping) and any(isinstance(key, int) for key in wanted)
    for axes in () if named else parts:
        whole = isinstance(axes, Sequence | Mapping) and all(type(axis) is int for axis in axes)
        if not whole or isinstance(axes, str):
            raise InputError(
                f"dynamic = {wanted!r}: axes are expected, (0, 2), with names for them, {{0: 'batch'}}, or "
                "by the name of the input, {'x': (0, 2)}"
            )


def _by_input(wanted: Axes) -> Mapping[str, Sequence[int] | Mapping[int, str]] | None:
    """What is wanted by the names of inputs; None where it is the same for all."""
    if isinstance(wanted, Mapping) and all(isinstance(key, str) for key in wanted):
        return cast("Mapping[str, Sequence[int] | Mapping[int, str]]", wanted)
    return None


def bind(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Example:
    """The call `model(*args, **kwargs)`, on the CPU; raises InputError if forward refuses it."""
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InputError(
            f"the example does not fit {type(model).__name__}.forward{signature}: {error}"
        ) from error
    arguments: dict[str, Any] = _pytree.tree_map_only(
        Tensor, lambda tensor: tensor.detach().cpu(), dict(bound.arguments)
    )
    tensors = dict(_named(arguments))
    if not tensors:
        raise InputError(
            f"the inputs given to {type(model).__name__} hold no tensor; give an example of each input"
        )
    return Example(arguments, tensors, signature)


def _named(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Tensors by the path to them: `x`, or `state_0` for the first item of `state`."""
    for path, leaf in _pytree.tree_flatten_with_path(dict(arguments))[0]:
        if isinstance(leaf, Tensor):
            parts = (str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path)
            yield "_".join(parts), leaf


def _resampled(tensor: Tensor, shape: Shape, generator: torch.Generator) -> Tensor:
    """The example's values in another shape; real numbers get noise, so that rows differ.

    Whole numbers may be indices and are only repeated. A constant example tells channels apart no
    better than none and gives way to noise.
    """
    for axis, size in enumerate(shape):
        tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
    if not tensor.is_floating_point():
        return tensor
    if bool((tensor == tensor.flatten()[0]).all()):
        return torch.randn(shape, generator=generator).to(tensor.dtype)
    return tensor * (0.5 + torch.rand(shape, generator=generator)).to(tensor.dtype)
