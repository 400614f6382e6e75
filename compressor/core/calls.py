"""Which call of a forward an operator came from: module, function, how many-th, with what arguments.

A function mode above autograd sees calls as they are written (`x.reshape(b, n, 64)`), where the
dispatch mode of `tape` sees what they fall apart into. Calls are counted within one run of one
module's own forward, and that is how they are found again when the model runs without a recorder.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

__all__ = ["VIEWS", "Call", "Calls", "Held", "function_name", "has_hooks", "is_operator"]

# Functions that give the values of a tensor another shape, one size of which may be -1.
VIEWS = ("torch.Tensor.reshape", "torch.Tensor.view", "torch.reshape")
_CALL_IMPL = nn.Module._call_impl.__code__
_NAMES: dict[Any, str] = {}
_METHODS = {
    "add": Tensor.add,
    "sub": Tensor.sub,
    "mul": Tensor.mul,
    "truediv": Tensor.div,
    "floordiv": Tensor.__floordiv__,
    "mod": Tensor.remainder,
    "pow": Tensor.__pow__,
    "iadd": Tensor.add_,
    "isub": Tensor.sub_,
    "imul": Tensor.mul_,
    "itruediv": Tensor.div_,
    "getitem": Tensor.__getitem__,
}


@dataclass(frozen=True, slots=True)
class Held:
    """Stands for a tensor among a call's arguments."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a torch function: the `ordinal`-th (from 0) of that name in this run of the module.

    `args` start with the tensor itself where `function` is a method.
    """

    module: str
    function: str
    ordinal: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def argument(self, path: str) -> Any:
        """What is at a path such as "2", "1.0", "size.1" or "1.1.stop"; None where nothing is.

        >>> Call("", "f", 0, (Held((2, 3)), slice(None, 4)), {"size": (5, 6)}).argument("size.1")
        6
        """
        head, *rest = path.split(".")
        found: Any = self.kwargs.get(head)
        if head.isdigit():
            found = self.args[int(head)] if int(head) < len(self.args) else None
        for step in rest:
            found = found[int(step)] if step.isdigit() else getattr(found, step)
        return found

    def __str__(self) -> str:
        return f"call {self.ordinal + 1} of {self.function} in {self.module or 'the model itself'}"


def function_name(function: Callable[..., Any]) -> str:
    """A name for a function that is overridable, the same in every process.

    >>> import torch
    >>> function_name(torch.Tensor.reshape)
    'torch.Tensor.reshape'
    """
    name = _NAMES.get(function)
    if name is None:
        # While torch.compile traces, an operator may come as itself instead of as the tensor's method.
        method = _METHODS.get(function.__name__) if is_operator(function) else None
        name = resolve_name(method or function)
        if name is None:
            name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
        _NAMES[function] = name
    return name


def is_operator(function: Callable[..., Any]) -> bool:
    """Whether it is one of the functions in Python's `operator`."""
    return getattr(function, "__module__", None) == "_operator"


# What `torch.compiler.assume_constant_result` does, without the second that importing it takes.
function_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Whether any module runs functions of the user's around its forward."""
    return any(m._forward_hooks or m._forward_pre_hooks for m in modules)


@dataclass(slots=True)
class _Running:
    """A module that is running, and how often its forward called each function; None: no module of ours."""

    path: str | None
    module: nn.Module | None
    counts: dict[str, int] = field(default_factory=dict)


class Calls(TorchFunctionMode):
    """Beside a recorder: knows the call that is under way.

    The recorder says which modules run. Calls made by hooks, and by modules that the model does not
    own, have no place in any forward: there is no call then. With `hooked` such calls are looked for.
    """

    def __init__(self, *, hooked: bool) -> None:
        super().__init__()
        self._stack = [_Running(None, None)]
        self._hooked = hooked
        self._raw: tuple[str, str, int, tuple[Any, ...], Mapping[str, Any]] | None = None
        self._call: Call | None = None

    def enter(self, module: nn.Module, path: str | None) -> None:
        """A module begins to run; `path` is None where the model does not own it."""
        self._stack.append(_Running(path, module))

    def leave(self) -> None:
        """The module entered last has run."""
        if len(self._stack) > 1:
            self._stack.pop()

    @property
    def current(self) -> Call | None:
        """The outermost call that is under way."""
        if self._call is None and self._raw is not None:
            module, function, ordinal, args, kwargs = self._raw
            held = {key: _held(value) for key, value in kwargs.items()} if kwargs else {}
            self._call = Call(module, function, ordinal, tuple([_held(arg) for arg in args]), held)
        return self._call

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        running = self._stack[-1]
        if running.path is None or (self._hooked and not _is_in_forward(running.module)):
            return func(*args, **kwargs)
        name = _NAMES.get(func) or function_name(func)
        ordinal = running.counts.get(name, 0)
        running.counts[name] = ordinal + 1
        before = self._raw, self._call
        self._raw, self._call = (running.path, name, ordinal, args, kwargs), None
        try:
            return func(*args, **kwargs)
        finally:
            self._raw, self._call = before


def _held(item: Any) -> Any:
    if isinstance(item, Tensor):
        return Held(tuple(item.shape))
    if isinstance(item, (list, tuple)):
        return tuple([_held(entry) for entry in item])
    return item


def _is_in_forward(module: nn.Module | None) -> bool:
    """Whether the nearest module on the stack is this one, and its forward runs rather than a hook."""
    below: FrameType | None = None
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code is not _CALL_IMPL:
        # Where a module has hooks, torch runs it in a function within `_call_impl`.
        if frame.f_code.co_name != "inner" or frame.f_code.co_filename != _CALL_IMPL.co_filename:
            below = frame
        frame = frame.f_back
    if frame is None or below is None or frame.f_locals.get("self") is not module:
        return False
    forward = getattr(getattr(module, "forward", None), "__func__", None)
    return forward is None or getattr(forward, "__code__", below.f_code) is below.f_code
