"""Progress and warnings on stderr, for people who wait."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

import typer
from rich.console import Console

from compressor import errors

__all__ = ["Progress", "readable_warnings"]

_OWN = tuple(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Warning))


@dataclass(frozen=True)
class Progress:
    """Says on stderr what is going on: a spinner on a terminal, a line per step elsewhere."""

    quiet: bool = False

    def say(self, text: str) -> None:
        """Announces a step that draws a bar of its own, into which a spinner would run."""
        if not self.quiet:
            typer.echo(text, err=True)

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """Announces a step; yields a function that says how far it is."""
        console = Console(stderr=True, highlight=False, markup=False)
        if self.quiet:
            yield lambda detail: None
        elif console.is_terminal:
            start = time.monotonic()
            # The spinner "line" is plain ASCII: not every terminal knows more.
            with console.status(text, spinner="line") as status:
                yield lambda detail: status.update(f"{text}: {detail}")
            console.print(f"{text} ({time.monotonic() - start:.1f} s)")
        else:
            typer.echo(text, err=True)
            yield lambda detail: None


@contextmanager
def readable_warnings() -> Iterator[None]:
    """The library's own warnings as one line on stderr, without the code that raised them."""
    original = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, _OWN):
            typer.secho(f"warning: {message}", err=True, fg=typer.colors.YELLOW)
        else:
            original(message, category, filename, lineno, file or sys.stderr, line)

    with warnings.catch_warnings():
        for own in _OWN:
            warnings.simplefilter("always", own)
        warnings.showwarning = show
        yield
