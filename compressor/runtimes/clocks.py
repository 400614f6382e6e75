"""Clocks for one call that is repeated: CPU time of a thread, wall time, CUDA events."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from compressor.errors import InputError

__all__ = ["Clock", "cpu_clock", "device_clock", "pinned_to"]


@dataclass(frozen=True)
class Clock:
    """`measure(call, count)` is the time in ms that one of `count` calls takes; `name` says which time."""

    name: str
    measure: Callable[[Callable[[], object], int], float]


def cpu_clock(threads: int) -> Clock:
    """The CPU time of the calling thread, which other processes do not disturb; of several, wall time.

    >>> cpu_clock(1).name, cpu_clock(2).name
    ('CPU time of 1 thread', 'wall time with 2 threads')
    """
    if threads == 1:
        return Clock("CPU time of 1 thread", _host(time.thread_time, lambda: None))
    return Clock(f"wall time with {threads} threads", _host(time.perf_counter, lambda: None))


def device_clock(device: torch.device, threads: int) -> Clock:
    """The clock for work on `device`: events on CUDA, else what can be had."""
    if device.type == "cuda":
        return Clock(f"CUDA events on {torch.cuda.get_device_name(device)}", _cuda(device))
    if device.type == "cpu":
        return cpu_clock(threads)
    wait = getattr(torch, device.type).synchronize
    return Clock(f"wall time on {device.type}", _host(time.perf_counter, wait))


@contextmanager
def pinned_to(core: int | None) -> Iterator[None]:
    """Within, this thread and those it starts stay on one CPU `core`; None leaves them alone.

    Raises InputError where the core does not exist, or the system cannot pin (macOS, Windows).
    """
    if core is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise InputError(f"pin = {core}: this system cannot pin a process to a core; leave `pin` out")
    before = os.sched_getaffinity(0)
    if core not in before:
        raise InputError(f"pin = {core}: this process may run on the cores {sorted(before)}")
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _host(
    read: Callable[[], float], wait: Callable[[], object]
) -> Callable[[Callable[[], object], int], float]:
    def measure(call: Callable[[], object], count: int) -> float:
        wait()
        start = read()
        for _ in range(count):
            call()
        wait()
        return (read() - start) * 1e3 / count

    return measure


def _cuda(device: torch.device) -> Callable[[Callable[[], object], int], float]:
    def measure(call: Callable[[], object], count: int) -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(count):
                call()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / count

    return measure
