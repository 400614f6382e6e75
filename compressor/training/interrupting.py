"""Ctrl-C that waits until a step is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["uninterrupted"]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Within, SIGINT is put off; its KeyboardInterrupt is raised at the end.

    Without it an interrupt between two parameters would leave weights of two steps. Only the main thread gets
    signals, in others nothing needs to be put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        # None: a handler that was not set from Python and cannot be set from it.
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
    if came:
        signal.raise_signal(signal.SIGINT)
