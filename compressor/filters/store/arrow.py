"""Kernels and layers as Arrow tables, and the Parquet files of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compressor.errors import FileError
from compressor.extras import imported
from compressor.filters.store.bounded import read_bounded
from compressor.filters.store.layer import COLUMNS, Layer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "KernelFile",
    "Rows",
    "layer_rows",
    "layer_table",
    "opened",
    "parquet",
    "rows_of",
    "rows_per_group",
    "write_layers",
]

Rows = npt.NDArray[np.floating[Any]]

_GROUP_BYTES = 1 << 25
_KEY = "layer"
_DTYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
}  # as Arrow names them


def arrow() -> ModuleType:
    """The library pyarrow; raises MissingExtraError without it."""
    return imported("pyarrow", extra="filters", needed_for="a store of filters")


def parquet() -> ModuleType:
    """Its module of Parquet files."""
    return imported("pyarrow.parquet", extra="filters", needed_for="a store of filters")


def rows_per_group(width: int, dtype: np.dtype[Any]) -> int:
    """How many kernels of `width` values a row group holds at most: 32 MiB of them.

    >>> rows_per_group(9, np.dtype("float32"))
    932067
    """
    return max(1, _GROUP_BYTES // (width * dtype.itemsize))


class KernelFile:
    """A Parquet file of kernels that is being written: columns f0, f1, ... and the key of the layer.

    Row groups hold at most `rows_per_group` kernels, all of one layer. Pages carry checksums; values are
    split into streams of bytes and compressed by zstd, which loses nothing.
    """

    def __init__(self, path: Path, width: int, dtype: np.dtype[Any]) -> None:
        library = arrow()
        names = [f"f{i}" for i in range(width)]
        kind = library.float64() if dtype == np.float64 else library.float32()
        self._at_once = rows_per_group(width, dtype)
        self.groups = 0
        """How many row groups are written."""
        self._schema = library.schema([(_KEY, library.int64()), *((name, kind) for name in names)])
        self._writer = parquet().ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=[_KEY],
            use_byte_stream_split=names,
            write_statistics=[_KEY],
            write_page_checksum=True,
        )

    def write(self, key: int, parts: Iterable[Rows]) -> tuple[int, float]:
        """Write the kernels [n, K] of a layer, in parts of any size; their count and largest |value|."""
        count, peak = 0, 0.0
        for rows in _regrouped(parts, self._at_once):
            count += len(rows)
            peak = max(peak, float(np.abs(rows).max()))
            self._write_group(key, rows)
        return count, peak

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()

    def _write_group(self, key: int, rows: Rows) -> None:
        library = arrow()
        columns = [np.full(len(rows), key, dtype=np.int64), *map(np.ascontiguousarray, rows.T)]
        arrays = [
            library.Array.from_buffers(kind, len(rows), [None, library.py_buffer(column)])
            for kind, column in zip(self._schema.types, columns, strict=True)
        ]
        table = library.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=len(rows))
        self.groups += 1


def opened(path: Path) -> Any:
    """The Parquet file, its checksums to be verified; raises FileError where it cannot be read."""
    library = parquet()
    try:
        return library.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except Exception as error:  # pyarrow raises OSError and errors of its own
        raise unreadable(path, error) from error


def rows_of(file: Any, path: Path, layer: Layer) -> Iterable[Rows]:
    """The kernels of a layer, [n, K] for each of its row groups; FileError where they are not as said."""
    count = 0
    for group in range(layer.row_group, layer.row_group + layer.row_groups):
        try:
            said = file.metadata.row_group(group).column(0).statistics
            if (said.min, said.max) != (layer.key, layer.key):
                raise ValueError(f"its row group {group} holds the layers {said.min} to {said.max}")
            _require_small(file.metadata.row_group(group), group)
            rows = _rows(file.read_row_group(group, use_threads=False))
        except Exception as error:
            raise unreadable(path, error, f"layer {layer.key} ({layer})") from error
        count += len(rows)
        yield rows
    if count != layer.count:
        raise FileError(
            f"{path}: holds {count} kernels of layer {layer.key} ({layer}), expected {layer.count}"
        )


def _require_small(said: Any, group: int) -> None:
    """Raise ValueError for a row group of more than the 32 MiB that are written: zeros pack to nothing."""
    most = rows_per_group(said.num_columns - 1, np.dtype(np.float32))
    if said.num_rows > most or said.total_byte_size > 4 * _GROUP_BYTES:
        raise ValueError(
            f"its row group {group} holds {said.num_rows} kernels in {said.total_byte_size:,} bytes, at most "
            f"{most} are written to one"
        )


def _rows(table: pa.Table) -> Rows:
    """The columns f0, f1, ... side by side; by their buffers, as pyarrow's way to NumPy imports pandas."""
    dtype = _DTYPES[str(table.schema.field(1).type)]
    rows: Rows = np.empty((table.num_rows, table.num_columns - 1), dtype)
    for i in range(rows.shape[1]):
        start = 0
        for chunk in table.column(i + 1).chunks:
            if chunk.null_count:
                raise ValueError(f"its column f{i} lacks {chunk.null_count} values")
            values = np.frombuffer(chunk.buffers()[1], dtype, count=chunk.offset + len(chunk))
            rows[start : start + len(chunk), i] = values[chunk.offset :]
            start += len(chunk)
    return rows


