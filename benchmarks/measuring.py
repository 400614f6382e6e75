"""Rows of one network each, measured in steps: each step is saved when it is done, and none is done twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from benchmarks.zoo import Missing

__all__ = ["Row", "complete", "missing_of"]

Row = dict[str, Any]
Subject = TypeVar("Subject")
_FOUND = ("measured", "skipped")


def complete(
    rows: Sequence[Row],
    name: str,
    make: Callable[[], tuple[Row, Subject]],
    measures: Mapping[str, Callable[[Subject], Any]],
    save: Callable[[list[Row]], object],
    *,
    key: str = "network",
    fresh: bool = False,
) -> list[Row]:
    """The rows with that of `name` measured in every way, each result handed to `save` at once.

    `make` gives the facts of the row, and what to measure: it is not called where nothing is missing. What an
    earlier run measured counts where the facts are the same, unless `fresh`. A measure that raises Missing is
    skipped, with the reason in the row, and tried again by the next run.
    """
    earlier = next((row for row in rows if row[key] == name), None)
    if earlier is not None and not missing_of(earlier, measures) and not fresh:
        print(f"{name}: done", flush=True)
        return [*rows]
    start = time.perf_counter()
    try:
        facts, subject = make()
    except Missing as missing:
        print(f"{name}: skipped: {missing}", flush=True)
        return [*rows]
    print(f"{name}: made: {time.perf_counter() - start:.0f} s", flush=True)
    same = earlier is not None and all(earlier.get(fact) == facts[fact] for fact in facts)
    row = earlier if earlier is not None and same and not fresh else {**facts, "measured": {}, "skipped": {}}
    rows = [row if other is earlier else other for other in rows] if earlier is not None else [*rows, row]
    for measure in missing_of(row, measures):
        start = time.perf_counter()
        try:
            row["measured"][measure] = measures[measure](subject)
        except Missing as missing:
            row["skipped"][measure] = str(missing)
            print(f"{name}: {measure}: skipped: {missing}", flush=True)
            continue
        row["skipped"].pop(measure, None)
        save([*rows])
        print(f"{name}: {measure}: {time.perf_counter() - start:.0f} s", flush=True)
    return [*rows]


def missing_of(row: Mapping[str, Any], measures: Mapping[str, object]) -> list[str]:
    """The measures that a row lacks; one that was skipped is tried again."""
    return [measure for measure in measures if measure not in row["measured"]]
