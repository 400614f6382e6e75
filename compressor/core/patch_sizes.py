"""Numbers in a call that say how long an axis is, or where it is cut: one function for each kind of call.

Each reads a call as it was written and says which of its entries sit at labelled axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.core.calls import VIEWS, Call, Held
from compressor.core.channels import UnitArray, free
from compressor.core.graph import PatchRule
from compressor.core.tape import Op, Ref, Tape

__all__ = ["FAMILIES", "SHAPED", "AxesOf", "Site", "argument", "patch_rule"]

# For a value of the tape the units of each of its labelled axes.
AxesOf = Callable[[int], Mapping[int, UnitArray]]


@dataclass(frozen=True, eq=False)
class Site:
    """A call that tripped, with the operator it tripped at and the labels around it.

    With `firm`, numbers at axes that nothing can shrink are wanted, instead of those that follow.
    """

    op: Op
    call: Call
    tape: Tape
    axes_of: AxesOf
    firm: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The recorded shape of the operator's first result."""
        return self.tape.values[self.out].shape if self.out is not None else ()

    @property
    def out(self) -> int | None:
        return next((out for out in self.op.outputs if out is not None), None)

    @property
    def axes(self) -> Mapping[int, UnitArray]:
        """The labelled axes of the operator's first result."""
        return {} if self.out is None else self.axes_of(self.out)

    @property
    def source(self) -> int | None:
        """The value that the operator takes first."""
        first = self.op.args[0] if self.op.args else None
        return first.value if isinstance(first, Ref) else None

    def along(self, axis: int) -> UnitArray | None:
        """The units along an axis of what the operator takes."""
        if self.source is None:
            return None
        return self.axes_of(self.source).get(axis % max(len(self.tape.values[self.source].shape), 1))

    def given(self) -> tuple[int, ...]:
        """The shape of the tensor that the call is made on."""
        first = self.call.args[0] if self.call.args else None
        return first.shape if isinstance(first, Held) else ()


def patch_rule(
    call: Call,
    path: str,
    old: Any,
    units: tuple[UnitArray, ...],
    *,
    divisor: int = 1,
    fixed: Any = None,
    relative: bool = False,
) -> PatchRule:
    """The rule for the number at a path of a call; see `PatchRule`."""
    place = (call.module, call.function, call.ordinal, path)
    return PatchRule(*place, old, units, divisor, fixed, relative)


# -- lists of sizes ------------------------------------------------------------------------------


def _entries(call: Call, position: int, names: Sequence[str]) -> list[tuple[str, Any]]:
    """Path and value of each entry of a list of sizes, given as a list or one by one from `position`."""
    for name in names:
        if name in call.kwargs:
            return _listed(name, call.kwargs[name])
    if position < len(call.args) and isinstance(call.args[position], (list, tuple)):
        return _listed(str(position), call.args[position])
    return [(str(i), value) for i, value in enumerate(call.args) if i >= position]


