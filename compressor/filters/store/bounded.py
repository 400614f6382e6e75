"""A whole Parquet table in memory, refused where it would take far more of it than the file has bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_bounded"]

_FREELY, _TIMES = 1 << 28, 100
_BYTES = {"BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE"}


def read_bounded(path: Path, parquet: ModuleType) -> pa.Table:
    """The table of a file, checksums verified; ValueError where it is over 256 MiB and 100 times the file.

    A value that is the same in every row takes no room in a file, a text of megabytes too. Texts are read as
    numbers of a dictionary first. What pyarrow raises for a damaged file is raised as it is.
    """
    most = max(_FREELY, _TIMES * path.stat().st_size)
    with parquet.ParquetFile(path) as file:
        schema, columns = file.schema_arrow, list(_columns(file.metadata))
    texts = sorted({column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"})
    for column in columns:
        known = column.physical_type in _BYTES or column.path_in_schema in schema.names
        if not known or column.physical_type == "FIXED_LEN_BYTE_ARRAY":
            raise ValueError(f"its column {column.path_in_schema!r} is of a kind that is never written")
    _require(
        max(8 * sum(c.num_values for c in columns), sum(c.total_uncompressed_size for c in columns)), most
    )
    table = parquet.read_table(
        path, read_dictionary=texts, page_checksum_verification=True, use_threads=False
    )
    _require(sum(_bytes(table[name]) for name in texts), most)
    return table.cast(schema)


def _columns(said: Any) -> Iterator[Any]:
    """What the end of a file says of each column in each of its row groups."""
    for group in range(said.num_row_groups):
        for number in range(said.num_columns):
            yield said.row_group(group).column(number)


def _require(count: int, most: int) -> None:
    if count > most:
        raise ValueError(
            f"it takes {count:,} bytes of memory, at most {most:,} are read from a file of its size"
        )


def _bytes(texts: Any) -> int:
    """An upper bound of what texts take, which are numbers of dictionaries here."""
    lengths = (len(text or "") for chunk in texts.chunks for text in chunk.dictionary.to_pylist())
    return len(texts) * max(lengths, default=0)
