"""A user's meta data as columns: plain values, one kind for one name in a whole store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from compressor.errors import InputError
from compressor.filters.store.layer import COLUMNS, Layer

__all__ = ["kinds_of"]

_KINDS = {str: "str", bool: "bool", int: "int", float: "float", type(None): "none"}


def kinds_of(model: str, layers: Iterable[Layer], before: Mapping[str, str]) -> dict[str, str]:
    """The kind of each name in the meta data of a model's layers, given those of the models before.

    Whole numbers and others may share a column, None may stand in any. Raises InputError for other values,
    a name of two kinds, and names that differ from another column's by case alone, which SQL takes for one.

    >>> said = {"task": "Style", "year": 2021}
    >>> layer = Layer(key=0, model="net", layer_name="conv", count=1, metadata=said)
    >>> kinds_of("net", [layer], {"year": "float"})
    {'task': 'str', 'year': 'float'}
    """
    kinds: dict[str, str] = {}
    spelt = {name.lower(): name for name in (*COLUMNS, *before)}
    for layer in layers:
        for name, value in layer.metadata.items():
            _check_name(model, name, spelt, before)
            kind = _KINDS.get(type(value))
            if kind is None:
                raise InputError(
                    f"model {model!r}: meta data {name!r} is a {type(value).__name__}; a column takes str, "
                    "bool, int, float or None"
                )
            _check_value(model, name, value)
            known = kinds.get(name, before.get(name, "none"))
            kinds[name] = _common(model, name, kind, known)
            spelt[name.lower()] = name
    return kinds


def _check_name(model: str, name: object, spelt: Mapping[str, str], before: Mapping[str, str]) -> None:
    if not isinstance(name, str) or not name:
        raise InputError(f"model {model!r}: names of meta data are strings, got {name!r}")
    other = spelt.get(name.lower())
    if name in COLUMNS or (other is not None and other != name):
        raise InputError(
            f"model {model!r}: meta data {name!r} has the name of the column {other!r}, upper and lower case "
            "are one to SQL; choose another name"
        )


def _check_value(model: str, name: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        fault = "None says that a value is missing"
    elif isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        fault = "a column takes whole numbers of 64 bits; give it as text"
    else:
        return
    raise InputError(f"model {model!r}: meta data {name!r} is {value}; {fault}")


def _common(model: str, name: str, kind: str, known: str) -> str:
    if "none" in (kind, known) or kind == known:
        return known if kind == "none" else kind
    if {kind, known} == {"int", "float"}:
        return "float"
    raise InputError(
        f"model {model!r}: meta data {name!r} is {kind} here and {known} elsewhere in the store; a "
        "column has one kind"
    )
