"""Which arguments of a call must follow what is removed: the numbers a forward holds, call by call.

Given an operator that tripped in a rehearsal, `rules_for` reads its call as it was written. Numbers
that say a size follow what is removed, those that are computed with stay what they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from compressor.core.calls import Call, Held
from compressor.core.graph import PatchRule
from compressor.core.patch_sizes import FAMILIES, SHAPED, AxesOf, Site, argument, patch_rule
from compressor.core.sizes import numbers_of
from compressor.core.tape import Op, Tape

__all__ = ["firm_rules", "number_rules", "rules_for", "size_rules"]


def rules_for(op: Op, tape: Tape, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """What to patch in the call that `op` came from, or None where nothing in it can be patched.

    `axes_of(value)` gives the units of each labelled axis of a value of the tape (`Sizes.axes`). Who
    knows that only a plain number differed asks `number_rules` alone.
    """
    return size_rules(op, tape, axes_of) or number_rules(op)


def size_rules(op: Op, tape: Tape, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """Rules for numbers in the call that say how long an axis is, or where it is cut."""
    if op.call is None:
        return None
    family = FAMILIES.get(op.call.function)
    if family is None:
        return None
    return tuple(family(Site(op, op.call, tape, axes_of))) or None


def firm_rules(op: Op, tape: Tape, axes_of: AxesOf) -> tuple[PatchRule, ...] | None:
    """Rules for numbers in the call that say how long a labelled axis is which nothing can shrink.

    Each stays what was recorded: forward may have computed it from something that does shrink, the
    dims of a head from the width, say. For a call that trips although `size_rules` were followed.
    """
    family = FAMILIES.get(op.call.function) if op.call is not None else None
    if op.call is None or family not in SHAPED:
        return None
    return tuple(family(Site(op, op.call, tape, axes_of, firm=True))) or None


def number_rules(op: Op) -> tuple[PatchRule, ...] | None:
    """Rules for numbers that the operator computes with: each stays what was recorded."""
    call = op.call
    if call is None or (call.function in FAMILIES and call.function not in _SCALARS):
        return None
    if call.function == _ATTENTION:
        return _attention(call)
    if not op.is_pointwise and call.function not in _SCALARS:
        return None
    given = [(path, value) for path, value in _plain_numbers(call) if not isinstance(value, bool)]
    used = numbers_of(op)
    chosen = [(path, value) for path, value in given if value in used] or given
    return tuple(patch_rule(call, path, value, (), fixed=value) for path, value in chosen) or None


_ATTENTION = "torch.nn.functional.scaled_dot_product_attention"


def _attention(call: Call) -> tuple[PatchRule, ...] | None:
    scale = call.kwargs.get("scale")
    query = argument(call, 0, "query", None)
    if scale is None and isinstance(query, Held):
        # As torch computes it, to the last bit.
        return (patch_rule(call, "scale", None, (), fixed=1.0 / math.sqrt(query.shape[-1])),)
    return (patch_rule(call, "scale", scale, (), fixed=scale),) if isinstance(scale, (int, float)) else None


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
