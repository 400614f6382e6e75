"""Which arguments of a call must follow what is removed: the numbers a forward holds, call by call.

Given an operator that tripped in a rehearsal, `rules_for` reads its call as it was written. One pure
function per family of calls says which entries sit at labelled axes; each becomes a `PatchRule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.core.calls import Call, Held
from compressor.core.channels import UnitArray, free
from compressor.core.graph import PatchRule
from compressor.core.sizes import numbers_of
from compressor.core.tape import Op, Ref, Tape

__all__ = ["number_rules", "rules_for", "size_rules"]

AxesOf = Callable[[int], Mapping[int, UnitArray]]


def rules_for(op: Op, tape: Tape, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """What to patch in the call that `op` came from, or None where nothing in it can be patched.

    `axes_of(value)` gives the units of each labelled axis of a value of the tape (`Sizes.axes`).
    Numbers that say a size follow what is removed; plain numbers stay what they were recorded as.
    """
    return size_rules(op, tape, axes_of) or number_rules(op, axes_of)


def size_rules(op: Op, tape: Tape, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """Rules for numbers in the call that say how long an axis is, or where it is cut."""
    if op.call is None:
        return None
    family = _FAMILIES.get(op.call.function)
    if family is None:
        return None
    return tuple(family(_Site(op, op.call, tape, axes_of))) or None


def number_rules(op: Op, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """Rules for numbers that the operator computes with: each stays what was recorded."""
    call = op.call
    if call is None or (call.function in _FAMILIES and call.function not in _SCALARS):
        return None
    if call.function == _ATTENTION:
        return _attention(op, call)
    if not op.is_pointwise and call.function not in _SCALARS:
        return None
    given = [(path, value) for path, value in _plain_numbers(call) if not isinstance(value, bool)]
    used = numbers_of(op)
    chosen = [(path, value) for path, value in given if value in used] or given
    return tuple(_rule(call, path, value, (), fixed=value) for path, value in chosen) or None


@dataclass(frozen=True, eq=False)
class _Site:
    """A call that tripped, with the operator it tripped at and the labels around it."""

    op: Op
    call: Call
    tape: Tape
    axes_of: AxesOf

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


def _rule(
    call: Call,
    argument: str,
    old: Any,
    units: tuple[UnitArray, ...],
    *,
    divisor: int = 1,
    fixed: Any = None,
    relative: bool = False,
) -> PatchRule:
    place = (call.module, call.function, call.ordinal, argument)
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
    site: _Site, entries: Sequence[tuple[str, Any]], first: int, *, view: bool = False
) -> Iterator[PatchRule]:
    """Entry `k` of a list of sizes says how long axis `first + k` of the result is."""
    open_entry = any(value == -1 for _, value in entries)
    for k, (path, value) in enumerate(entries):
        units = site.axes.get(first + k)
        if units is None or not _is_number(value) or value != site.shape[first + k]:
            continue
        if not _repeats(units):
            yield _rule(site.call, path, value, (units,))
        elif view and not open_entry:
            # The axis may hold more than channels (the batch, say): let torch work it out.
            open_entry = True
            yield _rule(site.call, path, value, (units,), fixed=-1)
        else:
            yield _rule(site.call, path, value, (units,), relative=True)


def _repeats(units: UnitArray) -> bool:
    """Whether the axis holds its channels more than once."""
    columns = np.atleast_2d(units)[:, free(units)]
    return bool(np.unique(columns, axis=1).shape[1] < columns.shape[1])


def _view(site: _Site) -> Iterator[PatchRule]:
    yield from _shaped(site, _entries(site.call, 1, ("shape", "size")), 0, view=True)


def _expand(site: _Site) -> Iterator[PatchRule]:
    yield from _shaped(site, _entries(site.call, 1, ("size",)), 0)


def _unflatten(site: _Site) -> Iterator[PatchRule]:
    dim = site.call.args[1] if len(site.call.args) > 1 else site.call.kwargs.get("dim", 0)
    if isinstance(dim, int) and site.given():
        entries = _entries(site.call, 2, ("sizes",))
        yield from _shaped(site, entries, dim % len(site.given()), view=True)


def _repeat(site: _Site) -> Iterator[PatchRule]:
    entries = _entries(site.call, 1, ("repeats", "dims"))
    before = (1,) * (len(entries) - len(site.given())) + site.given()
    for k, (path, value) in enumerate(entries):
        units = site.axes.get(k)
        if units is not None and _is_number(value) and before[k] * value == units.shape[-1]:
            source = site.along(k - len(before) + len(site.given())) if before[k] > 1 else None
            if source is None:
                yield _rule(site.call, path, value, (units,), divisor=before[k])


def _created(site: _Site) -> Iterator[PatchRule]:
    method = bool(site.call.args) and isinstance(site.call.args[0], Held)
    entries = _entries(site.call, int(method), ("size",))
    yield from _shaped(site, entries[: len(site.shape)], 0)


def _drawn(site: _Site) -> Iterator[PatchRule]:
    lists = [i for i, value in enumerate(site.call.args) if isinstance(value, (list, tuple))]
    yield from _shaped(site, _entries(site.call, lists[0] if lists else 99, ("size",)), 0)


def _normalised(site: _Site) -> Iterator[PatchRule]:
    entries = _entries(site.call, 1, ("normalized_shape",))
    if 1 < len(site.call.args) and not isinstance(site.call.args[1], (list, tuple)):
        entries = entries[:1]
    yield from _shaped(site, entries, len(site.given()) - len(entries))


# -- where an axis is cut ------------------------------------------------------------------------


def _split(site: _Site) -> Iterator[PatchRule]:
    dim = _argument(site.call, 2, "dim", 0)
    path, value = next(
        ((n, site.call.kwargs[n]) for n in ("split_size", "split_size_or_sections", "split_sizes")
         if n in site.call.kwargs),
        ("1", site.call.args[1] if len(site.call.args) > 1 else None),
    )  # fmt: skip
    outputs = [out for out in site.op.outputs if out is not None]
    axis = dim % len(site.given()) if site.given() else 0
    parts = [self_units for out in outputs if (self_units := site.axes_of(out).get(axis)) is not None]
    whole = site.along(axis)
    if len(parts) < len(outputs) and whole is not None:
        ends = np.cumsum([site.tape.values[out].shape[axis] for out in outputs]).tolist()
        parts = [whole[..., start:end] for start, end in zip([0, *ends], ends, strict=False)]
    if not parts or len(parts) < len(outputs):
        return
    if isinstance(value, (list, tuple)):
        for (entry, old), units in zip(_listed(path, value), parts, strict=True):
            if _is_number(old):
                yield _rule(site.call, entry, old, (units,))
    elif _is_number(value):
        yield _rule(site.call, path, value, tuple(parts))


def _chunk(site: _Site) -> Iterator[PatchRule]:
    """Chunks of one channel each are as many as there are channels; other counts say no size."""
    chunks = _argument(site.call, 1, "chunks", None)
    units = site.along(_argument(site.call, 2, "dim", 0))
    if units is not None and chunks == units.shape[-1]:
        yield _rule(site.call, "1" if len(site.call.args) > 1 else "chunks", chunks, (units,))


def _narrow(site: _Site) -> Iterator[PatchRule]:
    units = site.along(_argument(site.call, 1, "dim", 0))
    start, length = (_argument(site.call, i, name, 0) for i, name in ((2, "start"), (3, "length")))
    if units is None or not _is_number(start) or not _is_number(length):
        return
    paths = ["2" if len(site.call.args) > 2 else "start", "3" if len(site.call.args) > 3 else "length"]
    start = start % units.shape[-1]
    if start:
        yield _rule(site.call, paths[0], start, (units[..., :start],))
    yield _rule(site.call, paths[1], length, (units[..., start : start + length],))


def _sliced(site: _Site) -> Iterator[PatchRule]:
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
        if not _is_number(bound) or bound == 0:
            continue
        # Counted from the start also where it was not: as many from the end may be none.
        yield _rule(site.call, f"{path}.{name}", bound, (units[..., : min(bound, size)],))


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


def _padded(site: _Site) -> Iterator[PatchRule]:
    amounts = _argument(site.call, 1, "pad", ())
    path = "1" if len(site.call.args) > 1 else "pad"
    for axis, units in site.axes.items():
        pair = 2 * (len(site.shape) - 1 - axis)
        if pair + 1 >= len(amounts):
            continue
        before, after = amounts[pair : pair + 2]
        if _is_number(before) and before > 0:
            yield _rule(site.call, f"{path}.{pair}", before, (units[..., :before],))
        if _is_number(after) and after > 0:
            yield _rule(site.call, f"{path}.{pair + 1}", after, (units[..., units.shape[-1] - after :],))


# -- groups --------------------------------------------------------------------------------------


def _normed(site: _Site) -> Iterator[PatchRule]:
    """Groups of one channel each are as many as there are channels."""
    groups, units = _argument(site.call, 1, "num_groups", None), site.along(1)
    if units is not None and groups == units.shape[-1]:
        yield _rule(site.call, "1" if len(site.call.args) > 1 else "num_groups", groups, (units,))


def _convolved(site: _Site) -> Iterator[PatchRule]:
    """So are those of a convolution with one channel in or out of each."""
    groups, units = _argument(site.call, 6, "groups", 1), site.axes.get(1)
    weight = _argument(site.call, 1, "weight", None)
    if units is None or not _is_number(groups) or groups < 2 or not isinstance(weight, Held):
        return
    if weight.shape[1] == 1 or weight.shape[0] == groups:
        path = "6" if len(site.call.args) > 6 else "groups"
        yield _rule(site.call, path, groups, (units,), divisor=units.shape[-1] // groups)


# -- plain numbers -------------------------------------------------------------------------------

_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"


def _attention(op: Op, call: Call) -> tuple[PatchRule, ...] | None:
    scale = call.kwargs.get("scale")
    query = _argument(call, 0, "query", None)
    if scale is None and isinstance(query, Held):
        # As torch computes it, to the last bit.
        return (_rule(call, "scale", None, (), fixed=1.0 / math.sqrt(query.shape[-1])),)
    return (_rule(call, "scale", scale, (), fixed=scale),) if isinstance(scale, (int, float)) else None


def _plain_numbers(call: Call) -> Iterator[tuple[str, float]]:
    wanted = _SCALARS.get(call.function)
    for i, value in enumerate(call.args):
        if isinstance(value, (int, float)) and (wanted is None or str(i) in wanted):
            yield str(i), value
    for name, value in call.kwargs.items():
        if isinstance(value, (int, float)) and (wanted is None or name in wanted):
            yield name, value


# Calls whose other numbers are not what is computed with.
_SCALARS: dict[str, tuple[str, ...]] = {
    "torch.tensor": ("0", "data"),
    "torch.scalar_tensor": ("0", "s"),
    "torch.full": ("1", "fill_value"),
    "torch.full_like": ("1", "fill_value"),
    "torch.Tensor.new_full": ("2", "fill_value"),
    "torch.Tensor.fill_": ("1", "value"),
    "torch.Tensor.masked_fill": ("2", "value"),
    "torch.Tensor.masked_fill_": ("2", "value"),
    "torch.baddbmm": ("beta", "alpha"),
    "torch.addmm": ("beta", "alpha"),
    "torch.Tensor.baddbmm": ("beta", "alpha"),
    "torch.Tensor.addmm": ("beta", "alpha"),
}


def _argument(call: Call, position: int, name: str, default: Any) -> Any:
    if name in call.kwargs:
        return call.kwargs[name]
    return call.args[position] if position < len(call.args) else default


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_FAMILIES: dict[str, Callable[[_Site], Iterator[PatchRule]]] = {
    **dict.fromkeys(("torch.Tensor.reshape", "torch.Tensor.view", "torch.reshape"), _view),
    **dict.fromkeys(("torch.Tensor.expand", "torch.Tensor.broadcast_to", "torch.broadcast_to"), _expand),
    **dict.fromkeys(("torch.Tensor.unflatten", "torch.unflatten"), _unflatten),
    **dict.fromkeys(("torch.Tensor.repeat", "torch.Tensor.tile", "torch.tile"), _repeat),
    **dict.fromkeys((f"torch.{name}" for name in ("zeros", "ones", "empty", "rand", "randn", "full")), _created),
    **dict.fromkeys((f"torch.Tensor.new_{name}" for name in ("zeros", "ones", "empty", "full")), _created),
    **dict.fromkeys(("torch.randint", "torch.normal"), _drawn),
    **dict.fromkeys((f"torch.nn.functional.{name}_norm" for name in ("layer", "rms")), _normalised),
    **dict.fromkeys(("torch.layer_norm", "torch.rms_norm"), _normalised),
    **dict.fromkeys(
        ("torch.Tensor.split", "torch.functional.split", "torch.split", "torch.Tensor.split_with_sizes"), _split
    ),
    **dict.fromkeys(("torch.Tensor.chunk", "torch.chunk"), _chunk),
    **dict.fromkeys(("torch.Tensor.narrow", "torch.narrow"), _narrow),
    **dict.fromkeys(("torch.Tensor.__getitem__", "torch.Tensor.__setitem__"), _sliced),
    **dict.fromkeys(("torch.nn.functional.pad", "torch.constant_pad_nd"), _padded),
    **dict.fromkeys(("torch.nn.functional.group_norm",), _normed),
    **dict.fromkeys(
        (f"torch{lib}.conv{t}{n}d" for lib in ("", ".nn.functional") for t in ("", "_transpose") for n in (1, 2, 3)),
        _convolved,
    ),
}  # fmt: skip
