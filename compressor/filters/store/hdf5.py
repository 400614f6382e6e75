"""The models of CNN Filter DB's HDF5 file, their kernels read when they are written elsewhere."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy.typing as npt

from compressor.errors import FileError
from compressor.extras import imported
from compressor.filters.store.layer import COLUMNS, Plain
from compressor.filters.store.naming import listed
from compressor.filters.store.pandas_frames import Frame, read_frame
from compressor.filters.store.streamed import StreamedLayer

__all__ = ["FilterDb", "PublishedModel", "open_filter_db"]

_ARRAYS, _META, _IDS = ("filters", "filter"), "meta", "filter_ids"
_RANGE = re.compile(r"(\d+):(\d+)")
_AT_ONCE = 1 << 18  # kernels, 19 MB of float64


@dataclass(frozen=True)
class PublishedModel:
    """A model of the file, and its layers in the order of their rows."""

    name: str
    layers: tuple[StreamedLayer, ...]


@dataclass(frozen=True, repr=False)
class FilterDb:
    """The models of an open file; `loose` counts the kernels that no row of the meta data speaks of."""

    path: Path
    models: tuple[PublishedModel, ...]
    kernels: int
    loose: int

    def __repr__(self) -> str:
        return f"FilterDb({self.path.name}: {len(self.models)} models, {self.kernels} kernels)"


@contextmanager
def open_filter_db(path: str | os.PathLike[str], *, unify_segmentation: bool = False) -> Iterator[FilterDb]:
    """The models of a file, whose kernels can be read while the context lasts.

    The array `filters` (or `filter`) is [N, 3, 3] or [N, 9] of any float; `meta` a table with the column
    `filter_ids`, "first:last" with the last included, and with `model`, which name the rows of a layer and
    its model. A release with `in_channels` and `out_channels` gives layers with known filters, the first one
    (1.0.0) kernels only. All other columns are meta data, under their names. A column of several kinds of
    values is taken as text. Names that several models have are told apart by their ids. Objects in `meta`
    are pickled there; they are read as plain data and never run. `groups` and `folded` are not in the file.

    With `unify_segmentation` every `Task` that contains "Segmentation" is that, as in the authors' own
    analysis.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331; data at
    doi:10.5281/zenodo.6371680.*

    Raises FileError for a file that is missing, truncated, or not of this form: ids that overlap, end before
    they start, or lie outside of the array; MissingExtraError without h5py.
    """
    library = imported("h5py", extra="filters", needed_for="reading HDF5 files")
    file = Path(path)
    if not file.is_file():
        raise FileError(f"{file}: no such HDF5 file")
    try:
        handle = library.File(file, "r")
    except OSError as error:
        raise FileError(
            f"{file}: cannot be read as an HDF5 file ({error}); it may be truncated or of another format: "
            "fetch it again, and unpack it where its name ends in .xz"
        ) from error
    with handle:
        try:
            array, frame = _array(handle, file), _frame(handle, file)
            database = _database(file, array, frame, unify_segmentation=unify_segmentation)
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise FileError(f"{file}: is a damaged HDF5 file ({error}); fetch it again") from error
        yield database


def _array(handle: Any, file: Path) -> Any:
    name = next((name for name in _ARRAYS if name in handle), None)
    if name is None:
        raise FileError(f"{file}: lacks the array {_ARRAYS[0]}; it holds {', '.join(handle) or 'nothing'}")
    array = handle[name]
    shape = getattr(array, "shape", None)
    if shape is None or tuple(shape[1:]) not in ((3, 3), (9,)) or array.dtype.kind != "f":
        found = "a group" if shape is None else f"{array.dtype} {list(shape)}"
        raise FileError(f"{file}: {name} is a floating [N, 3, 3] or [N, 9], got {found}")
    return array


def _frame(handle: Any, file: Path) -> Frame:
    if _META not in handle:
        raise FileError(f"{file}: lacks the table {_META}; it holds {', '.join(handle)}")
    return read_frame(handle[_META], f"{file}: {_META}")


def _database(file: Path, array: Any, frame: Frame, *, unify_segmentation: bool) -> FilterDb:
    missing = [name for name in (_IDS, "model") if name not in frame.columns]
    if missing:
        raise FileError(f"{file}: {_META} lacks {', '.join(missing)}; it holds {', '.join(frame.columns)}")
    ranges = _ranges(file, frame.columns[_IDS], len(array))
    columns = {name: _one_kind(values) for name, values in frame.columns.items()}
    if unify_segmentation and "Task" in columns:
        columns["Task"] = [_unified(task) for task in columns["Task"]]
    names = _names(columns)
    models: dict[str, list[StreamedLayer]] = {}
    for row, (first, end) in enumerate(ranges):
        said = {name: values[row] for name, values in columns.items()}
        models.setdefault(names[row], []).append(
            _layer(array, first, end, said, len(models.get(names[row], ())))
        )
    found = tuple(PublishedModel(name, tuple(layers)) for name, layers in models.items())
    return FilterDb(file, found, len(array), len(array) - sum(end - first for first, end in ranges))


def _ranges(file: Path, ids: Sequence[Plain], length: int) -> list[tuple[int, int]]:
    """First row and the one behind the last of every layer; FileError where they are not apart and inside."""
    faults, ranges = [], []
    for row, text in enumerate(ids):
        match = _RANGE.fullmatch(str(text))
        first, last = map(int, match.groups()) if match else (0, -1)
        if not first <= last < length:
            faults.append(f"row {row}: {text!r} is no first:last within 0:{length - 1}")
        ranges.append((first, last + 1))
    order = sorted(range(len(ranges)), key=lambda row: ranges[row])
    for before, row in pairwise(order):
        if ranges[row][0] < ranges[before][1] and not faults:
            faults.append(f"row {row}: {ids[row]!r} overlaps with {ids[before]!r} of row {before}")
    if faults:
        raise FileError(f"{file}: {len(faults)} {_IDS} are wrong; fetch the file again:\n{listed(faults)}")
    return ranges


def _one_kind(values: Sequence[Plain]) -> list[Plain]:
    """The values, as text where they are of kinds that no column holds together."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2 or kinds == {int, float}:
        return list(values)
    return [None if value is None else str(value) for value in values]


