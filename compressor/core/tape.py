"""Recording one forward pass as a flat list of tensor operators.

The only file that knows how a model is captured: a dispatch mode below autograd sees every operator
after composite ones fell apart, so whatever runs can be recorded. No activation is kept. The model
is the same afterwards, also when its forward fails.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from threading import get_ident
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.core.alone import alone
from compressor.core.aside import Following
from compressor.core.calls import Call, Calls, has_hooks
from compressor.core.nested import output_tensors, outside_of_torch, with_tensors
from compressor.core.recurrent import RECURRENT, cells_of
from compressor.core.restoring import Contents, Held, undisturbed
from compressor.errors import CaptureError

__all__ = [
    "RECURRENT_WEIGHTS",
    "Op",
    "Ref",
    "Tape",
    "TensorMeta",
    "conditions",
    "named_tensors",
    "output_tensors",
    "plain_kernels",
    "record",
    "references",
    "undisturbed",
    "without_use",
]


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a tensor in an operator's arguments: position in `Tape.values`."""

    value: int


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """What is remembered of a tensor. `name` is its canonical parameter or buffer name, or ""."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    name: str = ""
    is_constant: bool = False
    strides: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Op:
    """One operator call. `mutated` pairs the value an in-place operator took with the one it left.

    `is_listed` is true where it returns a list, `scalar` is a plain number that it returned. `is_loose`
    marks a stack or unbind whose pieces nothing sees side by side, see `core.pieces`. `call` is the call
    in the forward that it is part of; None where a hook made it, say.
    """

    index: int
    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[int | None, ...]
    module: str
    is_view: bool
    is_pointwise: bool
    mutated: tuple[tuple[int, int], ...]
    indices: Mapping[int, npt.NDArray[Any]]
    is_listed: bool = False
    scalar: Any = None
    is_loose: bool = False
    call: Call | None = None

    @property
    def shares_memory(self) -> bool:
        """Whether what it returns lies in the memory of its first argument, also where no schema says so."""
        return self.is_view or self.target in _UNSAID_VIEWS


@dataclass(frozen=True)
class Tape:
    """The recording of one forward pass, in execution order."""

    ops: tuple[Op, ...]
    values: tuple[TensorMeta, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module_types: Mapping[str, str]
    training: bool = False
    by_name: Mapping[str, int] = field(default_factory=dict)


_UNSAID_VIEWS = frozenset(
    f"aten.{name}"
    for name in ("_unsafe_view.default", "unsafe_split.Tensor", "unsafe_split_with_sizes.default")
)
# Integer tensors are kept only where they say *which* channels an operator touches.
_INDEXED = frozenset(
    (
        "aten.index.Tensor",
        "aten.index_select.default",
        "aten.gather.default",
        "aten.index_put_.default",
        "aten.index_add_.default",
        "aten.index_copy_.default",
        "aten.embedding.default",
        "aten.index_put.default",
        "aten.index_add.default",
        "aten.index_copy.default",
        "aten.repeat_interleave.Tensor",
        "aten.scatter.src",
        "aten.scatter.value",
    )
)
# What most arguments are.
_NUMBERS = frozenset((int, float, bool, type(None)))
# A single number that Python made a tensor of: it may have been computed from a size.
_LITERAL = "aten.lift_fresh.default"
_INDEX_LIMIT = 1 << 20
# Written down where a recurrent layer starts: its weights [layer and direction][which], and the gates.
RECURRENT_WEIGHTS = "compressor.recurrent_weights.default"


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every distinct parameter and buffer by its canonical (first) name."""
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    seen: set[int] = set()
    for path, module in model.named_modules():
        lead = f"{path}." if path else ""
        for named, own in ((parameters, module._parameters), (buffers, module._buffers)):
            for key, tensor in own.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    named[lead + key] = tensor
    return {**parameters, **buffers}


def record(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    training: bool = False,
    before: Held | None = None,
) -> Tape:
    """The tape of `model(*args, **kwargs)`, run without gradients and in eval (or training) mode.

    `before` is what the model holds, where that was taken down. Raises CaptureError where it returns
    anything whose channels could not be seen to be outputs.
    """
    recorder = _Recorder(model)
    with conditions(model, training=training, before=before) as contents:
        recorder.contents = contents
        result = _run(recorder, model, args, kwargs)
    outputs = tuple(recorder.find(leaf) for leaf in output_tensors(result))
    strange = outside_of_torch(result)
    if strange or not outputs:
        kind = type(strange[0] if strange else result).__name__
        raise CaptureError(
            f"{type(model).__name__} returns {'no tensor but ' if not outputs else ''}a {kind}: what it "
            f"returns must not be pruned, and can only be followed in tensors. Return tensors (in "
            f"tuples, lists, dicts or objects), or capture the part of the model that does"
        )
    return recorder.tape(outputs, training=training)


