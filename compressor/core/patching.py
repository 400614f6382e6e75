"""Numbers that a forward holds, changed where they are used: in the call.

The module stays what the user wrote. Its class becomes a subclass of the same name whose forward
runs the original one under a function mode, which gives the patched calls other arguments. Calls
are counted as `calls` counts them, in this module's own forward: what runs in a submodule is not its.
"""

from __future__ import annotations

import copyreg
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import cache, wraps
from types import FrameType
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from compressor.core.calls import function_name
from compressor.core.plan import Patch, PatchValue, compose
from compressor.errors import ModelError, PlanMismatchError

__all__ = ["Patched", "check_patches", "patch", "patched", "patches_of", "unpatched_class"]

log = logging.getLogger(__name__)

# An attribute of the module, so that every copy of the module has it.
_ATTRIBUTE = "call_patches"
_CALL_IMPL = nn.Module._call_impl.__code__


def patches_of(module: nn.Module) -> tuple[Patch, ...]:
    """The patches of one module's forward."""
    found: tuple[Patch, ...] = vars(module).get(_ATTRIBUTE, ())
    return found


def patch(model: nn.Module, patches: Sequence[Patch]) -> None:
    """Patch the forwards of `model` in place, on top of what is patched already; see `check_patches`."""
    modules = dict(model.named_modules())
    check_patches(modules, patches)
    for path, own in _by_module(patches).items():
        _set(modules[path], compose(patches_of(modules[path]), own))
        for item in own:
            log.info("forward of %s: %s", type(modules[path]).__name__, item)


def check_patches(modules: Mapping[str, nn.Module], patches: Sequence[Patch]) -> None:
    """Raise PlanMismatchError where a patch does not fit, ModelError where a forward cannot be patched."""
    for item in patches:
        module = modules.get(item.module)
        if module is None:
            raise PlanMismatchError(f"the plan patches {item}, and the model has no such module")
        if "forward" in vars(module):
            raise ModelError(
                f"{item.module or 'the model'!r} ({type(module).__name__}) has numbers in its forward, which "
                f"was put on the object and not the class, and cannot be patched; make it a method"
            )
        for earlier in patches_of(module):
            if earlier.key == item.key and not _continues(earlier, item):
                raise PlanMismatchError(f"the plan patches {item}, and the model has {earlier.new!r} there")


def _continues(earlier: Patch, later: Patch) -> bool:
    return isinstance(earlier.new, Fraction) or earlier.new == later.old


@contextmanager
def patched(model: nn.Module, patches: Sequence[Patch]) -> Iterator[None]:
    """Within, the forwards of `model` are patched; nothing is left of it afterwards."""
    modules = dict(model.named_modules())
    by_module = _by_module(patches)
    check_patches(modules, patches)
    before = [(modules[path], type(modules[path]), patches_of(modules[path])) for path in by_module]
    try:
        for path, own in by_module.items():
            _set(modules[path], compose(patches_of(modules[path]), own))
        yield
    finally:
        for module, kind, old in before:
            module.__class__ = kind
            vars(module).pop(_ATTRIBUTE, None)
            if old:
                vars(module)[_ATTRIBUTE] = old


def _by_module(patches: Sequence[Patch]) -> dict[str, tuple[Patch, ...]]:
    result: dict[str, tuple[Patch, ...]] = {}
    for item in patches:
        result[item.module] = (*result.get(item.module, ()), item)
    return result


def _set(module: nn.Module, patches: tuple[Patch, ...]) -> None:
    if not isinstance(module, Patched):
        module.__class__ = _patched_class(type(module))
    vars(module)[_ATTRIBUTE] = patches


# -- classes -------------------------------------------------------------------------------------


class Patched(nn.Module):
    """What every patched module is besides its own class."""

    call_patches: tuple[Patch, ...]


def _forward_of(kind: type[nn.Module]) -> Callable[..., Any]:
    """The class's forward with the arguments of its calls patched, and with its signature."""

    @wraps(kind.forward)
    def forward(self: Patched, *args: Any, **kwargs: Any) -> Any:
        with _Patching(self.call_patches) as mode:  # noqa: F841 - looked for on the stack
            return kind.forward(self, *args, **kwargs)

    return forward


