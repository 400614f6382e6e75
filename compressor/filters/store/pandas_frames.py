"""A table that pandas wrote to HDF5 in its fixed format, read without pandas and without running pickles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.errors import FileError
from compressor.filters.store.layer import Plain
from compressor.filters.store.plain_pickles import plain_array, plain_value

__all__ = ["Frame", "read_frame"]


@dataclass(frozen=True, repr=False)
class Frame:
    """Columns of plain values of one length, those of the index first.

    What is missing is None. `levels` are the names of the index.
    """

    columns: dict[str, list[Plain]]
    levels: tuple[str, ...]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __repr__(self) -> str:
        return f"Frame({len(self)} rows of {len(self.columns)} columns, index {', '.join(self.levels)})"


def read_frame(group: Any, named: str) -> Frame:
    """The table in an HDF5 group: `axis0` the columns, `axis1` the rows, `block*` the values by their kind.

    Raises FileError where `named` is no such table, holds objects other than strings, numbers, truth values
    and None, or has columns or rows missing.
    """
    kind = _text(group.attrs.get("pandas_type"))
    if kind != "frame":
        raise FileError(
            f"{named}: is no table of pandas in its fixed format (pandas_type {kind!r}); write it with "
            "frame.to_hdf(path, key=..., format='fixed')"
        )
    try:
        names = [str(name) for name in _values(group["axis0"], f"{named}/axis0")]
        index = dict(_index(group, named))
        blocks = dict(_blocks(group, named))
        columns = {**index, **{name: blocks[name] for name in names}}
    except (KeyError, ValueError, IndexError, OSError, RuntimeError) as error:
        raise FileError(f"{named}: parts of the table are missing or damaged ({error})") from error
    lengths = {name: len(values) for name, values in columns.items()}
    if len(columns) != len(index) + len(names) or len(set(lengths.values())) > 1:
        raise FileError(f"{named}: its columns are not of one length, or share a name: {lengths}")
    return Frame(columns, tuple(index))


def _index(group: Any, named: str) -> Iterator[tuple[str, list[Plain]]]:
    """The levels of the rows' index, or none where the rows are only counted."""
    if _text(group.attrs["axis1_variety"]) != "multi":
        return
    for i in range(int(group.attrs["axis1_nlevels"])):
        level = group[f"axis1_level{i}"]
        values = _values(level, f"{named}/axis1_level{i}")
        codes = group[f"axis1_label{i}"][()]
        if codes.size and not -1 <= codes.min() <= codes.max() < max(len(values), 1):
            raise ValueError(f"axis1_label{i} points outside of its level")
        yield (
            _text(level.attrs["name"]) or f"level{i}",
            [None if c < 0 else values[c] for c in codes.tolist()],
        )


def _blocks(group: Any, named: str) -> Iterator[tuple[str, list[Plain]]]:
    for i in range(int(group.attrs["nblocks"])):
        where = f"{named}/block{i}_values"
        names = [str(name) for name in _values(group[f"block{i}_items"], f"{named}/block{i}_items")]
        node = group[f"block{i}_values"]
        table = (
            np.array(_values(node, where), dtype=object) if node.dtype != object else _objects(node, where)
        )
        if table.ndim == 1:
            table = table[:, None]
        if table.ndim != 2 or table.shape[1] != len(names):
            raise ValueError(f"block {i} holds {list(table.shape)} values of {len(names)} columns")
        yield from zip(names, table.T.tolist(), strict=True)


def _values(node: Any, named: str) -> list[Any]:
    """The values of an array of numbers, truth values or text."""
    values = _objects(node, named) if node.dtype == object else np.asarray(node[()])
    if values.dtype.kind == "S":
        texts = [value.decode("utf-8") for value in values.ravel().tolist()]
        values = np.array([*texts, None], dtype=object)[:-1].reshape(values.shape)
    elif _is_truth(node):
        values = values.astype(bool)
    elif values.dtype.kind == "f":
        known = np.isfinite(values)
        values = values.astype(object)
        values[~known] = None
    elif values.dtype.kind not in "iubO":
        raise ValueError(f"{named} is of the kind {values.dtype}")
    listed: list[Any] = values.tolist()
    return listed


def _objects(node: Any, named: str) -> Any:
    """The one pickle that pandas keeps a block of objects in."""
    if _text(node.attrs.get("PSEUDOATOM")) != "object" or node.shape != (1,):
        raise ValueError(f"{named} holds objects that are no single array")
    return plain_array(np.asarray(node[0], dtype=np.uint8).tobytes(), named)


def _is_truth(node: Any) -> bool:
    """Whether PyTables wrote truth values: HDF5's bit fields, which h5py reads as bytes."""
    from h5py import h5t

    return bool(node.id.get_type().get_class() == h5t.BITFIELD)


def _text(value: Any) -> str | None:
    """An attribute's text; PyTables pickles what is neither text nor a number, None for one."""
    if not isinstance(value, bytes):
        return None if value is None else str(value)
    if value.endswith(b".") and value[:1] in b"NV\x80":
        return str(plain_value(value, "an attribute") or "") or None
    return value.decode("utf-8")
