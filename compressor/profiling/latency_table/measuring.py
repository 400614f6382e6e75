"""Times that survive a busy machine: samples beside those of a reference, in alternating order.

A time is the median over rounds of its ratio to the reference's just before, times the reference's own
time, which is taken once per table. So rows measured on different days fit together.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from compressor.profiling.latency_table.layers import Layer
from compressor.profiling.latency_table.rows import Row, example_of, module_of
from compressor.runtimes import OnnxRuntime, Runtime, Target
from compressor.runtimes.clocks import Clock
from compressor.runtimes.layer_files import write_layers

__all__ = ["REFERENCE", "Sample", "measure_rows", "measure_samples", "reference_ms", "reference_sample"]

# A convolution as they occur everywhere, of about a tenth of a millisecond.
REFERENCE = Row(Layer("Conv", 1, (16, 16), (3, 3), (1, 1), (1, 1), (1, 1)), 64, 64)
_SAMPLE_MS = 0.8
_BESIDE = 3  # so many samples are compared with one of the reference


@dataclass(frozen=True)
class Sample:
    """A call that is timed, on its clock."""

    call: Callable[[], object]
    clock: Clock


def measure_rows(rows: Sequence[Row], runtime: Runtime, *, rounds: int, reference_ms: float) -> list[float]:
    """The time in ms of each row's stack of layers."""
    with _ready([REFERENCE, *rows], runtime) as samples:
        return measure_samples(samples[1:], samples[0], rounds=rounds, reference_ms=reference_ms)


def reference_ms(runtime: Runtime, *, rounds: int) -> float:
    """The least time in ms that the reference took in `rounds` samples."""
    with reference_sample(runtime) as sample:
        count = _count(sample, _SAMPLE_MS)
        return min(sample.clock.measure(sample.call, count) for _ in range(rounds))


def measure_samples(
    samples: Sequence[Sample],
    reference: Sample,
    *,
    rounds: int,
    reference_ms: float,
    sample_ms: float = _SAMPLE_MS,
) -> list[float]:
    """The time in ms of each sample, in units of the reference's."""
    counts = [_count(sample, sample_ms) for sample in samples]
    beside = _count(reference, sample_ms)
    ratios: list[list[float]] = [[] for _ in samples]
    order = list(range(len(samples)))
    for _ in range(rounds):
        for start in range(0, len(order), _BESIDE):
            unit = max(_measure(reference, beside), 1e-9)
            for index in order[start : start + _BESIDE]:
                ratios[index].append(_measure(samples[index], counts[index]) / unit)
        order.reverse()
    return [statistics.median(each) * reference_ms for each in ratios]


@contextmanager
def reference_sample(runtime: Runtime) -> Iterator[Sample]:
    """Within, the reference can be timed."""
    with _ready([REFERENCE], runtime) as (sample,):
        yield sample


@contextmanager
def _ready(rows: Sequence[Row], runtime: Runtime) -> Iterator[list[Sample]]:
    with tempfile.TemporaryDirectory(prefix="compressor-") as aside, ExitStack() as stack:
        samples = []
        for number, row in enumerate(rows):
            module, x = module_of(row).eval(), example_of(row)
            target = _target(module, x, runtime, Path(aside) / f"{number}.onnx")
            ready = stack.enter_context(runtime.ready([target], [x], {}))
            samples.append(Sample(ready.calls[0], ready.clock))
        yield samples


def _target(module: nn.Sequential, x: Tensor, runtime: Runtime, path: Path) -> Target:
    if not isinstance(runtime, OnnxRuntime):
        return module
    write_layers(module, x, path)
    return path


def _measure(sample: Sample, count: int) -> float:
    """One sample; an untimed call before it brings back into the caches what others have put out."""
    sample.call()
    return sample.clock.measure(sample.call, count)


def _count(sample: Sample, sample_ms: float) -> int:
    """How many calls make a sample long enough; the first one warms caches up."""
    sample.clock.measure(sample.call, 1)
    once = min(sample.clock.measure(sample.call, 1) for _ in range(3))
    return max(1, math.ceil(sample_ms / max(once, 1e-3)))
