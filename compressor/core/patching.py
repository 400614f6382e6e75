"""Numbers that a forward holds, changed where they are used: in the call.

The module stays what the user wrote. Its class becomes a subclass of the same name whose forward
runs the original one under a function mode, which gives the patched calls other arguments.
"""

from __future__ import annotations

import copyreg
import logging
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import wraps
from typing import Any, cast

from torch import nn

from compressor.core.patch_mode import run_patched
from compressor.core.plan import Patch, compose
from compressor.errors import ModelError, PlanMismatchError

__all__ = ["Patched", "check_patches", "patch", "patched", "patches_of", "unpatched_class"]

log = logging.getLogger(__name__)

# An attribute of the module, so that every copy of the module has it.
_ATTRIBUTE = "call_patches"


def patches_of(module: nn.Module) -> tuple[Patch, ...]:
    """The patches of one module's forward."""
    found: tuple[Patch, ...] = vars(module).get(_ATTRIBUTE, ())
    return found


def patch(model: nn.Module, patches: Sequence[Patch]) -> None:
    """Patch the forwards of `model` in place, on top of what is patched already; see `check_patches`."""
    if not patches:
        return
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
    if not patches:
        yield
        return
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
            module.__dict__.pop(_ATTRIBUTE, None)
            if old:
                module.__dict__[_ATTRIBUTE] = old


def _by_module(patches: Sequence[Patch]) -> dict[str, tuple[Patch, ...]]:
    result: dict[str, tuple[Patch, ...]] = {}
    for item in patches:
        result[item.module] = (*result.get(item.module, ()), item)
    return result


def _set(module: nn.Module, patches: tuple[Patch, ...]) -> None:
    if not isinstance(module, Patched):
        module.__class__ = _patched_class(type(module))
    module.__dict__[_ATTRIBUTE] = patches


# -- classes -------------------------------------------------------------------------------------


class Patched(nn.Module):
    """What every patched module is besides its own class."""

    call_patches: tuple[Patch, ...]


def unpatched_class(module: nn.Module) -> type[nn.Module]:
    """The class that the user wrote."""
    kind = type(module)
    return kind.__mro__[2] if issubclass(kind, Patched) else kind


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _patched_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The one subclass of `kind` that runs it patched."""
    if kind not in _CLASSES:
        names = {
            "__module__": kind.__module__,
            "__qualname__": kind.__qualname__,
            "__doc__": kind.__doc__,
            "forward": _forward_of(kind),
        }
        _CLASSES[kind] = new = types.new_class(
            kind.__name__, (Patched, kind), {}, lambda own: own.update(names)
        )
        # Pickle would look for the class where there is none. A method of its own would do as well, but
        # copies of modules are fast only where a class has none.
        copyreg.pickle(new, _reduced)
    return _CLASSES[kind]


def _forward_of(kind: type[nn.Module]) -> Callable[..., Any]:
    """The class's forward with the arguments of its calls patched, and with its signature."""

    @wraps(kind.forward)
    def forward(self: Patched, *args: Any, **kwargs: Any) -> Any:
        return run_patched(kind.forward, self, self.call_patches, args, kwargs)

    return forward


def _reduced(module: nn.Module) -> tuple[Any, ...]:
    """How a patched module is pickled and copied: as its own class would be, then patched again."""
    kind = unpatched_class(module)
    function, args, *rest = cast(tuple[Any, ...], kind.__reduce_ex__(module, 4))
    if function is getattr(copyreg, "__newobj__") and args[0] is type(module):  # noqa: B009 - untyped
        return (_new, (kind, *args[1:]), *rest)
    return _again, (function, args, patches_of(module)), *rest


def _new(kind: type[nn.Module], *args: Any) -> nn.Module:
    new = _patched_class(kind)
    return new.__new__(new, *args)


def _again(make: Callable[..., nn.Module], args: tuple[Any, ...], patches: tuple[Patch, ...]) -> nn.Module:
    module = make(*args)
    _set(module, patches)
    return module
