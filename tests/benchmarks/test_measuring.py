"""Rows that are measured in steps: what is done is not done again, and what is missing is tried again."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from benchmarks.measuring import Row, complete, missing_of
from benchmarks.zoo import Missing


class _Bench:
    """Counts what is made and measured; `broken` measures raise, `absent` ones lack something."""

    def __init__(
        self, *, broken: tuple[str, ...] = (), absent: tuple[str, ...] = (), digest: str = "d"
    ) -> None:
        self.did: list[str] = []
        self.saved: list[list[Row]] = []
        self.broken, self.absent, self.digest = broken, absent, digest

    def run(self, rows: list[Row], name: str = "net", *, fresh: bool = False) -> list[Row]:
        measures = {m: lambda subject, m=m: self._measure(m, subject) for m in ("time", "memory")}
        return complete(rows, name, self._make, measures, self._save, fresh=fresh)

    def _make(self) -> tuple[Row, str]:
        self.did.append("made")
        return {"network": "net", "digest": self.digest}, "subject"

    def _measure(self, name: str, subject: str) -> int:
        assert subject == "subject"
        if name in self.broken:
            raise ZeroDivisionError(name)
        if name in self.absent:
            raise Missing(f"no {name}")
        self.did.append(name)
        return len(name)

    def _save(self, rows: list[Row]) -> None:
        self.saved.append(copy.deepcopy(rows))


def test_every_measure_is_saved_when_it_is_done() -> None:
    bench = _Bench(broken=("memory",))
    with pytest.raises(ZeroDivisionError):
        bench.run([])
    assert [row["measured"] for (row,) in bench.saved] == [{"time": 4}]


def test_an_interrupted_row_goes_on_where_it_stopped() -> None:
    first = _Bench(broken=("memory",))
    with pytest.raises(ZeroDivisionError):
        first.run([])
    second = _Bench()
    (row,) = second.run(first.saved[-1])
    assert second.did == ["made", "memory"] and row["measured"] == {"time": 4, "memory": 6}
    third = _Bench()
    third.run([row])
    assert third.did == []


def test_what_was_skipped_says_why_and_is_tried_again() -> None:
    (row,) = _Bench(absent=("memory",)).run([])
    assert row["skipped"] == {"memory": "no memory"} and missing_of(row, {"time": 0, "memory": 0}) == [
        "memory"
    ]
    (again,) = _Bench().run([row])
    assert again["skipped"] == {} and again["measured"]["memory"] == 6


def test_measurements_of_other_files_do_not_count() -> None:
    (row,) = _Bench(absent=("memory",), digest="old").run([])
    bench = _Bench(digest="new")
    (again,) = bench.run([row])
    assert bench.did == ["made", "time", "memory"] and again["digest"] == "new"


def test_fresh_measures_all_anew_and_other_rows_stay() -> None:
    other: dict[str, Any] = {"network": "other", "measured": {}, "skipped": {}}
    rows = _Bench().run([other])
    bench = _Bench()
    rows = bench.run(rows, fresh=True)
    assert bench.did == ["made", "time", "memory"]
    assert [row["network"] for row in rows] == ["other", "net"]