_FORWARD = _forward_of(nn.Module).__code__


def unpatched_class(module: nn.Module) -> type[nn.Module]:
    """The class that the user wrote."""
    kind = type(module)
    return kind.__mro__[2] if issubclass(kind, Patched) else kind


@cache
def _patched_class(kind: type[nn.Module]) -> type[nn.Module]:
    names = {
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__doc__": kind.__doc__,
        "forward": _forward_of(kind),
    }
    new = type(kind)(kind.__name__, (Patched, kind), names)
    # The class has no place where pickle would look for it. A method of its own would do as well, but
    # copies of modules are fast only where a class has none.
    copyreg.pickle(new, _reduced)  # type: ignore[arg-type] # a reduction may also have a state
    return new


def _reduced(module: nn.Module) -> tuple[Any, ...]:
    kind = unpatched_class(module)
    function, args, *rest = kind.__reduce_ex__(module, 4)
    if function is getattr(copyreg, "__newobj__") and args[0] is type(module):  # noqa: B009 - untyped
        return (_new, (kind, *args[1:]), *rest)
    return _again, (function, args, patches_of(module)), *rest


def _new(kind: type[nn.Module], *args: Any) -> nn.Module:
    new = _patched_class(kind)
    return new.__new__(new, *args)


def _again(function: Callable[..., nn.Module], args: tuple[Any, ...], patches: tuple[Patch, ...]) -> nn.Module:
    module = function(*args)
    _set(module, patches)
    return module


# -- running -------------------------------------------------------------------------------------

# For each function its patched calls, and for each of those the paths and what is to be there.
_Edits = Mapping[str, Mapping[int, Sequence[tuple[tuple[int | str, ...], PatchValue]]]]


@cache
def _edits(patches: tuple[Patch, ...]) -> _Edits:
    result: dict[str, dict[int, list[tuple[tuple[int | str, ...], PatchValue]]]] = {}
    for item in patches:
        path = tuple(int(step) if step.isdigit() else step for step in item.argument.split("."))
        result.setdefault(item.function, {}).setdefault(item.call, []).append((path, item.new))
    return result


class _Patching(TorchFunctionMode):
    """Changes arguments while one forward runs, once."""

    def __init__(self, patches: tuple[Patch, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        self._edits = _edits(patches)
        self._counts = dict.fromkeys(self._edits, 0)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name in self._counts and self._is_own():
            number = self._counts[name]
            self._counts[name] = number + 1
            for path, value in self._edits[name].get(number, ()):
                args, kwargs = _edited(args, kwargs, path, value)
        return func(*args, **kwargs)

    def _is_own(self) -> bool:
        """Whether the patched forward itself calls, not a module within it.

        Looked up on the stack: hooks would be seen by the user, and by every thread.
        """
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame.f_code is _CALL_IMPL:
                return False
            if frame.f_code is _FORWARD:
                return frame.f_locals.get("mode") is self
            frame = frame.f_back
        return False


def _edited(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], path: tuple[int | str, ...], value: PatchValue
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    head, rest = path[0], path[1:]
    if isinstance(head, int):
        return (*args[:head], _put(args[head], rest, value), *args[head + 1 :]), kwargs
    return args, {**kwargs, head: _put(kwargs.get(head), rest, value)}


def _put(old: Any, path: tuple[int | str, ...], value: PatchValue) -> Any:
    """`old` with something else at the end of the path."""
    if not path:
        if isinstance(value, Fraction):
            return old * value.numerator // value.denominator
        return list(value) if isinstance(value, tuple) else value
    head, rest = path[0], path[1:]
    if isinstance(old, slice):
        parts = {"start": old.start, "stop": old.stop, "step": old.step}
        parts[str(head)] = _put(parts[str(head)], rest, value)
        return slice(parts["start"], parts["stop"], parts["step"])
    items = list(old)
    items[int(head)] = _put(items[int(head)], rest, value)
    return items if isinstance(old, list) else tuple(items)
