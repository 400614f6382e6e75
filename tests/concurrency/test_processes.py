"""Processes that are forked or spawned get what this one gets, also while its threads are at work."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from typing import Any

import pytest

import compressor as cp
from tests.concurrency.test_threads import X, made, results

STARTS = ["spawn", *(["fork"] if sys.platform == "linux" else [])]


def pruned(width: int) -> dict[str, Any]:
    """All verbs on a network, in a process."""
    return results(made(width))


@pytest.mark.parametrize("start", STARTS)
def test_processes(start: str) -> None:
    widths = [8, 12]
    with multiprocessing.get_context(start).Pool(2) as pool:
        found = pool.map_async(pruned, widths).get(timeout=120)
    assert found == [pruned(width) for width in widths]


@pytest.mark.skipif("fork" not in STARTS, reason="this system starts processes anew")
def test_a_process_that_is_forked_while_a_thread_captures() -> None:
    expected, over, net = pruned(8), threading.Event(), made(12)

    def capture() -> None:
        while not over.is_set():
            cp.capture(net, X)

    beside = threading.Thread(target=capture)
    beside.start()
    try:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            found = [pool.apply_async(pruned, (8,)).get(timeout=60) for _ in range(3)]
    finally:
        over.set()
        beside.join()
    assert found == [expected] * 3
