"""Sketches as an Arrow table, and as a Parquet file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.errors import FileError
from compressor.extras import imported
from compressor.filters.basis import Basis
from compressor.filters.moments import Moments
from compressor.filters.quality.sparsity import Comparison
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.store.arrow import layer_table
from compressor.filters.store.bounded import read_bounded
from compressor.filters.store.layer import COLUMNS, Layer
from compressor.whole_files import drafted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read", "read_table", "setting_from", "setting_to", "table_of", "write"]

FORMAT, VERSION = "compressor filter sketches", 1
_POPULATIONS = ("raw", "clean", "scaled", "scaled_clean")
_COUNTERS = ("layers", "zeros", "filters", "dead_filters", "channels", "dead_channels")
_PREFIX = "sketch_"


def table_of(
    setting: SketchSetting,
    layers: Sequence[Layer],
    sketches: Sequence[Sketch],
    skipped: Sequence[tuple[Layer, str]],
) -> pa.Table:
    """A row for each layer: the columns of `Layer`, then the sketch's; the setting is in the schema."""
    library = _library("pyarrow")
    table = layer_table(layers)
    for name, values in _columns(setting, sketches):
        table = table.append_column(_PREFIX + name, _array(library, values))
    said = {
        "format": FORMAT,
        "version": VERSION,
        "setting": setting_to(setting),
        "skipped": [[_plain(layer), reason] for layer, reason in skipped],
    }
    return table.replace_schema_metadata({FORMAT: json.dumps(said)})


def read_table(
    table: pa.Table,
) -> tuple[SketchSetting, tuple[Layer, ...], tuple[Sketch, ...], list[tuple[Layer, str]]]:
    """SketchSetting, layers, sketches and what was skipped; raises FileError for another table."""
    said = json.loads((table.schema.metadata or {}).get(FORMAT.encode(), b"{}"))
    if said.get("version") != VERSION:
        raise FileError(
            f"expected a table of sketches of version {VERSION}, got "
            f"{'version ' + str(said['version']) if 'version' in said else 'another table'}; Sketches.write "
            "makes them"
        )
    setting = setting_from(said["setting"])
    library = _library("pyarrow")
    own = [name for name in table.column_names if name.startswith(_PREFIX)]
    columns = (
        {name.removeprefix(_PREFIX): _values(library, table[name]) for name in own} if len(table) else {}
    )
    sketches = _sketches(setting, columns, len(table))
    layers = map(_layer, table.drop_columns(own).to_pylist())
    skipped = [(_layer(row), reason) for row, reason in said["skipped"]]
    return setting, tuple(layers), tuple(sketches), skipped


def write(table: pa.Table, path: Path) -> None:
    """Write a Parquet file aside, then move it to its place."""
    with drafted(path, what=f"the sketches {path}") as draft:  # errors of pyarrow's are OSErrors, too
        _library("pyarrow.parquet").write_table(table, draft, compression="zstd", write_page_checksum=True)


def read(path: Path) -> pa.Table:
    """The table of a Parquet file, its checksums verified."""
    library = _library("pyarrow.parquet")
    try:
        return read_bounded(path, library)
    except Exception as error:  # pyarrow raises OSError and errors of its own
        raise FileError(
            f"{path}: no sketches can be read ({type(error).__name__}: {error}); the file is missing, cut "
            "short or was changed: sketch again"
        ) from error


def setting_to(setting: SketchSetting) -> dict[str, Any]:
    """The setting as plain values; floats keep every bit."""
    return {
        "basis": setting.basis.to_plain(),
        "bins": setting.bins,
        "limit": setting.limit,
        "epsilons": list(setting.epsilons),
        "epsilon": setting.epsilon,
        "comparison": setting.comparison.value,
    }


def setting_from(said: dict[str, Any]) -> SketchSetting:
    """The setting of such values."""
    values = dict(said)
    values["basis"] = Basis.from_plain(values["basis"])
    values["epsilons"] = tuple(values["epsilons"])
    values["comparison"] = Comparison(values["comparison"])
    return SketchSetting(**values)


