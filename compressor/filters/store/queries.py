"""SQL over Arrow tables: one SELECT, with limited memory, that reads nothing else and changes nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from compressor.errors import InputError
from compressor.extras import imported

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["query"]


def query(
    tables: Mapping[str, pa.Table],
    sql: str,
    *,
    memory_limit: str = "1GB",
    temp_directory: str | os.PathLike[str] | None = None,
) -> pa.Table:
    """What a SELECT of DuckDB's SQL gives over the tables, by their names.

    The engine takes `memory_limit` at most and writes what does not fit to `temp_directory` (a temporary
    folder of the system). It reads no files and no variables, and its settings cannot be changed by the
    query. Sums of whole numbers, 128 bits wide in DuckDB, come as int64 where they fit.

    Raises InputError with the engine's message for SQL that it does not take, and for anything but one
    SELECT; MissingExtraError without duckdb.

    >>> import pyarrow as pa
    >>> layers = pa.table({"model": ["a", "b", "a"], "count": [8, 64, 32]})
    >>> by_model = "select model, sum(count) as kernels from layers group by 1 order by 1"
    >>> query({"layers": layers}, by_model).to_pylist()
    [{'model': 'a', 'kernels': 40}, {'model': 'b', 'kernels': 64}]
    """
    library = imported("duckdb", extra="filters", needed_for="queries of a store")
    with tempfile.TemporaryDirectory(prefix="compressor-duckdb-") as own:
        connection = _connected(library, memory_limit, os.fspath(temp_directory or own))
        try:
            for name, table in tables.items():
                connection.register(name, table)
            _check(library, connection, sql)
            return _narrowed(connection.sql(sql).to_arrow_table())
        except library.Error as error:
            raise InputError(
                f"the query cannot be answered: {error}\nThe query was: {sql}{_said(tables)}"
            ) from error
        finally:
            connection.close()


def _connected(library: Any, memory_limit: str, temp_directory: str) -> Any:
    options = {
        "memory_limit": memory_limit,
        "temp_directory": temp_directory,
        "python_enable_replacements": "false",  # a name in the query is a table, no variable of ours
        "autoinstall_known_extensions": "false",
    }
    try:
        connection = library.connect(":memory:", config=options)
    except library.Error as error:
        raise InputError(
            f"memory_limit={memory_limit!r}, temp_directory={temp_directory!r}: {error}"
        ) from error
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _check(library: Any, connection: Any, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != library.StatementType.SELECT:
        kinds = ", ".join(str(statement.type).rpartition(".")[2] for statement in statements) or "nothing"
        raise InputError(f"a query is one SELECT, got {kinds}: {sql}")


def _said(tables: Mapping[str, pa.Table]) -> str:
    return "".join(
        f"\nThe table {name} has the columns {', '.join(t.column_names)}" for name, t in tables.items()
    )


def _narrowed(table: pa.Table) -> pa.Table:
    """Whole numbers of 128 bits as int64, where they fit."""
    import pyarrow as pa

    for i, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type) and column.type.scale == 0:
            try:
                table = table.set_column(i, column.name, table.column(i).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue  # wider than int64: it stays as it is
    return table
