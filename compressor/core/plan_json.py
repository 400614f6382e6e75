"""Plans as JSON text: a format version, a digest, and the parts of the plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from compressor.core.plan_parts import Cut, Patch, PatchValue, Signature, Size, SizeValue
from compressor.errors import FileError

__all__ = ["parsed", "written"]

_VERSION = 1
# Of plans with patches: a library that does not know them must not apply the rest.
_PATCHED_VERSION = 2

Parts = tuple[tuple[Cut, ...], tuple[Size, ...], Signature, str, tuple[Patch, ...]]


def written(
    cuts: Sequence[Cut],
    sizes: Sequence[Size],
    signature: Signature,
    note: str,
    patches: Sequence[Patch],
) -> str:
    """The parts of a plan as JSON text."""
    content: dict[str, Any] = {
        "model": signature.model,
        "tensors": [[name, list(shape)] for name, shape in signature.tensors],
        "cuts": [[cut.tensor, cut.axis, cut.size, list(cut.keep), cut.role, cut.blocks] for cut in cuts],
        "sizes": [[size.module, size.attribute, size.old, size.new] for size in sizes],
        "note": note,
    }
    if patches:
        content["patches"] = [[*patch.key, _number(patch.old), _number(patch.new)] for patch in patches]
    version = _PATCHED_VERSION if patches else _VERSION
    head = {"format": "compressor-plan", "version": version, "digest": _digest(content)}
    return json.dumps({**head, **content})


def parsed(text: str) -> Parts:
    """The parts of the plan in a text that `written` made, in its order.

    Raises FileError for anything else, and PlanError for parts that contradict themselves.
    """
    try:
        data = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise FileError(f"the plan is not complete JSON (truncated?): {error}") from error
    if not isinstance(data, dict) or data.get("format") != "compressor-plan":
        raise FileError("the text is not a plan: its 'format' is not 'compressor-plan'")
    if data.get("version") not in (_VERSION, _PATCHED_VERSION):
        raise FileError(
            f"the plan has format version {data.get('version')!r}, this library reads {_VERSION} and "
            f"{_PATCHED_VERSION}; use the library version that wrote it, or plan again"
        )
    content = {k: v for k, v in data.items() if k not in ("format", "version", "digest")}
    if data.get("digest") != _digest(content):
        raise FileError("the plan was changed after it was written: its digest does not match")
    try:
        return _parts(content)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise FileError(f"the plan lacks a field or has one of the wrong kind: {error!r}") from error


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _parts(content: Mapping[str, Any]) -> Parts:
    tensors = tuple((str(name), tuple(map(int, shape))) for name, shape in content["tensors"])
    cuts = tuple(
        Cut(str(tensor), int(axis), int(size), tuple(map(int, keep)), role, int(blocks))
        for tensor, axis, size, keep, role, blocks in content["cuts"]
    )
    sizes = tuple(
        Size(str(module), str(attribute), _size_value(old), _size_value(new))
        for module, attribute, old, new in content["sizes"]
    )
    patches = tuple(
        Patch(str(module), str(function), int(call), str(argument), _patch_value(old), _patch_value(new))
        for module, function, call, argument, old, new in content.get("patches", ())
    )
    return cuts, sizes, Signature(str(content["model"]), tensors), str(content["note"]), patches


def _size_value(value: int | Sequence[int]) -> SizeValue:
    return value if isinstance(value, int) else tuple(map(int, value))


def _number(value: PatchValue) -> int | float | str | list[int] | None:
    """The value as JSON has it; a fraction is a text."""
    if isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return list(value) if isinstance(value, tuple) else value


def _patch_value(value: float | str | Sequence[int] | None) -> PatchValue:
    if isinstance(value, str):
        # not Fraction(value): it takes 1e999999999, too, and makes a number of a billion digits
        numerator, _, denominator = value.partition("/")
        return Fraction(int(numerator), int(denominator))
    return value if value is None or isinstance(value, (int, float)) else tuple(map(int, value))
