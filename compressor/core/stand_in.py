"""A forward on shapes alone: tensors on the meta device, and answers in place of arithmetic.

A `Walk` follows a forward operator by operator and compares it with what is expected under a removal.
Where an operator comes out otherwise it is noted, the expected result is returned in its place, and the
forward goes on: one run finds everything that does not follow. Most operators are answered without
running: where one takes no size from the model and its operands are as expected, its result is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree

from compressor.core.aside import Following
from compressor.core.calls import function_name
from compressor.core.nested import with_tensors
from compressor.core.pick_rules import picks_as_expected
from compressor.core.plan import Plan
from compressor.core.recurrent import relisted
from compressor.core.restoring import Contents
from compressor.core.sizes import Mask, Sizes, actual, kind_of, numbers_of, scalars_of, steps
from compressor.core.surgery import set_sizes
from compressor.core.tape import Op, Ref, Tape, named_tensors, references

__all__ = ["Trip", "Walk", "disguise", "walk", "without_numbers"]

# Operators without size arguments, or whose size arguments `Sizes.arguments` compares.
_ANSWERED = frozenset(
    f"aten.{name}"
    for name in (
        "native_batch_norm.default",
        "native_layer_norm.default",
        "native_group_norm.default",
        "convolution.default",
        "max_pool2d_with_indices.default",
        "avg_pool2d.default",
        "_adaptive_avg_pool2d.default",
        "mean.dim",
        "addmm.default",
        "mm.default",
        "bmm.default",
        "hardswish.default",
        "hardswish_.default",
        "_softmax.default",
        "_safe_softmax.default",
        "cat.default",
    )
)


_OWN = ("aten", "prims", "prim")


@dataclass(frozen=True, order=True)
class Trip:
    """An operator of a tape that ran otherwise than expected; or only a plain number of it did.

    `stops` says that the forward could not be followed any further.
    """

    tape: int
    op: int
    by_number: bool = False
    stops: bool = field(default=False, compare=False)

    @property
    def place(self) -> tuple[int, int]:
        """The operator among those of all tapes."""
        return self.tape, self.op


class _Strayed(Exception):
    """The forward took another way than the recording."""


def walk(
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    tape: Tape,
    number: int,
    sizes: Sizes,
    padded: Mask,
    contents: Contents,
    *,
    real: bool = False,
) -> tuple[list[Trip], Exception | None]:
    """Every trip of one forward, and what stopped it (None where it came to its end).

    `contents` is told of operators that run. With `real` every operator is: some need numbers, and a meta
    tensor has none.
    """
    steps_of = Walk(tape, number, sizes, padded, real=real)
    args, kwargs = with_tensors(torch.clone, (args, kwargs))
    try:
        with steps_of.announcing(contents.announce):
            model(*args, **kwargs)
    except _Strayed as error:
        return steps_of.trips, error
    except Exception as error:
        steps_of.stop()
        return steps_of.trips, error
    steps_of.finish()
    return steps_of.trips, None


class Walk(Following):
    """One forward beside one tape under one removal; `trips` holds what did not follow."""

    def __init__(self, tape: Tape, number: int, sizes: Sizes, padded: Mask, *, real: bool) -> None:
        super().__init__()
        self._real, self._paused = real, False
        self._tape, self._number, self._sizes, self._padded = tape, number, sizes, padded
        self._steps = steps(tape)
        self._at = 0
        self._announce: Callable[..., None] | None = None
        self._device: torch.device | None = None
        self.trips: list[Trip] = []

    @contextmanager
    def announcing(self, announce: Callable[..., None]) -> Iterator[None]:
        """Within, the mode is active; operators that run are announced."""
        self._announce = announce
        with _Catching(self), self:
            yield

    @property
    def position(self) -> int:
        """How many operators were followed."""
        return self._at

    def instead_of(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What a call that failed before its operators ran should have returned, after noting a trip.

        Raises LookupError where the call is not the one that the recording has here.
        """
        first = self._steps[self._at] if self._at < len(self._steps) else None
        if first is None or first.call is None or first.call.function != name:
            raise LookupError(name)
        last, start = first, self._at
        while self._at < len(self._steps) and self._steps[self._at].call is first.call:
            last = self._steps[self._at]
            self._at += 1
        # Where nothing that is removed passes, it failed for want of numbers.
        untouched = all(map(self._is_untouched, self._steps[start : self._at]))
        given, recorded = (args, kwargs), (first.call.args, dict(first.call.kwargs))
        if not untouched or _plain(given) != _plain(recorded):
            self._trip(first)
        self._paused = True
        try:
            return self._answer(last, ())
        finally:
            self._paused = False

    def stop(self) -> None:
        """Note that the forward failed before the next operator."""
        last = self._steps[min(self._at, len(self._steps) - 1)]
        self._trip(last, stops=True)

    def finish(self) -> None:
        """Note operators that the forward left out."""
        if self._at < len(self._steps):
            self._trip(self._steps[self._at])

    def _trip(self, op: Op, *, by_number: bool = False, stops: bool = False) -> None:
        trip = Trip(self._number, op.index, by_number, stops)
        if trip in self.trips:
            self.trips.remove(trip)
        self.trips.append(trip)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if self._paused:
            return func(*args, **kwargs)
        name, is_counted, is_foreign = _known(func)
        if name == "aten.clone.default":
            return self._run(func, args, kwargs)
        op = self._steps[self._at] if self._at < len(self._steps) else None
        if op is None or (name != op.target and kind_of(name) != kind_of(op.target)):
            self.stop()
            raise _Strayed(f"{name} where the recording has {op.target if op else 'no more'}")
        self._at += 1
        if self._real and args and isinstance(args[0], Tensor):
            self._device = args[0].device
        if self._sizes.is_dead(op):
            return self._dropped(op, func, args, kwargs)
        if self._matters(op) and numbers_of(op) != scalars_of(op, name, args, kwargs):
            self._trip(op, by_number=True)
        if op.scalar is not None and not all(map(self._sizes.is_static, references(op.args))):
            # A number read off the inputs is the example's, as the branch that was recorded.
            return op.scalar
        # How many positions a mask picks, or boxes stay, is no matter of channels. An operator of another
        # library that made tensors has no kernel for shapes alone.
        is_given = is_counted or (is_foreign and bool(op.outputs) and None not in op.outputs)
        if (is_given or self._is_answered(op, name)) and self._as_expected(op.args, args):
            if not self._follows(op, name, args):
                self._trip(op)
            return self._answer(op, args)
        try:
            result = self._run(func, args, kwargs)
        except Exception as error:
            if op.scalar is not None:
                return op.scalar
            untouched = self._is_untouched(op) and _plain(args) == _plain(op.args)
            if not self._real and untouched and self._as_expected(op.args, args):
                # Nothing that is removed passes here; the operator asks more than a shape of its operands.
                return self._answer(op, args)
            if isinstance(error, NotImplementedError) and not self._real:
                # Not a wrong size: the operator needs numbers, which a meta tensor does not have.
                raise
            result = None
        if result is None and all(out is None for out in op.outputs):
            return None
        if result is not None and not isinstance(result, (Tensor, tuple, list)):
            return result
        if result is None or not self._fits(op, result) or not self._follows(op, name, args):
            if op.scalar is not None:
                return op.scalar
            self._trip(op)
            return self._answer(op, args)
        return result

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        leaves = [leaf for leaf in _pytree.tree_leaves((args, dict(kwargs))) if isinstance(leaf, Tensor)]
        if not self._real and len({leaf.device.type for leaf in leaves}) > 1:
            # Whole numbers are real, what the model computes has no numbers.
            args, kwargs = _pytree.tree_map_only(Tensor, _meta, (args, dict(kwargs)))
        elif self._announce is not None:
            self._announce(func, args, kwargs)
        return func(*args, **kwargs)

    def _dropped(self, op: Op, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operator gives that nothing reads, whatever it is."""
        try:
            return self._run(func, args, kwargs)
        except Exception:
            return self._answer(op, args)

    def _is_untouched(self, op: Op) -> bool:
        """Whether the removal changes no shape of its operands and results.

        What computes positions that channels are picked by may do so from what is removed all the same.
        """
        if op.index in self._sizes.behind_picks():
            return False
        values = (*references(op.args), *(out for out in op.outputs if out is not None))
        return all(self._sizes.shape(v, self._padded) == self._tape.values[v].shape for v in values)

    def _is_answered(self, op: Op, name: str) -> bool:
        if self._real:
            return False
        return name == op.target and (op.is_pointwise or name in _ANSWERED) and op.scalar is None

    def _as_expected(self, refs: Any, args: Any) -> bool:
        """Whether every operand has the shape that the removal leaves."""
        if len(refs) != len(args):
            return False
        for ref, arg in zip(refs, args, strict=True):
            if isinstance(arg, Tensor):
                if not isinstance(ref, Ref):
                    return False
                if tuple(arg.shape) != self._sizes.shape(ref.value, self._padded):
                    return False
            elif _holds_tensors(arg) and not (isinstance(ref, (list, tuple)) and self._as_expected(ref, arg)):
                return False
        return True

    def _follows(self, op: Op, name: str, args: tuple[Any, ...]) -> bool:
        """Whether the size arguments that shapes do not show are those expected."""
        return all(
            number.new(self._padded) == actual(name, args, number.place)
            for number in self._sizes.arguments(op)
        ) and all(
            picks_as_expected(op, pick, rule, args, self._padded) for pick, rule in self._sizes.picks(op)
        )

    def _matters(self, op: Op) -> bool:
        """Whether anything reads what the operator computes."""
        return not op.outputs or any(out is None or self._sizes.is_used(out) for out in op.outputs)

    def _fits(self, op: Op, result: Any) -> bool:
        found = result if isinstance(result, (list, tuple)) else (result,)
        if len(found) != len(op.outputs):
            return False
        for out, tensor in zip(op.outputs, found, strict=True):
            if out is None or not self._sizes.is_used(out):
                continue
            if not isinstance(tensor, Tensor) or tuple(tensor.shape) != self._sizes.shape(out, self._padded):
                return False
        return True

    def _answer(self, op: Op, args: tuple[Any, ...]) -> Any:
        """What the operator should have returned."""
        own = op.mutated[0] if op.mutated else None
        if args and own and op.outputs and op.outputs[0] == own[1] and op.args[0] == Ref(own[0]):
            return args[0]
        results = tuple(None if out is None else self._empty(out) for out in op.outputs)
        listed = len(results) > 1 or op.is_listed
        return (list(results) if op.is_listed else results) if listed else results[0]

    def _empty(self, out: int) -> Tensor:
        meta = self._tape.values[out]
        shape = self._sizes.shape(out, self._padded)
        if self._real:
            return torch.zeros(shape, dtype=meta.dtype, device=self._device)
        # Whether a reshape has to copy, and with it what is run, depends on the order in memory.
        return torch.empty_strided(shape, _ordered_as(meta.strides, shape), dtype=meta.dtype, device="meta")


class _Catching(TorchFunctionMode):
    """Has a walk go on where a call fails on its sizes before any operator of it runs."""

    def __init__(self, walk: Walk) -> None:
        super().__init__()
        self._walk = walk

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs, before = kwargs or {}, self._walk.position
        try:
            return func(*args, **kwargs)
        except (RuntimeError, IndexError, ValueError) as error:
            try:
                if self._walk.position == before and _is_mixed(args, kwargs):
                    # Some calls ask for tensors on one device before their operators run.
                    return func(
                        *_pytree.tree_map_only(Tensor, _meta, args),
                        **_pytree.tree_map_only(Tensor, _meta, dict(kwargs)),
                    )
            except (RuntimeError, IndexError, ValueError):
                pass
            try:
                return self._walk.instead_of(function_name(func), args, kwargs)
            except LookupError:
                raise error from None


def _plain(tree: Any) -> list[Any]:
    """The numbers among the arguments of a call, in order."""
    return [leaf for leaf in _pytree.tree_leaves(tree) if isinstance(leaf, (bool, int, float))]


def _is_mixed(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether some of the tensors have numbers and some have none."""
    leaves = _pytree.tree_leaves((args, dict(kwargs)))
    return len({leaf.device.type == "meta" for leaf in leaves if isinstance(leaf, Tensor)}) > 1


@cache
def _known(func: Any) -> tuple[str, bool, bool]:
    """An operator's name, whether numbers decide on its result's shape, whether it is another library's."""
    return str(func), torch.Tag.dynamic_output_shape in func.tags, func.namespace not in _OWN


def _ordered_as(strides: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Strides of a tensor of `shape` without gaps, its axes in the order that `strides` have."""
    result, size = [0] * len(shape), 1
    if len(strides) != len(shape):
        strides = range(len(shape), 0, -1)
    for axis in sorted(range(len(shape)), key=lambda axis: (strides[axis], -axis)):
        if strides[axis] > 0:
            result[axis] = size
            size *= max(shape[axis], 1)
    return result


def _holds_tensors(arg: Any) -> bool:
    return isinstance(arg, (list, tuple)) and any(isinstance(x, Tensor) for x in arg)


def _meta(tensor: Tensor) -> Tensor:
    return tensor if tensor.device.type == "meta" else tensor.to("meta")


def without_numbers(tree: Any) -> Any:
    """The inputs of a forward on shapes: floating tensors on the meta device, others as they are."""

    def convert(x: Tensor) -> Tensor:
        return x.to("meta") if x.is_floating_point() or x.is_complex() else x

    return with_tensors(convert, tree)


def disguise(model: nn.Module, plan: Plan) -> None:
    """Put meta tensors of the plan's shapes in place of the model's tensors, and change its sizes.

    For a while: a `Held` gives everything back that its modules held.
    """
    shapes = dict(plan.result.tensors)
    meta: dict[int, Tensor] = {}
    for name, tensor in named_tensors(model).items():
        if not (tensor.is_floating_point() or tensor.is_complex()) and shapes[name] == tuple(tensor.shape):
            meta[id(tensor)] = tensor
            continue
        empty = torch.empty(shapes[name], dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            # torch takes another way through a product with a weight that is trained.
            empty = nn.Parameter(empty, tensor.requires_grad)
        meta[id(tensor)] = empty
    for module in model.modules():
        for held in (vars(module)["_parameters"], vars(module)["_buffers"]):
            for key, own in held.items():
                if own is not None:
                    held[key] = meta[id(own)]
        if isinstance(module, nn.RNNBase):
            vars(module).update(relisted(module, meta))
    set_sizes(model, plan.sizes)
