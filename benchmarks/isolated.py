"""Networks that are examined in processes of their own, with limits of time and memory."""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import results
from benchmarks.checking import empty_row
from benchmarks.zoo import Entry

__all__ = ["Examine", "Limits", "Row", "examined", "finished", "kept_rows"]

Row = dict[str, Any]
Examine = Callable[[Entry, Callable[[Row], None]], Row]
_SLICE_S = 0.1


@dataclass(frozen=True)
class Limits:
    """What a network may take, seconds by the clock or with `cpu` of the processor; how many run at once."""

    seconds: float
    memory_gb: float
    jobs: int = 1
    cpu: bool = False


def examined(
    name: str,
    entries: Sequence[Entry],
    examine: Examine,
    limits: Limits,
    *,
    facts: Mapping[str, Any],
    line: Callable[[Row], str],
    mark: Mapping[str, Any] | None = None,
) -> list[Row]:
    """The rows of the networks, each shown as `line` and kept in the results of this name when it is done.

    Rows of other networks stay where they are. `mark` is added to every row.
    """
    done = kept_rows(name)
    for number, row in enumerate(finished(entries, examine, limits), start=1):
        done[row["family"], row["network"]] = {**row, **(mark or {})}
        print(f"[{number}/{len(entries)}] {line(row)}", flush=True)
        content = {"context": facts, "rows": list(done.values())}
        results.write_json(results.FOLDER / f"{name}.json", content)
    return [done[entry.key] for entry in entries]


def kept_rows(name: str) -> dict[tuple[str, str], Row]:
    """What earlier runs kept under this name, by family and network."""
    content = results.read(name) or {"rows": []}
    return {(row["family"], row["network"]): row for row in content["rows"]}


def finished(entries: Sequence[Entry], examine: Examine, limits: Limits) -> Iterator[Row]:
    """The rows of the networks as they are done; `not run` where a limit was met, with the stage it was in.

    `examine(entry, save)` runs in a fork of this process, which has the libraries loaded, and saves the row
    as far as it came after every step.
    """
    waiting, running = list(entries), dict[tuple[str, str], _Process]()
    while waiting or running:
        while waiting and len(running) < limits.jobs:
            entry = waiting.pop(0)
            running[entry.key] = _Process(entry, examine, limits)
        time.sleep(_SLICE_S)
        for key in [key for key, process in running.items() if process.is_over()]:
            yield running.pop(key).row()


class _Process:
    """A network being examined in a child of this process."""

    def __init__(self, entry: Entry, examine: Examine, limits: Limits) -> None:
        """Start at once."""
        self.entry, self.limits, self.start = entry, limits, time.monotonic()
        fork = multiprocessing.get_context("fork")
        self.ours, theirs = fork.Pipe(duplex=False)
        self.latest: Row | None = None
        self.child = fork.Process(target=_child, args=(entry, examine, limits, theirs))
        self.child.start()
        theirs.close()

    def is_over(self) -> bool:
        """Whether the child ended, perhaps because its time is up."""
        self._listen()
        late = not self.limits.cpu and time.monotonic() - self.start > self.limits.seconds
        if self.child.is_alive() and late:
            self.child.kill()
            self.child.join()
        if self.child.is_alive():
            return False
        self._listen()
        return True

    def row(self) -> Row:
        """The row as far as it came."""
        row = self.latest or empty_row(self.entry)
        if "status" not in row:
            spent = time.monotonic() - self.start
            late = self.child.exitcode == -9 and (self.limits.cpu or spent > self.limits.seconds)
            killed = "time limit" if late else f"process ended with {self.child.exitcode}"
            row = {**row, "status": "not run", "seconds": spent}
            row["refused"] = f"{killed} in {row['stage']}"
        return row

    def _listen(self) -> None:
        try:
            while self.ours.poll():
                self.latest = json.loads(self.ours.recv())
        except EOFError:
            pass


def _child(entry: Entry, examine: Examine, limits: Limits, pipe: Any) -> None:
    memory = int(limits.memory_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if limits.cpu:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        until = int(spent.ru_utime + spent.ru_stime + limits.seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (until, until))  # the kernel kills it then
    warnings.simplefilter("ignore", DeprecationWarning)
    examine(entry, lambda row: pipe.send(json.dumps(row)))