def _columns(
    setting: SketchSetting, sketches: Sequence[Sketch]
) -> Iterator[tuple[str, npt.NDArray[np.int64] | npt.NDArray[np.float64]]]:
    """Numbers [L] and rows of numbers [L, W] of L sketches, by name."""
    for name in _COUNTERS:
        yield name, np.array([getattr(sketch, name) for sketch in sketches], dtype=np.int64)
    yield "peak", np.array([sketch.peak for sketch in sketches], dtype=np.float64)
    for row, how in enumerate(Comparison):
        kinds = len(setting.epsilons)
        yield _sparse(how), _stacked([sketch.sparse_2E[row] for sketch in sketches], kinds, np.int64)
    counts = [sketch.counts_KB.flatten() for sketch in sketches]
    yield "counts", _stacked(counts, setting.width * setting.bins, np.int64)
    upper = _triangle(setting.width)
    for name in _POPULATIONS:
        moments = [getattr(sketch, name) for sketch in sketches]
        yield f"{name}_count", np.array([one.count for one in moments], dtype=np.int64)
        yield f"{name}_mean", _stacked([one.mean_K for one in moments], setting.width, np.float64)
        packed = [one.scatter_KK[upper] for one in moments]
        yield f"{name}_scatter", _stacked(packed, len(upper[0]), np.float64)


def _stacked(rows: Sequence[Tensor], width: int, kind: type[np.generic]) -> npt.NDArray[Any]:
    found = np.empty((len(rows), width), dtype=kind)
    for place, row in enumerate(rows):
        found[place] = row.numpy()
    return found


def _array(library: ModuleType, values: npt.NDArray[Any]) -> Any:
    """Numbers [L] as they are, [L, W] as lists of W; without a Python object for each."""
    if values.ndim == 1:
        return library.array(values)
    return library.FixedSizeListArray.from_arrays(library.array(values.ravel()), values.shape[1])


def _values(library: ModuleType, column: Any) -> npt.NDArray[Any]:
    """The inverse of `_array`."""
    if not library.types.is_fixed_size_list(column.type):
        found: npt.NDArray[Any] = column.to_numpy()
        return found
    parts = [chunk.flatten().to_numpy() for chunk in column.chunks]
    return np.concatenate(parts).reshape(-1, column.type.list_size)


def _sketches(
    setting: SketchSetting, columns: Mapping[str, npt.NDArray[Any]], count: int
) -> Iterator[Sketch]:
    upper = _triangle(setting.width)
    for place in range(count):
        rest: dict[str, Any] = {name: int(columns[name][place]) for name in _COUNTERS}
        for name in _POPULATIONS:
            scatter_KK = torch.zeros(setting.width, setting.width, dtype=torch.float64)
            scatter_KK[upper] = torch.from_numpy(columns[f"{name}_scatter"][place].copy())
            scatter_KK.T[upper] = scatter_KK[upper]
            mean_K = torch.from_numpy(columns[f"{name}_mean"][place].copy())
            rest[name] = Moments(int(columns[f"{name}_count"][place]), mean_K, scatter_KK)
        counts_KB = columns["counts"][place].reshape(setting.width, setting.bins).copy()
        yield Sketch(
            setting,
            peak=float(columns["peak"][place]),
            sparse_2E=torch.from_numpy(np.stack([columns[_sparse(how)][place] for how in Comparison])),
            counts_KB=torch.from_numpy(counts_KB),
            **rest,
        )


def _sparse(how: Comparison) -> str:
    return f"sparse_{how.name.lower()}"


def _triangle(width: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.triu_indices(width, width)
    return rows, columns


def _plain(layer: Layer) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in COLUMNS} | dict(layer.metadata)


def _layer(row: dict[str, Any]) -> Layer:
    own = {name: row.pop(name) for name in COLUMNS}
    own["kernel_size"] = tuple(own["kernel_size"])
    return Layer(**own, metadata=MappingProxyType(row))


def _library(name: str) -> ModuleType:
    return imported(name, extra="filters", needed_for="a table of sketches")