def _unified(task: Plain) -> Plain:
    return "Segmentation" if isinstance(task, str) and "Segmentation" in task else task


def _names(columns: Mapping[str, Sequence[Plain]]) -> list[str]:
    """For each row the name of its model, with its id where other models have the same."""
    names = [str(name) for name in columns["model"]]
    if "model_id" not in columns:
        return names
    pairs = list(zip(names, columns["model_id"], strict=True))
    ids_of = Counter(name for name, _ in set(pairs))
    return [name if ids_of[name] == 1 else f"{name} ({model_id})" for name, model_id in pairs]


def _layer(array: Any, first: int, end: int, said: Mapping[str, Plain], number: int) -> StreamedLayer:
    out, into = (_whole(said, name) for name in ("out_channels", "in_channels"))
    known = out is not None and into is not None
    layer_id, norm = _whole(said, "layer_id"), said.get("conv_depth_norm")
    return StreamedLayer(
        name=f"layer {number}",
        count=end - first,
        parts=_Rows(array, first, end),
        out_channels=out if known else None,
        in_channels=into if known else None,
        layer_id=number if layer_id is None else layer_id,
        conv_depth=_whole(said, "conv_depth"),
        conv_depth_norm=None if norm is None else float(norm),
        metadata={name: value for name, value in said.items() if name not in COLUMNS},
    )


def _whole(said: Mapping[str, Plain], name: str) -> int | None:
    value = said.get(name)
    if value is None:
        return None
    if isinstance(value, str) or value != int(value):
        raise FileError(f"{_META}: {name} is a whole number, got {value!r} in the row of {said[_IDS]}")
    return int(value)


@dataclass(frozen=True)
class _Rows:
    """Rows of an array in a file, read in parts of bounded size whenever they are asked for."""

    array: Any
    first: int
    end: int

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for start in range(self.first, self.end, _AT_ONCE):
            stop = min(start + _AT_ONCE, self.end)
            try:
                part = self.array[start:stop]
            except (OSError, RuntimeError) as error:
                raise FileError(
                    f"{self.array.file.filename}: rows {start}:{stop} cannot be read ({error})"
                ) from error
            yield part.reshape(len(part), 9)
