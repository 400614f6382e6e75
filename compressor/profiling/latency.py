"""How long models take on this machine, measured so that the comparison survives a busy machine.

Rounds are interleaved: every round times each model once, in alternating order, so that whatever
else the machine does meets all of them. A speedup is the median over rounds of the ratio within a
round, never a quotient of two averages. Before each sample its model is called once untimed: models are
timed as in an app that runs one of them again and again, not as guests in the other's caches. On one CPU
thread the clock is the thread's own CPU time.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.runtimes import Eager, Runtime, Target
from compressor.runtimes.clocks import Clock

__all__ = ["Latency", "Timing", "latency", "measure_latency"]

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
    """What was measured: a timing for each model, and how (`runtime` and `clock`)."""

    timings: tuple[Timing, ...]
    rounds: int
    clock: str
    runtime: str = "Eager()"

    @property
    def speedup(self) -> float:
        """How many times faster the last model is than the first."""
        return self.timings[-1].speedup

    def __str__(self) -> str:
        lines = [
            f"one forward pass, {self.runtime}, {self.clock}, {self.rounds} interleaved rounds "
            "(median, 10-90 %)"
        ]
        for number, t in enumerate(self.timings):
            spread = f"{t.ms:.3f} ms ({t.ms_p10:.3f}-{t.ms_p90:.3f})"
            against = f", {t.speedup:.2f}x ({t.speedup_p10:.2f}-{t.speedup_p90:.2f})" if number else ""
            lines.append(f"  model {number}: {spread}{against}")
        return "\n".join(lines)


def latency(
    model: Target,
    other: Target,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    runtime: Runtime | None = None,
    rounds: int | None = None,
    seconds: float = 2.0,
    warm_up: int = 2,
) -> Latency:
    """How long `model` and `other` take on the same inputs; `speedup` says how many times faster `other` is.

    `measure_latency` of the two, where the options are explained.

    >>> import torch
    >>> found = latency(nn.Linear(256, 256), nn.Identity(), torch.zeros(64, 256), rounds=5)
    >>> found.speedup > 1, len(found.timings)
    (True, 2)
    """
    return measure_latency(
        [model, other], args, kwargs, runtime=runtime, rounds=rounds, seconds=seconds, warm_up=warm_up
    )


def measure_latency(
    models: Sequence[Target],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    runtime: Runtime | None = None,
    rounds: int | None = None,
    seconds: float = 2.0,
    warm_up: int = 2,
) -> Latency:
    """The time of one forward pass of each model on this machine; speedups are against the first.

    `args` and `kwargs` go to every model. `runtime` says what runs them: `runtimes.Eager()`, as they are in
    PyTorch (the default), `Compiled()`, or `OnnxRuntime()`, which takes paths of ONNX files, too; it has the
    options `threads` and `pin`. With one CPU thread the clock is the CPU time of that thread, which
    other processes do not disturb; with more, it is wall time; on CUDA devices events are timed. Each model
    is called `warm_up` times first. Without `rounds` there are as many as fit into about `seconds`, at
    least 5 and at most 120. Models are in eval mode, without gradients, and left as they were; so are random
    numbers of torch.

    >>> import torch
    >>> latency = measure_latency([nn.Linear(256, 256), nn.Identity()], [torch.zeros(64, 256)], rounds=5)
    >>> latency.timings[1].speedup > 1, latency.clock
    (True, 'CPU time of 1 thread')
    """
    _check(models, rounds, seconds, warm_up)
    by = Eager() if runtime is None else runtime
    if not isinstance(by, Runtime):
        raise InputError(
            f"runtime = {runtime!r}: a runtime such as runtimes.OnnxRuntime(threads=1) is expected, "
            f"got {type(runtime).__name__}"
        )
    with torch.random.fork_rng(devices=_devices(models)), by.ready(models, args, kwargs or {}) as ready:
        runs = [_runs(call, ready.clock, warm_up) for call in ready.calls]
        if rounds is None:
            timed = zip(ready.calls, runs, strict=True)
            once = sum(ready.clock.measure(call, count) * (count + 1) for call, count in timed)
            rounds = min(_MOST_ROUNDS, max(5, int(seconds * 1e3 / max(once, 1e-3))))
        samples = _rounds(ready.calls, runs, ready.clock.measure, rounds)
    return Latency(tuple(_timing(own, samples[0]) for own in samples), rounds, ready.clock.name, repr(by))


def _devices(models: Sequence[Target]) -> list[int]:
    """The CUDA devices whose random numbers the models may draw."""
    held = (one for model in models if isinstance(model, nn.Module) for one in model.state_dict().values())
    return sorted({t.device.index or 0 for t in held if isinstance(t, torch.Tensor) and t.is_cuda})


def _check(models: Sequence[Target], rounds: int | None, seconds: float, warm_up: int) -> None:
    if (
        isinstance(models, nn.Module | str)
        or not models
        or not all(isinstance(model, nn.Module | str | os.PathLike) for model in models)
    ):
        raise InputError("measure_latency needs a list of one or more models: modules, or paths of files")
    if seconds <= 0 or (rounds is not None and rounds < 1) or warm_up < 0:
        raise InputError("measure_latency needs rounds >= 1, seconds > 0 and warm_up >= 0")


def _runs(call: Callable[[], object], clock: Clock, warm_up: int) -> int:
    """How many calls make a sample long enough; the first ones warm caches up."""
    if warm_up:
        clock.measure(call, warm_up)
    return max(1, math.ceil(_SAMPLE_MS / max(min(clock.measure(call, 1) for _ in range(3)), 1e-3)))


def _rounds(
    calls: Sequence[Callable[[], object]],
    runs: Sequence[int],
    measure: Callable[[Callable[[], object], int], float],
    rounds: int,
) -> list[list[float]]:
    samples: list[list[float]] = [[] for _ in calls]
    order = list(range(len(calls)))
    for _ in range(rounds):
        for index in order:
            calls[index]()  # untimed: brings back into the caches what the other models have put out
            samples[index].append(measure(calls[index], runs[index]))
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
