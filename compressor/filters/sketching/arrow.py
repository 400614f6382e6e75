"""Sketches as an Arrow table, and as a Parquet file."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

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
from compressor.filters.store.layer import COLUMNS, Layer

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
    for name, values, kind in _columns(library, setting, sketches):
        table = table.append_column(_PREFIX + name, library.array(values, type=kind))
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
    layers, sketches = [], []
    for row in table.to_pylist():
        sketch = {name[len(_PREFIX) :]: row.pop(name) for name in list(row) if name.startswith(_PREFIX)}
        layers.append(_layer(row))
        sketches.append(_sketch(setting, sketch))
    skipped = [(_layer(row), reason) for row, reason in said["skipped"]]
    return setting, tuple(layers), tuple(sketches), skipped


def write(table: pa.Table, path: Path) -> None:
    """Write a Parquet file aside, then move it to its place."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _library("pyarrow.parquet").write_table(table, draft, compression="zstd", write_page_checksum=True)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:  # pyarrow's are, too
        with suppress(OSError):
            draft.unlink()
        raise FileError(f"{path}: sketches cannot be written ({type(error).__name__}: {error})") from error


def read(path: Path) -> pa.Table:
    """The table of a Parquet file, its checksums verified."""
    try:
        return _library("pyarrow.parquet").read_table(
            path, page_checksum_verification=True, use_threads=False
        )
    except Exception as error:  # pyarrow raises OSError and errors of its own
        raise FileError(
            f"{path}: no sketches can be read ({type(error).__name__}: {error}); the file is missing, cut "
            "short or "
            "was changed: sketch again"
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


def _columns(library: ModuleType, setting: SketchSetting, sketches: Sequence[Sketch]) -> Any:
    whole, number, width = library.int64(), library.float64(), setting.width
    for name in _COUNTERS:
        yield name, [getattr(sketch, name) for sketch in sketches], whole
    yield "peak", [sketch.peak for sketch in sketches], number
    for row, how in enumerate(Comparison):
        kind = library.list_(whole, len(setting.epsilons))
        yield f"sparse_{how.name.lower()}", [sketch.sparse_2E[row].tolist() for sketch in sketches], kind
    kind = library.list_(whole, width * setting.bins)
    yield "counts", [sketch.counts_KB.flatten().tolist() for sketch in sketches], kind
    for name in _POPULATIONS:
        moments = [getattr(sketch, name) for sketch in sketches]
        yield f"{name}_count", [one.count for one in moments], whole
        yield f"{name}_mean", [one.mean_K.tolist() for one in moments], library.list_(number, width)
        packed = [one.scatter_KK[_triangle(width)].tolist() for one in moments]
        yield f"{name}_scatter", packed, library.list_(number, width * (width + 1) // 2)


def _sketch(setting: SketchSetting, row: dict[str, Any]) -> Sketch:
    sparse = [row[f"sparse_{how.name.lower()}"] for how in Comparison]
    rest: dict[str, Any] = {name: row[name] for name in _COUNTERS}
    rest |= {name: _moments(setting.width, row, name) for name in _POPULATIONS}
    return Sketch(
        setting,
        peak=row["peak"],
        sparse_2E=torch.tensor(sparse, dtype=torch.int64),
        counts_KB=torch.tensor(row["counts"], dtype=torch.int64).reshape(setting.width, setting.bins),
        **rest,
    )


def _moments(width: int, row: dict[str, Any], name: str) -> Moments:
    scatter_KK = torch.zeros(width, width, dtype=torch.float64)
    upper = _triangle(width)
    scatter_KK[upper] = torch.tensor(row[f"{name}_scatter"], dtype=torch.float64)
    scatter_KK.T[upper] = scatter_KK[upper]
    return Moments(row[f"{name}_count"], torch.tensor(row[f"{name}_mean"], dtype=torch.float64), scatter_KK)


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
