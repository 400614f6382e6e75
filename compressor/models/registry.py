"""The table of networks: `@model("name")` adds one, `create("name")` builds one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from typing import TypeVar

from torch import nn

from compressor.errors import InputError

__all__ = ["create", "model", "names"]

Builder = TypeVar("Builder", bound=Callable[..., nn.Module])

_BUILDERS: dict[str, Callable[..., nn.Module]] = {}


def model(name: str) -> Callable[[Builder], Builder]:
    """A decorator that enters a builder of networks under `name` and returns the builder unchanged.

    Raises InputError when the name is taken.

    >>> @model("one_layer")
    ... def one_layer(*, n_classes: int = 10) -> nn.Module:
    ...     return nn.Linear(4, n_classes)
    >>> create("one_layer", n_classes=3)
    Linear(in_features=4, out_features=3, bias=True)
    >>> del _BUILDERS["one_layer"]
    """

    def enter(builder: Builder) -> Builder:
        if name in _BUILDERS:
            raise InputError(f"a model named {name!r} exists already; choose another name")
        _BUILDERS[name] = builder
        return builder

    return enter


def names() -> tuple[str, ...]:
    """The names that `create` knows, in alphabetical order.

    >>> "resnet56_cifar" in names()
    True
    """
    return tuple(sorted(_BUILDERS))


def create(name: str, **options: object) -> nn.Module:
    """A freshly initialised network in training mode.

    `options` are those of the network's builder. Raises InputError for an unknown name or option.

    >>> net = create("resnet20_cifar", n_classes=100)
    >>> net.linear
    Linear(in_features=64, out_features=100, bias=True)
    """
    if name not in _BUILDERS:
        raise InputError(f"no model named {name!r}; {_suggestion(name)}")
    builder = _BUILDERS[name]
    known = inspect.signature(builder).parameters
    for option in options:
        if option not in known:
            raise InputError(f"model {name!r} has no option {option!r}; it has {', '.join(known)}")
    return builder(**options)


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(str(name), names(), n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known are {', '.join(names())}"
