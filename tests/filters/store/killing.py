"""Writers that are killed by the system at a chosen step."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from compressor.filters import FilterBank
from compressor.filters.store import StoreWriter, journal
from tests.filters.store.zoo import banks_of, metadata_of

__all__ = ["STEPS", "extract_all", "killed_at"]


def extract_all(folder: Path, names: list[str]) -> None:
    """Write the models that are not there yet."""
    with StoreWriter(folder) as writer:
        for name in names:
            if name not in writer:
                writer.add(name, banks_of(name), metadata=metadata_of(name))


def killed_at(step: str, folder: Path, names: list[str], model: str) -> None:
    """The same, but the process is killed at that step of writing `model`."""
    with StoreWriter(folder) as writer:
        for name in names:
            if name == model:
                STEPS[step]()
            writer.add(name, _banks(name, step if name == model else ""), metadata=metadata_of(name))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _banks(name: str, step: str) -> Iterator[FilterBank]:
    first, *rest = banks_of(name)
    yield first
    if step == "between two layers":
        _die()
    yield from rest


def _before_the_call(number: int) -> None:
    """Die before `os.replace` gives the file of that number its name."""
    calls = iter(range(10))
    replace = os.replace

    def dying(source: object, target: object) -> None:
        if next(calls) == number:
            _die()
        replace(source, target)  # type: ignore[type-var]

    os.replace = dying  # type: ignore[assignment]


def _before_the_line() -> None:
    journal.append = lambda folder, entry: _die()


def _within_the_line() -> None:
    line_of = journal._line

    def torn(folder: Path, entry: journal.Entry) -> None:
        from dataclasses import asdict

        with (folder / journal.JOURNAL).open("ab") as file:
            file.write(line_of(asdict(entry))[:60])
        _die()

    journal.append = torn


def _before_tidying() -> None:
    shutil.rmtree = lambda *args, **options: _die()


STEPS: dict[str, Callable[[], None]] = {
    "between two layers": lambda: None,
    "before the kernels have their name": lambda: _before_the_call(0),
    "before the table has its name": lambda: _before_the_call(1),
    "before the line": _before_the_line,
    "within the line": _within_the_line,
    "before tidying": _before_tidying,
}
