"""How long models take on this machine, measured so that the comparison survives a busy machine.

Rounds are interleaved: every round times each model once, in alternating order, so that whatever
else the machine does meets all of them. A speedup is the median over rounds of the ratio within a
round, never a quotient of two averages. On one CPU thread the clock is the thread's own CPU time.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from compressor.errors import InputError

__all__ = ["Latency", "Timing", "measure_latency"]

_SAMPLE_MS = 2.0  # shorter samples drown in the resolution of the clock
_MOST_ROUNDS = 120  # speedups repeat to about 5 % from here on


@dataclass(frozen=True)
class Timing:
    """The time of one model: median and 10 % to 90 % range over rounds, for one forward pass.

    `speedup` is how many times faster it is than the first model, with its own range over rounds.
    """

    ms: float
    ms_p10: float
    ms_p90: float
    speedup: float
    speedup_p10: float
    speedup_p90: float


@dataclass(frozen=True)
class Latency:
    """What `measure_latency` found: a timing for each model, and how it was measured."""

    timings: tuple[Timing, ...]
    rounds: int
    clock: str

    def __str__(self) -> str:
        lines = [f"one forward pass, {self.clock}, {self.rounds} interleaved rounds (median, 10-90 %)"]
        for number, t in enumerate(self.timings):
            spread = f"{t.ms:.3f} ms ({t.ms_p10:.3f}-{t.ms_p90:.3f})"
            against = f", {t.speedup:.2f}x ({t.speedup_p10:.2f}-{t.speedup_p90:.2f})" if number else ""
            lines.append(f"  model {number}: {spread}{against}")
        return "\n".join(lines)


def measure_latency(
    models: Sequence[nn.Module],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    rounds: int | None = None,
    threads: int = 1,
    seconds: float = 2.0,
) -> Latency:
    """The time of one forward pass of each model on this machine; speedups are against the first.

    `args` and `kwargs` go to every model, in eval mode and without gradients; modes are restored.
    Without `rounds` there are as many as fit into about `seconds`, at least 5 and at most 120.
    `threads` are CPU threads: with one, the clock is the CPU time of that thread, which other
    processes do not disturb; with more, it is wall time. On CUDA devices events are timed.

    >>> narrow, wide = nn.Linear(8, 8), nn.Linear(256, 256)
    >>> latency = measure_latency([wide, nn.Identity()], [torch.zeros(64, 256)], rounds=5)
    >>> latency.timings[1].speedup > 1, latency.clock
    (True, 'CPU time of 1 thread')
    """
    if (
        isinstance(models, nn.Module)
        or not models
        or not all(isinstance(model, nn.Module) for model in models)
    ):
        raise InputError("measure_latency needs a list of one or more models")
    if threads < 1 or seconds <= 0 or (rounds is not None and rounds < 1):
        raise InputError("measure_latency needs rounds >= 1, threads >= 1 and seconds > 0")
    device = _device(models, args, kwargs or {})
    clock, now = _clock(device, threads)
    calls = [_call(model, args, kwargs or {}) for model in models]
    with _prepared(models, threads):
        runs = [_runs(call, now) for call in calls]
        if rounds is None:
            once = sum(now(call, count) * count for call, count in zip(calls, runs, strict=True))
            rounds = min(_MOST_ROUNDS, max(5, int(seconds * 1e3 / max(once, 1e-3))))
        samples = _rounds(calls, runs, now, rounds)
    return Latency(tuple(_timing(own, samples[0]) for own in samples), rounds, clock)


# Milliseconds that one of `count` calls takes.
_Clock = Callable[[Callable[[], object], int], float]


def _device(models: Sequence[nn.Module], args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    tensors += [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise InputError(f"models and inputs lie on several devices ({names}); move them to one")
    return next(iter(devices), torch.device("cpu"))


def _clock(device: torch.device, threads: int) -> tuple[str, _Clock]:
    if device.type == "cuda":
        return f"CUDA events on {torch.cuda.get_device_name(device)}", _cuda(device)
    if device.type == "cpu" and threads == 1:
        return "CPU time of 1 thread", _host(time.thread_time, lambda: None)
    if device.type == "cpu":
        return f"wall time with {threads} threads", _host(time.perf_counter, lambda: None)
    wait = getattr(torch, device.type).synchronize
    return f"wall time on {device.type}", _host(time.perf_counter, wait)


def _host(read: Callable[[], float], wait: Callable[[], object]) -> _Clock:
    def measure(call: Callable[[], object], count: int) -> float:
        wait()
        start = read()
        for _ in range(count):
            call()
        wait()
        return (read() - start) * 1e3 / count

    return measure


def _cuda(device: torch.device) -> _Clock:
    def measure(call: Callable[[], object], count: int) -> float:
        with torch.cuda.device(device):
            start, end = (_event() for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(count):
                call()
            end.record()
            torch.cuda.synchronize()
            return float(start.elapsed_time(end)) / count

    return measure


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def _call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: model(*args, **kwargs)


@contextmanager
def _prepared(models: Sequence[nn.Module], threads: int) -> Iterator[None]:
    """Eval mode, no gradients, `threads` CPU threads, all restored at the end."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for module, _ in modes:
                module.training = False
            yield
    finally:
        torch.set_num_threads(before)
        for module, mode in modes:
            module.training = mode


def _runs(call: Callable[[], object], now: _Clock) -> int:
    """How many calls make a sample long enough; the first ones warm caches up."""
    now(call, 2)
    return max(1, math.ceil(_SAMPLE_MS / max(min(now(call, 1) for _ in range(3)), 1e-3)))


def _rounds(
    calls: Sequence[Callable[[], object]], runs: Sequence[int], now: _Clock, rounds: int
) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    for _ in range(rounds):
        for index in order:
            samples[index].append(now(calls[index], runs[index]))
        order.reverse()
    return samples


def _timing(own: list[float], first: list[float]) -> Timing:
    speedups = [f / max(o, 1e-9) for f, o in zip(first, own, strict=True)]
    return Timing(*_spread(own), *_spread(speedups))


def _spread(samples: list[float]) -> tuple[float, float, float]:
    """Median, 10 % and 90 % quantile."""
    if len(samples) == 1:
        return samples[0], samples[0], samples[0]
    tenths = statistics.quantiles(samples, n=10, method="inclusive")
    return statistics.median(samples), tenths[0], tenths[-1]
