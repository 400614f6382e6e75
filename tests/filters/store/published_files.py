"""Files in the form of the published data base, written with h5py alone as pandas and PyTables write them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

__all__ = ["write_published"]


def write_published(
    file: Path,
    filters: np.ndarray,
    index: Mapping[str, Sequence[object]],
    columns: Mapping[str, Sequence[object]],
    *,
    array: str = "filters",
    pickles: Mapping[str, bytes] | None = None,
) -> Path:
    """`pickles` takes the place of what a column of objects is pickled as."""
    with h5py.File(file, "w") as handle:
        handle[array] = filters
        meta = handle.create_group("meta")
        meta.attrs.update(pandas_type=np.bytes_(b"frame"), axis1_variety=np.bytes_(b"multi"))
        meta.attrs.update(axis1_nlevels=len(index), nblocks=len(columns), ndim=2)
        _text(meta, "axis0", list(columns))
        for i, (name, values) in enumerate(index.items()):
            levels = sorted(set(values))
            meta[f"axis1_level{i}"] = np.array(levels)
            meta[f"axis1_level{i}"].attrs["name"] = np.bytes_(name.encode())
            meta[f"axis1_label{i}"] = np.array([levels.index(value) for value in values], np.int8)
        for i, (name, values) in enumerate(columns.items()):
            _text(meta, f"block{i}_items", [name])
            stored = np.array(values)
            if stored.dtype.kind == "f" or stored.dtype.kind == "i":
                meta[f"block{i}_values"] = stored[:, None]
            elif stored.dtype.kind == "b":
                _truths(meta, f"block{i}_values", stored[:, None])
            else:
                made = np.array([*values, None], dtype=object)[:-1, None]
                _object(meta, f"block{i}_values", (pickles or {}).get(name, pickle.dumps(made, 4)))
    return file


def _text(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    group[name] = np.array([text.encode() for text in texts])


def _object(group: h5py.Group, name: str, pickled: bytes) -> None:
    node = group.create_dataset(name, (1,), dtype=h5py.vlen_dtype(np.uint8))
    node[0] = np.frombuffer(pickled, np.uint8)
    node.attrs["PSEUDOATOM"] = np.bytes_(b"object")


def _truths(group: h5py.Group, name: str, values: np.ndarray) -> None:
    space = h5py.h5s.create_simple(values.shape)
    node = h5py.h5d.create(group.id, name.encode(), h5py.h5t.NATIVE_B8, space)
    node.write(h5py.h5s.ALL, h5py.h5s.ALL, values.astype(np.uint8), mtype=h5py.h5t.NATIVE_B8)