def unreadable(path: Path, error: Exception, what: str = "a part of a store") -> FileError:
    """The error for a Parquet file that cannot be read."""
    return FileError(
        f"{path}: {what} cannot be read ({type(error).__name__}: {error}); the file is truncated or was "
        "changed. verify_store(folder) names all such files; write their models again"
    )


def write_layers(path: Path, layers: Sequence[Layer]) -> None:
    """Write the table of the layers of one model."""
    parquet().write_table(layer_table(layers), path, compression="zstd", write_page_checksum=True)


def layer_table(layers: Sequence[Layer]) -> pa.Table:
    """The table of layers: own columns, then those of the meta data; null where a layer lacks a value."""
    library = arrow()
    names = dict.fromkeys(name for layer in layers for name in layer.metadata)
    own = [library.array([getattr(layer, name) for layer in layers], type=kind) for name, kind in _schema()]
    users = [library.array([layer.metadata.get(name) for layer in layers]) for name in names]
    return library.table([*own, *users], names=[*COLUMNS, *names])


def layer_rows(path: Path) -> list[Layer]:
    """The layers of a table in a file; raises FileError where it cannot be read."""
    library = parquet()
    try:
        return [_layer(row) for row in read_bounded(path, library).to_pylist()]
    except Exception as error:
        raise unreadable(path, error, "the table of layers") from error


def _layer(row: dict[str, Any]) -> Layer:
    own = {name: row.pop(name) for name in COLUMNS}
    own["kernel_size"] = tuple(own["kernel_size"])
    return Layer(**own, metadata=row)


def _schema() -> list[tuple[str, Any]]:
    library = arrow()
    whole, text, number, truth = library.int64(), library.string(), library.float64(), library.bool_()
    kinds = dict.fromkeys(COLUMNS, whole)
    kinds |= dict.fromkeys(("model", "layer_name", "source", "source_sha256"), text)
    kinds |= dict.fromkeys(("conv_depth_norm", "peak"), number)
    kinds |= dict.fromkeys(("transposed", "folded"), truth)
    kinds["kernel_size"] = library.list_(whole)
    return list(kinds.items())


def _regrouped(parts: Iterable[Rows], at_once: int) -> Iterable[Rows]:
    """The same rows in parts of exactly `at_once`, the last one excepted."""
    waiting: list[Rows] = []
    held = 0
    for part in parts:
        start = 0
        while start < len(part):
            taken = part[start : start + at_once - held]
            waiting.append(taken)
            held += len(taken)
            start += len(taken)
            if held == at_once:
                yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                waiting, held = [], 0
    if waiting:
        yield waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
