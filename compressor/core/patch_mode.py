"""Running one forward with other arguments in some of its calls, eagerly or while torch.compile traces it.

Whether a call is the forward's own, or one of a submodule within it, is looked up on the stack: hooks
on the submodules would be seen by the user, and by other threads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from types import CodeType, FrameType
from typing import Any

import torch
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from compressor.core.aside import positions_like
from compressor.core.calls import VIEWS, function_name, is_operator
from compressor.core.plan import Patch, PatchValue
from compressor.errors import ModelError

__all__ = ["run_patched"]

_CALL_IMPL = nn.Module._call_impl.__code__
# Functions in these call others, which torch.compile shows where an ordinary run shows the first alone.
_COMPOSED = (torch.nn.functional.__file__, torch.functional.__file__, torch._tensor.__file__)
_CHECKPOINT = torch.utils.checkpoint.__file__
Forward = Callable[..., Any]


def run_patched(
    forward: Forward, module: nn.Module, patches: tuple[Patch, ...], args: Any, kwargs: Mapping[str, Any]
) -> Any:
    """What `forward(module, *args, **kwargs)` returns with its calls patched."""
    # Asked here and nowhere else: where torch.compile cannot follow what is below, it leaves this very
    # function to Python, and the answer is another.
    if not torch.compiler.is_dynamo_compiling():
        run = _apart() if "torch._dynamo" in sys.modules else _eagerly
        return run(forward, module, patches, args, kwargs)
    if not _are_shown([p.function for p in patches]):
        raise RuntimeError(_NOT_SHOWN)
    with _Patching(patches) as mode:
        result = forward(module, *args, **kwargs)
    if mode.missed():
        raise RuntimeError(_NOT_SHOWN)
    return result


_NOT_SHOWN = "torch.compile does not show every call that is to be patched; leave out fullgraph=True"


def _eagerly(
    forward: Forward, module: nn.Module, patches: tuple[Patch, ...], args: Any, kwargs: Mapping[str, Any]
) -> Any:
    with _Patching(patches):
        return forward(module, *args, **kwargs)


@cache
def _apart() -> Callable[..., Any]:
    # Where torch.compile has given up on the forward as a whole, it would try its parts one by one, and
    # keep the arguments that it saw for another run of the same code.
    disabled: Callable[..., Any] = torch.compiler.disable(_eagerly)
    return disabled


class _Patching(TorchFunctionMode):
    """Changes arguments while one forward runs, once."""

    def __init__(self, patches: tuple[Patch, ...]) -> None:
        super().__init__()
        # Written so that torch.compile can follow: no cache, no generators.
        self._edits = [(p.function, p.call, p.argument.split("."), p.new) for p in patches]
        self._counts = {p.function: 0 for p in patches}

    def __enter__(self) -> _Patching:
        # A method of its own keeps torch.compile from resuming in the middle of a patched forward, where
        # the stack would no longer tell whose call it is.
        super().__enter__()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        if name in self._counts:
            tracing = torch.compiler.is_dynamo_compiling()
            if tracing and is_operator(func) and not isinstance(args[0], Tensor):
                raise RuntimeError(_NOT_SHOWN)  # `2 / x` is another method, with its arguments turned round
            if _is_own_in_trace() if tracing else _is_own():
                number = self._counts[name]
                self._counts[name] = number + 1
                edits = [
                    (path, new)
                    for function, call, path, new in self._edits
                    if (function, call) == (name, number)
                ]
                if edits and not tracing:
                    _refuse_recomputation(name)
                if edits and not (name in VIEWS and _is_another(args, kwargs, edits)):
                    for path, new in edits:
                        args, kwargs = _edited(args, kwargs, path, new)
        return func(*args, **kwargs)

    def missed(self) -> bool:
        """Whether a call that is to be patched did not come."""
        reached = [call < self._counts[function] for function, call, _path, _value in self._edits]
        return not all(reached)


# -- whose call it is ----------------------------------------------------------------------------


def _is_own() -> bool:
    """Whether the forward that the asking mode is for calls, rather than a module within it."""
    modes = 0
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not _CALL_IMPL:
        if frame.f_code is _MODE:
            modes += 1
        elif frame.f_code is _EAGERLY:
            # Each patched forward on the stack has a mode, and they ask one after the other, the
            # innermost first. What comes from it is its own and nobody else's.
            return modes == 1
        frame = frame.f_back
    return False


def _refuse_recomputation(function: str) -> None:
    """Raise ModelError where a gradient checkpoint would make the call again, outside of any mode."""
    frame: FrameType | None = sys._getframe(2)
    while torch.is_grad_enabled() and frame is not None and frame.f_code is not _EAGERLY:
        if frame.f_code.co_filename == _CHECKPOINT:
            raise ModelError(
                f"a forward that was patched at {function} checkpoints a part of itself, whose "
                f"second run could not be patched: checkpoint the module as a whole, or switch that off"
            )
        frame = frame.f_back


def _is_own_in_trace() -> bool:
    """As `_is_own`, of the forwards that torch.compile follows: it has no frames, but their like.

    It also leaves out the function that runs a module, hence the look for methods named `forward`.
    """
    from torch._dynamo.symbolic_convert import InstructionTranslator

    modes = 0
    inner: list[Any] = []
    frame: Any = InstructionTranslator.current_tx().output.current_tx
    while frame is not None:
        code: CodeType = frame.f_code
        variable = frame.symbolic_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if code is _MODE:
            modes += 1
        elif code.co_filename in _COMPOSED:
            return False
        elif code is _RUN:
            own = getattr(frame.symbolic_locals["module"].realize(), "value", None)
            return modes == 1 and all(module is own for module in inner)
        elif code.co_name == "forward" and variable is not None:
            inner.append(getattr(variable.realize(), "value", None))
        frame = frame.parent
    raise RuntimeError("a patched call outside of its forward")


def _are_shown(functions: Sequence[str]) -> bool:
    """Whether torch.compile shows calls of these to a mode, rather than what they are made of."""
    from torch._dynamo.trace_rules import lookup
    from torch._dynamo.variables import TorchInGraphFunctionVariable

    for name in functions:
        function: Any = torch
        for part in name.split(".")[1:]:
            function = getattr(function, part, None)
        if not name.startswith("torch.Tensor.") and lookup(function) is not TorchInGraphFunctionVariable:
            return False
    return True


# What `torch.compiler.assume_constant_result` does, without the second that importing it takes.
_are_shown._dynamo_marked_constant = True  # type: ignore[attr-defined]
_is_own_in_trace._dynamo_marked_constant = True  # type: ignore[attr-defined]

_MODE = _Patching.__torch_function__.__code__
_EAGERLY = _eagerly.__code__
_RUN = run_patched.__code__


# -- arguments -----------------------------------------------------------------------------------


def _edited(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], path: Sequence[str], value: PatchValue
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    head, rest = path[0], path[1:]
    if head.isdigit():
        position = int(head)
        if position >= len(args):
            raise ModelError(
                f"a call that was patched at argument {head} has only {len(args)} arguments: the forward "
                f"takes another way than on the captured example (training instead of eval mode?)"
            )
        new = _put(args[position], rest, value)
        return (*args[:position], new, *args[position + 1 :]), kwargs
    return args, {**kwargs, head: _put(kwargs.get(head), rest, value)}


def _is_another(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], edits: Sequence[tuple[Sequence[str], PatchValue]]
) -> bool:
    """Whether a view is not the one that was recorded: it leaves a size to torch and does not fit the edits.

    So it is the call of a forward that takes another way, on which the sizes come out by themselves.
    """
    fits = True
    for path, new in edits:
        # An edit leaves a size to torch only where none was.
        fits = fits and new != -1 and (not path[0].isdigit() or int(path[0]) < len(args))
    sizes: list[Any] = []
    for given in (*args[1:], *kwargs.values()):
        sizes.extend(given if isinstance(given, (list, tuple)) else [given])
    for size in sizes:
        if isinstance(size, int) and size == -1:
            return not fits
    return False


def _put(old: Any, path: Sequence[str], value: PatchValue) -> Any:
    """`old` with something else at the end of the path; in a tensor that is one of its axes."""
    if isinstance(value, tuple) and (old is None or old is Ellipsis or isinstance(old, slice)) and not path:
        raise ModelError(
            f"a call that was patched holds {old!r} where it held a list: the forward takes another way "
            f"than on the captured example (training instead of eval mode?)"
        )
    if isinstance(old, Tensor) and isinstance(value, tuple):
        return positions_like(old, int(path[0]) if path else 0, value)
    if not path:
        if isinstance(value, Fraction):
            return old * value.numerator // value.denominator
        return list(value) if isinstance(value, tuple) else value
    head, rest = path[0], path[1:]
    if isinstance(old, slice):
        start = _put(old.start, rest, value) if head == "start" else old.start
        stop = _put(old.stop, rest, value) if head == "stop" else old.stop
        return slice(start, stop, old.step)
    items = list(old)
    items[int(head)] = _put(items[int(head)], rest, value)
    return items if isinstance(old, list) else tuple(items)