def _run(recorder: _Recorder, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    # A forward that writes into its inputs must not reach the user's.
    args, kwargs = with_tensors(torch.clone, (args, kwargs))
    for leaf in output_tensors((args, kwargs)):
        recorder.remember(leaf)
    recorder.inputs = tuple(recorder.find(leaf) for leaf in output_tensors((args, kwargs)))
    with recorder.following_modules(), recorder.calls, recorder:
        return model(*args, **kwargs)


@contextmanager
def conditions(model: nn.Module, *, training: bool, before: Held | None = None) -> Iterator[Contents]:
    """What a recording runs under: no gradients, plain kernels, and a model that is the same at the end.

    That is, as it is now, or as it was when `before` was taken down.
    """
    with alone():
        held = Held(model) if before is None else before
        is_recurrent = any(isinstance(module, nn.RNNBase) for module in held.modules)
        with (
            held.running(training=training) as contents,
            torch.no_grad(),
            plain_kernels(is_recurrent=is_recurrent),
            _casting_anew(),
        ):
            yield contents


@contextmanager
def plain_kernels(*, is_recurrent: bool) -> Iterator[None]:
    """Switch off fused kernels that hide operators, so that they fall apart into known ones."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
        if is_recurrent:
            # Not `mkldnn.flags`, which also switches what only other devices have, and warns of it.
            stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


@contextmanager
def _casting_anew() -> Iterator[None]:
    """Autocast keeps the weights it has cast; one that it takes from there would not be recognised."""
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@dataclass(frozen=True, slots=True)
class _Schema:
    """What an operator's schema says once and for all."""

    name: str
    is_view: bool
    is_pointwise: bool
    mutates: tuple[int | str, ...]


@cache
def _schema(target: Any) -> _Schema:
    schema = target._schema
    mutates: list[int | str] = []
    aliased = False
    for position, argument in enumerate(schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.is_write:
            mutates.append(argument.name if argument.kwarg_only else position)
        elif alias is not None:
            aliased = True
    view = aliased and not mutates and any(r.alias_info is not None for r in schema.returns)
    if torch.Tag.inplace_view in target.tags:
        # The tensor is looked at in another way from now on (`transpose_`); nothing is written.
        view, mutates = True, []
    return _Schema(str(target), view, torch.Tag.pointwise in target.tags, tuple(mutates))


class _Recorder(Following):
    """Writes operators down while they run, naming tensors by identity."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.ops: list[Op] = []
        self.values: list[TensorMeta] = []
        self.by_name: dict[str, int] = {}
        self._known: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self._named = {id(tensor): name for name, tensor in named_tensors(model).items()}
        modules = list(model.named_modules())
        self._types = {name: type(module).__name__ for name, module in modules}
        self._paths = {id(module): name for name, module in modules}
        self._stack: list[str] = [""]
        self._thread = get_ident()
        self.calls = Calls(hooked=has_hooks(module for _, module in modules))
        self.inputs: tuple[int, ...] = ()
        self.contents: Contents | None = None

    def tape(self, outputs: tuple[int, ...], *, training: bool) -> Tape:
        """What was written down so far."""
        return Tape(
            tuple(self.ops),
            tuple(self.values),
            self.inputs,
            outputs,
            self._types,
            training,
            dict(self.by_name),
        )

    # -- values ----------------------------------------------------------------------------------

    def remember(self, tensor: Tensor, *, is_constant: bool = False) -> int:
        """Give `tensor` a new value number."""
        name = self._named.get(id(tensor), "")
        self.values.append(TensorMeta(tuple(tensor.shape), tensor.dtype, name, is_constant, _strides(tensor)))
        value = len(self.values) - 1
        self._known[id(tensor)] = (weakref.ref(tensor), value)
        if name and name not in self.by_name:
            self.by_name[name] = value
        return value

    def find(self, tensor: Tensor) -> int:
        """The value number of `tensor`; one never seen before is a constant of the model."""
        known = self._known.get(id(tensor))
        # An id is reused once its tensor is gone, hence the weak reference.
        if known is not None and known[0]() is tensor:
            return known[1]
        return self.remember(tensor, is_constant=True)

    def _refer(self, item: Any) -> Any:
        if type(item) in _NUMBERS:
            return item
        if isinstance(item, Tensor):
            return Ref(self.find(item))
        if type(item) in (list, tuple):
            return type(item)([self._refer(x) for x in item])
        return tuple(item) if isinstance(item, (list, tuple)) else item

    # -- operators -------------------------------------------------------------------------------

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        schema = _schema(func)
        refs = tuple([self._refer(arg) for arg in args])
        key_refs = {key: self._refer(value) for key, value in kwargs.items()} if kwargs else {}
        indices = _index_values(schema.name, (args, kwargs), (refs, key_refs))
        if self.contents is not None:
            self.contents.announce(func, args, kwargs)
        result = func(*args, **kwargs)
        mutated = []
        for position in schema.mutates:
            place = (args, refs) if isinstance(position, int) else (kwargs, key_refs)
            if isinstance(position, int) and position >= len(args):
                continue
            tensor, old = place[0][position], place[1][position]  # type: ignore[index]
            for item, ref in zip(_listed(tensor), _listed(old), strict=True):
                if isinstance(item, Tensor):
                    mutated.append((ref.value, self.remember(item)))
        outputs = tuple(
            (self.find(out) if schema.mutates else self.remember(out)) if isinstance(out, Tensor) else None
            for out in _listed(result)
        )
        self.ops.append(
            Op(
                len(self.ops),
                schema.name,
                refs,
                key_refs,
                outputs,
                self._stack[-1],
                schema.is_view,
                schema.is_pointwise,
                tuple(mutated),
                indices,
                isinstance(result, list),
                None if isinstance(result, (Tensor, list, tuple)) else result,
                call=self.calls.current,
            )
        )
        return result

    # -- modules ---------------------------------------------------------------------------------

    @contextmanager
    def following_modules(self) -> Iterator[None]:
        """Keep the path of the module that is running, through hooks global to torch."""
        enter = nn.modules.module.register_module_forward_pre_hook(self._enter)
        leave = nn.modules.module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def _enter(self, module: nn.Module, _args: Any) -> None:
        if get_ident() != self._thread:
            return  # the user runs something else beside
        path = self._paths.get(id(module))
        self._stack.append(self._stack[-1] if path is None else path)
        self.calls.enter(module, path)
        if isinstance(module, RECURRENT):
            self._write_recurrent(module)

    def _write_recurrent(self, module: nn.Module) -> None:
        """Write down which weights belong together, an operator without results."""
        cells = cells_of(module)
        held = module._parameters
        if not all(held.get(name) is not None for cell in cells for name in cell.names):
            return  # parametrised: what a forward does with the weights has to say it
        refs = [[self._refer(held[name]) if name else None for name in cell.places] for cell in cells]
        args = (refs, cells[0].gates)
        self.ops.append(
            Op(len(self.ops), RECURRENT_WEIGHTS, args, {}, (), self._stack[-1], False, False, (), {})
        )

    def _leave(self, _module: nn.Module, _args: Any, _result: Any) -> None:
        if get_ident() == self._thread and len(self._stack) > 1:
            self._stack.pop()
            self.calls.leave()


def _strides(tensor: Tensor) -> tuple[int, ...]:
    return tensor.stride() if tensor.layout is torch.strided else ()


def references(tree: Any) -> Iterator[int]:
    """Every value that nested arguments refer to."""
    for item in tree:
        if isinstance(item, Ref):
            yield item.value
        elif isinstance(item, (list, tuple)):
            yield from references(item)


def without_use(tape: Tape) -> set[int]:
    """Operators whose results nothing reads: no output, no operator, no number that Python reads."""
    live, dead = set(tape.outputs), set()
    for op in reversed(tape.ops):
        if op.mutated or None in op.outputs or not op.outputs or not live.isdisjoint(op.outputs):
            live.update(references((*op.args, *op.kwargs.values())))
        else:
            dead.add(op.index)
    return dead


def _listed(result: Any) -> Sequence[Any]:
    return result if isinstance(result, (list, tuple)) else (result,)


def _index_values(
    target: str, arguments: tuple[Any, Any], refs: tuple[Any, Any]
) -> dict[int, npt.NDArray[Any]]:
    """Values of integer tensors among the arguments of an indexing operator, by value number."""
    if target not in _INDEXED and target != _LITERAL:
        return {}
    limit = 1 if target == _LITERAL else _INDEX_LIMIT
    found = {}
    for tensor, ref in zip(_flat(arguments), _flat(refs), strict=True):
        if not isinstance(tensor, Tensor):
            continue
        if target != _LITERAL and (tensor.is_floating_point() or tensor.is_complex()):
            continue
        if tensor.numel() <= limit and tensor.device.type != "meta":
            found[ref.value] = np.array(tensor.detach().cpu().numpy())
    return found


def _flat(tree: Any) -> list[Any]:
    return _pytree.tree_leaves(tree, is_leaf=lambda node: isinstance(node, (Tensor, Ref)))