def _listed(path: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        return [(f"{path}.{i}", entry) for i, entry in enumerate(value)]
    return [(path, value)]


def _shaped(
    site: Site, entries: Sequence[tuple[str, Any]], first: int, *, view: bool = False
) -> Iterator[PatchRule]:
    """Entry `k` of a list of sizes says how long axis `first + k` of the result is."""
    open_entry = any(value == -1 for _, value in entries)
    for k, (path, value) in enumerate(entries):
        units = site.axes.get(first + k)
        if units is None or not _is_number(value) or value != site.shape[first + k]:
            continue
        if bool(free(units).any()) is site.firm:
            continue
        if site.firm and first + k == 0:
            # Labels that are fixed may be folded with the batch there, whose size is not.
            continue
        if site.firm:
            yield patch_rule(site.call, path, value, (), fixed=value)
        elif not _repeats(units):
            yield patch_rule(site.call, path, value, (units,))
        elif view and not open_entry:
            # The axis may hold more than channels (the batch, say): let torch work it out.
            open_entry = True
            yield patch_rule(site.call, path, value, (units,), fixed=-1)
        else:
            yield patch_rule(site.call, path, value, (units,), relative=True)


def _repeats(units: UnitArray) -> bool:
    """Whether the axis holds its channels more than once."""
    columns = np.atleast_2d(units)[:, free(units)]
    return bool(np.unique(columns, axis=1).shape[1] < columns.shape[1])


def _view(site: Site) -> Iterator[PatchRule]:
    yield from _shaped(site, _entries(site.call, 1, ("shape", "size")), 0, view=True)


def _expand(site: Site) -> Iterator[PatchRule]:
    yield from _shaped(site, _entries(site.call, 1, ("size",)), 0)


def _unflatten(site: Site) -> Iterator[PatchRule]:
    dim = site.call.args[1] if len(site.call.args) > 1 else site.call.kwargs.get("dim", 0)
    if isinstance(dim, int) and site.given():
        entries = _entries(site.call, 2, ("sizes",))
        yield from _shaped(site, entries, dim % len(site.given()), view=True)


def _repeat(site: Site) -> Iterator[PatchRule]:
    entries = _entries(site.call, 1, ("repeats", "dims"))
    before = (1,) * (len(entries) - len(site.given())) + site.given()
    for k, (path, value) in enumerate(entries):
        units = site.axes.get(k)
        if units is not None and _is_number(value) and before[k] * value == units.shape[-1]:
            source = site.along(k - len(before) + len(site.given())) if before[k] > 1 else None
            if source is None:
                yield patch_rule(site.call, path, value, (units,), divisor=before[k])


def _created(site: Site) -> Iterator[PatchRule]:
    method = bool(site.call.args) and isinstance(site.call.args[0], Held)
    entries = _entries(site.call, int(method), ("size",))
    yield from _shaped(site, entries[: len(site.shape)], 0)


def _drawn(site: Site) -> Iterator[PatchRule]:
    lists = [i for i, value in enumerate(site.call.args) if isinstance(value, (list, tuple))]
    yield from _shaped(site, _entries(site.call, lists[0] if lists else 99, ("size",)), 0)


def _normalised(site: Site) -> Iterator[PatchRule]:
    entries = _entries(site.call, 1, ("normalized_shape",))
    if len(site.call.args) > 1 and not isinstance(site.call.args[1], (list, tuple)):
        entries = entries[:1]
    yield from _shaped(site, entries, len(site.given()) - len(entries))


# -- where an axis is cut ------------------------------------------------------------------------


def _split(site: Site) -> Iterator[PatchRule]:
    dim = argument(site.call, 2, "dim", 0)
    path, value = next(
        ((n, site.call.kwargs[n]) for n in ("split_size", "split_size_or_sections", "split_sizes")
         if n in site.call.kwargs),
        ("1", site.call.args[1] if len(site.call.args) > 1 else None),
    )  # fmt: skip
    outputs = [out for out in site.op.outputs if out is not None]
    axis = dim % len(site.given()) if site.given() else 0
    parts = [own for out in outputs if (own := site.axes_of(out).get(axis)) is not None]
    whole = site.along(axis)
    if len(parts) < len(outputs) and whole is not None:
        ends = np.cumsum([site.tape.values[out].shape[axis] for out in outputs]).tolist()
        parts = [whole[..., start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if not parts or len(parts) < len(outputs):
        return
    if isinstance(value, (list, tuple)):
        for (entry, old), units in zip(_listed(path, value), parts, strict=True):
            if _is_number(old):
                yield patch_rule(site.call, entry, old, (units,))
    elif _is_number(value):
        yield patch_rule(site.call, path, value, tuple(parts))


def _chunk(site: Site) -> Iterator[PatchRule]:
    """Chunks of one channel each are as many as there are channels; other counts say no size."""
    chunks = argument(site.call, 1, "chunks", None)
    units = site.along(argument(site.call, 2, "dim", 0))
    if units is not None and chunks == units.shape[-1]:
        yield patch_rule(site.call, "1" if len(site.call.args) > 1 else "chunks", chunks, (units,))


def _narrow(site: Site) -> Iterator[PatchRule]:
    units = site.along(argument(site.call, 1, "dim", 0))
    start, length = (argument(site.call, i, name, 0) for i, name in ((2, "start"), (3, "length")))
    if units is None or not _is_number(start) or not _is_number(length):
        return
    paths = ["2" if len(site.call.args) > 2 else "start", "3" if len(site.call.args) > 3 else "length"]
    start = start % units.shape[-1]
    if start:
        yield patch_rule(site.call, paths[0], start, (units[..., :start],))
    yield patch_rule(site.call, paths[1], length, (units[..., start : start + length],))


def _sliced(site: Site) -> Iterator[PatchRule]:
    if site.op.target != "aten.slice.Tensor" or site.source is None:
        return
    place = site.op.args[1] if len(site.op.args) > 1 else 0
    units = site.along(place)
    ndim = len(site.tape.values[site.source].shape)
    found = _slice_at(site.call.args[1], len(site.given()), place % ndim)
    if units is None or found is None or found[1].step not in (None, 1):
        return
    path, item = found
    size = units.shape[-1]
    for name in ("start", "stop"):
        bound = getattr(item, name)
        if _is_number(bound) and bound != 0 and -size < bound < size:
            # Counted from the start also where it was not: as many from the end may be none.
            yield patch_rule(site.call, f"{path}.{name}", bound, (units[..., :bound],))


def _slice_at(index: Any, ndim: int, dim: int) -> tuple[str, slice] | None:
    """Path and value of the slice that cuts along `dim`, counted as torch does: slice by slice."""
    items = list(index) if isinstance(index, tuple) else [index]
    taken = sum(1 for item in items if item is not None and item is not Ellipsis)
    at = 0
    for position, item in enumerate(items):
        if item is Ellipsis:
            at += ndim - taken
        elif isinstance(item, slice):
            if at == dim and (item.start, item.stop) != (None, None):
                return (f"1.{position}" if isinstance(index, tuple) else "1"), item
            at += 1
        elif isinstance(item, bool) or not isinstance(item, int):
            at += 1
    return None


def _padded(site: Site) -> Iterator[PatchRule]:
    amounts = argument(site.call, 1, "pad", ())
    path = "1" if len(site.call.args) > 1 else "pad"
    for axis, units in site.axes.items():
        pair = 2 * (len(site.shape) - 1 - axis)
        if pair + 1 >= len(amounts):
            continue
        before, after = amounts[pair : pair + 2]
        if _is_number(before) and before > 0:
            yield patch_rule(site.call, f"{path}.{pair}", before, (units[..., :before],))
        if _is_number(after) and after > 0:
            yield patch_rule(site.call, f"{path}.{pair + 1}", after, (units[..., units.shape[-1] - after :],))


# -- groups --------------------------------------------------------------------------------------


def _normed(site: Site) -> Iterator[PatchRule]:
    """Groups of one channel each are as many as there are channels."""
    groups, units = argument(site.call, 1, "num_groups", None), site.along(1)
    if units is not None and groups == units.shape[-1]:
        yield patch_rule(site.call, "1" if len(site.call.args) > 1 else "num_groups", groups, (units,))


def _convolved(site: Site) -> Iterator[PatchRule]:
    """So are those of a convolution with one channel in or out of each."""
    groups, units = argument(site.call, 6, "groups", 1), site.axes.get(1)
    weight = argument(site.call, 1, "weight", None)
    if units is None or not _is_number(groups) or groups < 2 or not isinstance(weight, Held):
        return
    if weight.shape[1] == 1 or weight.shape[0] == groups:
        path = "6" if len(site.call.args) > 6 else "groups"
        yield patch_rule(site.call, path, groups, (units,), divisor=units.shape[-1] // groups)


def argument(call: Call, position: int, name: str, default: Any) -> Any:
    """An argument of a call, however it was given."""
    if name in call.kwargs:
        return call.kwargs[name]
    return call.args[position] if position < len(call.args) else default


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _of(function: Callable[[Site], Iterator[PatchRule]], lead: str, names: str) -> dict[str, Any]:
    return {lead + name: function for name in names.split()}


# By the name that `calls.function_name` gives.
FAMILIES: dict[str, Callable[[Site], Iterator[PatchRule]]] = {
    **dict.fromkeys(VIEWS, _view),
    **_of(_expand, "torch.", "Tensor.expand Tensor.broadcast_to broadcast_to"),
    **_of(_unflatten, "torch.", "Tensor.unflatten unflatten"),
    **_of(_repeat, "torch.", "Tensor.repeat Tensor.tile tile"),
    **_of(_created, "torch.", "zeros ones empty full rand randn"),
    **_of(_created, "torch.Tensor.new_", "zeros ones empty full"),
    **_of(_drawn, "torch.", "randint normal"),
    **_of(_normalised, "torch.nn.functional.", "layer_norm rms_norm"),
    **_of(_normalised, "torch.", "layer_norm rms_norm"),
    **_of(_split, "torch.", "Tensor.split Tensor.split_with_sizes functional.split"),
    **_of(_chunk, "torch.", "Tensor.chunk chunk"),
    **_of(_narrow, "torch.", "Tensor.narrow narrow"),
    **_of(_sliced, "torch.Tensor.", "__getitem__ __setitem__"),
    **_of(_padded, "torch.", "nn.functional.pad constant_pad_nd"),
    **_of(_normed, "torch.nn.functional.", "group_norm"),
    **_of(_convolved, "torch.nn.functional.", "conv1d conv2d conv3d"),
    **_of(_convolved, "torch.nn.functional.conv_transpose", "1d 2d 3d"),
}

# Those whose numbers are lengths of axes of the result.
SHAPED = (_view, _expand, _unflatten, _created, _drawn, _normalised)
