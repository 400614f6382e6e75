"""Channels picked by constant positions, and the argument of the call that says which.

Such a pick can follow a cut: what it picks of the channels that stay is known, and so is the number
that each of them has then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from compressor.core.calls import Call, Held
from compressor.core.tape import Op, Ref

__all__ = ["PICKING", "Pick", "Shift", "actual_positions", "actual_shift", "pick_of", "shifts_of"]

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pick:
    """An operator picks `positions` along `axis` of its first operand, by the tensor `index`.

    `path` is the argument of the call that holds them.
    """

    axis: int
    positions: Positions
    index: int
    path: str


@dataclass(frozen=True)
class Shift:
    """An operator moves the last `number` positions of `axis` to its front; `path` as in `Pick`.

    A negative number moves the first ones to the end. `which` counts the shifts of the operator.
    """

    axis: int
    number: int
    path: str
    which: int


# -- picks ---------------------------------------------------------------------------------------


def pick_of(op: Op, shape: tuple[int, ...]) -> Pick | None:
    """What the operator picks along one axis of a tensor of `shape`.

    None where that is not known, or no other positions could be given to the call.
    """
    place = _index_of(op)
    if place is None or op.call is None or not shape:
        return None
    axis, index = place[0] % len(shape), place[1]
    values = op.indices.get(index.value)
    path_of = _PATHS.get((op.target, op.call.function))
    if values is None or path_of is None:
        return None
    positions = _along(op, axis, values)
    path = path_of(op.call, axis, values.shape)
    if positions is None or path is None:
        return None
    return Pick(axis, positions % max(shape[axis], 1), index.value, path)


def _index_of(op: Op) -> tuple[int, Ref] | None:
    """The one axis that an operator picks along, and the tensor that says which positions."""
    if op.target == "aten.index.Tensor":
        chosen = [(axis, ref) for axis, ref in enumerate(op.args[1]) if ref is not None]
        return chosen[0] if len(chosen) == 1 else None
    if op.target in ("aten.index_select.default", "aten.gather.default"):
        axis, index = op.args[1], op.args[2]
        return int(axis), index
    return None


def _along(op: Op, axis: int, values: npt.NDArray[Any]) -> Positions | None:
    """The positions that an index picks, the same for every position of its other axes."""
    if op.target == "aten.gather.default":
        values = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]) if values.ndim else values
        if values.ndim != 2 or len(values) == 0 or (values != values[:1]).any():
            return None
        values = values[0]
    if values.ndim != 1:
        return None
    if values.dtype in (np.bool_, np.uint8):
        return np.flatnonzero(values)
    return values.astype(np.int64)


def actual_positions(op: Op, pick: Pick, args: Sequence[Any]) -> list[int] | None:
    """What another run of the operator picks; None where its index has no numbers."""
    index = args[1][pick.axis] if op.target == "aten.index.Tensor" else args[2]
    if not isinstance(index, Tensor) or index.device.type == "meta":
        return None
    values = index.detach().cpu().numpy()
    found = _along(op, pick.axis, values)
    return None if found is None else (found % max(args[0].shape[pick.axis], 1)).tolist()


# -- where a call holds them ---------------------------------------------------------------------


def _in_getitem(call: Call, _axis: int, shape: tuple[int, ...]) -> str | None:
    index = call.args[1]
    if not isinstance(index, tuple) or _is_list(index, shape):
        # Numbers alone were a list: as a tuple they would have been one position of several axes.
        chosen = {"1": index}
    else:
        chosen = {f"1.{i}": item for i, item in enumerate(index) if not _is_basic(item)}
    if len(chosen) != 1:
        return None
    ((path, item),) = chosen.items()
    fits = item.shape == shape if isinstance(item, (Held, np.ndarray)) else _is_list(item, shape)
    return path if fits else None


def _is_basic(item: Any) -> bool:
    whole = isinstance(item, int) and not isinstance(item, bool)
    return item is None or item is Ellipsis or isinstance(item, slice) or whole


def _is_list(item: Any, shape: tuple[int, ...]) -> bool:
    whole = isinstance(item, (list, tuple)) and all(isinstance(entry, (int, np.integer)) for entry in item)
    return whole and (len(item),) == shape


def _named(position: int, name: str, *, deep: bool = False) -> Callable[[Call, int, tuple[int, ...]], Any]:
    """The path of an argument that is the very index, or (`deep`) its positions along the axis."""

    def path(call: Call, axis: int, shape: tuple[int, ...]) -> str | None:
        found = call.kwargs.get(name, call.args[position] if position < len(call.args) else None)
        if not isinstance(found, Held) or len(found.shape) != len(shape):
            return None
        own = axis % max(len(shape), 1) if deep else 0
        if not shape or found.shape[own] != shape[own]:
            return None
        head = name if name in call.kwargs else str(position)
        return f"{head}.{own}" if deep else head

    return path


def _taken_along(call: Call, axis: int, shape: tuple[int, ...]) -> str | None:
    dim = call.kwargs.get("dim", call.args[2] if len(call.args) > 2 else None)
    return _named(1, "indices", deep=True)(call, axis, shape) if dim is not None else None


_PATHS: Mapping[tuple[str, str], Callable[[Call, int, tuple[int, ...]], str | None]] = {
    ("aten.index.Tensor", "torch.Tensor.__getitem__"): _in_getitem,
    **{
        (f"aten.{name}.default", f"torch.{home}{name}"): _named(2, "index", deep=name == "gather")
        for name in ("index_select", "gather")
        for home in ("", "Tensor.")
    },
    **{("aten.gather.default", f"torch.{home}take_along_dim"): _taken_along for home in ("", "Tensor.")},
}


# -- shifts --------------------------------------------------------------------------------------


def shifts_of(op: Op, ndim: int) -> tuple[Shift, ...] | None:
    """The shifts of a roll, axis by axis; None where the call does not say them."""
    call = op.call
    shifts, dims = op.args[1], op.args[2] if len(op.args) > 2 else ()
    axes = [dim % ndim for dim in dims]
    if call is None or call.function not in _ROLLS or len(set(axes)) < len(shifts) or not axes:
        return None
    head = "shifts" if "shifts" in call.kwargs else "1"
    given = call.kwargs.get("shifts", call.args[1] if len(call.args) > 1 else None)
    if isinstance(given, int) and list(shifts) == [given]:
        return (Shift(axes[0], given, head, 0),)
    if isinstance(given, (list, tuple)) and list(given) == list(shifts):
        return tuple(
            Shift(axis, number, f"{head}.{i}", i)
            for i, (axis, number) in enumerate(zip(axes, shifts, strict=True))
        )
    return None


def actual_shift(shift: Shift, args: Sequence[Any]) -> int:
    """That shift in another run of the operator."""
    return int(args[1][shift.which])


_ROLLS = ("torch.roll", "torch.Tensor.roll")

# What picks and shifts are made of.
PICKING = frozenset(("aten.roll.default", *(target for target, _ in _PATHS)))
