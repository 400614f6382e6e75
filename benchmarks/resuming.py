"""Runs that are kept one by one: the same command goes on where an earlier one stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from benchmarks import results
from benchmarks.results import Table

__all__ = ["Row", "go_on", "kept", "require_alike", "show"]

Row = dict[str, Any]
Rows = TypeVar("Rows")
Key = TypeVar("Key")


def kept(kind: str, wanted: Mapping[str, Any], *, under: str = "schedule") -> list[Row]:
    """The rows of earlier runs; they count only if what they hold `under` this name is `wanted`, too.

    SystemExit where it is not: runs that were made otherwise are no part of the same table.
    """
    earlier = results.read(kind)
    rows: list[Row] = [] if earlier is None else earlier["rows"]
    require_alike(kind, (row[under] for row in rows), wanted)
    return rows


def require_alike(kind: str, found: Iterable[object], wanted: Mapping[str, Any]) -> None:
    """SystemExit where one of the settings that were found is not what is asked for."""
    for settings in found:
        if settings != wanted:
            raise SystemExit(
                f"benchmarks/results/{kind}.json holds runs with {settings}, now {dict(wanted)} is asked "
                "for: move the file away first, or use the same options"
            )


def go_on(
    done: int,
    todo: Sequence[Key],
    run: Callable[[Key], Row],
    add: Callable[[Row], object],
    line: Callable[[Row], str],
) -> bool:
    """Make the runs that are left; `add` keeps the row of each at once, `line` says how it went.

    False where the keyboard interrupts: what was done is kept.
    """
    print(f"{done} runs are done, {len(todo)} to go", flush=True)
    try:
        for number, key in enumerate(todo, start=1):
            start = time.process_time()
            row = run(key)
            add(row)
            spent = time.process_time() - start
            print(f"[{number}/{len(todo)}] {line(row)}  {spent:.0f} CPU s", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here")
        return False
    return True


def show(kind: str, facts: Mapping[str, Any], rows: Rows, tables: Callable[[Rows], Sequence[Table]]) -> None:
    """Print the tables and write them anew: what they look like may have changed since the rows were made."""
    if not rows:
        return
    for table in tables(rows):
        print(f"\n{table.text()}")
    print(f"\nwritten to {results.save(kind, facts, rows, tables(rows))}")
