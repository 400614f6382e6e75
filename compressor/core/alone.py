"""One thread at a time where what is global to the process is switched for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["alone"]


class _Turn:
    """Whose turn it is; a forked process starts with nobody's: the thread that had it is not there."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._anew)

    def _anew(self) -> None:
        self.lock = threading.RLock()


_TURN = _Turn()


@contextmanager
def alone() -> Iterator[None]:
    """Within, no other thread is within; a thread that has its turn may enter again.

    A recording sees which module runs through hooks of all of torch, and switches kernels, the random state
    and Python's garbage collection; a proof switches the dtype of new tensors; a model that is captured is in
    another mode meanwhile. All of it belongs to the process, so threads take turns.

    >>> with alone(), alone():
    ...     pass
    """
    lock = _TURN.lock
    with lock:
        yield
