"""Whole models, cut to many widths and timed: what turns a sum of rows into the latency of a model."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from compressor.core.graph import Graph, Mask
from compressor.core.surgery import apply
from compressor.errors import ExportError
from compressor.profiling.latency_table.costing import COLUMNS, LatencyCost, Parts
from compressor.profiling.latency_table.fitting import fit, misfit
from compressor.profiling.latency_table.measuring import Sample, measure_samples, reference_sample
from compressor.runtimes import OnnxRuntime, Runtime, Target
from compressor.runtimes.exporters import Exporter
from compressor.runtimes.onnx_runtime import write_fixed

__all__ = ["Refinement", "cuts_of", "measure_whole", "refine"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

# Shares of the channels that stay: in the first group, in the last (straight between them), and how far each
# group may be from that. Early and late layers cut apart tell the time of arithmetic from that of weights.
_CUTS = (
    (1.0, 1.0, 0.0),
    (0.75, 0.75, 0.0),
    (0.5, 0.5, 0.0),
    (0.625, 0.625, 0.375),
    (0.625, 0.625, 0.375),
    (0.75, 0.75, 0.15),
    (0.5, 0.5, 0.2),
    (1.0, 0.5, 0.1),
    (1.0, 0.2, 0.1),
    (0.8, 0.05, 0.0),
    (0.5, 1.0, 0.1),
    (0.2, 1.0, 0.1),
    (0.35, 0.35, 0.2),
    (0.25, 0.25, 0.0),
)
_SAMPLE_MS = 2.0
_CACHED = (0.5, 1.0, 2.0, 4.0, 8.0)  # sizes of caches to try, in millions of weights of 4 bytes
_WHOLE_WEIGHT = 3.0  # every promise is a share of the whole model's latency


@dataclass(frozen=True)
class Refinement:
    """Coefficients of `COLUMNS` for one network, and the relative errors of predictions they were tested by.

    `cached` are the millions of weights up to which a cache holds them. Each error is that of a cut model
    that was left out of the fit; the whole model and the fastest, between which predictions lie, never are.
    """

    coefficients: tuple[float, ...]
    cached: float
    errors: tuple[float, ...]
    whole_ms: float
    round_to: int

    @property
    def error(self) -> float:
        """The largest relative error of a prediction for a whole model that was not used to make it."""
        return max(map(abs, self.errors), default=0.0)


def cuts_of(graph: Graph, multiple: int) -> list[Mask]:
    """Removals [n_units] that keep multiples of so many channels of each group, or all it has."""
    generator = np.random.default_rng(0)
    found: list[Mask] = []
    for first, last, spread in _CUTS:
        removed = np.zeros(graph.n_units, dtype=bool)
        middles = np.linspace(first, last, len(graph.groups))
        shares = np.clip(middles + spread * generator.uniform(-1, 1, len(middles)), 0.0, 1.0)
        for group, share in zip(graph.groups, shares.tolist(), strict=True):
            channels = group.size * group.channels
            wanted = round(channels * share / multiple) * multiple
            kept = min(group.size, max(wanted, min(multiple, channels)) // group.channels)
            for cell in group.cells:
                removed[cell[max(1, kept) : group.size]] = True
        if not any(np.array_equal(removed, other) for other in found):
            found.append(removed)
    return found


def measure_whole(
    graph: Graph, removals: Sequence[Mask], runtime: Runtime, *, rounds: int, reference_ms: float
) -> list[float]:
    """The latency in ms of the model cut in each of these ways, in units of the first one's."""
    with tempfile.TemporaryDirectory(prefix="compressor-") as aside, ExitStack() as stack:
        models = (apply(graph.model, graph.plan(gone)) if gone.any() else graph.model for gone in removals)
        targets = list(_targets(graph, models, runtime, Path(aside)))
        ready = stack.enter_context(runtime.ready(targets, graph.args, graph.kwargs))
        samples = [Sample(call, ready.clock) for call in ready.calls]
        reference = stack.enter_context(reference_sample(runtime))
        measure = partial(measure_samples, rounds=rounds, sample_ms=_SAMPLE_MS)
        (whole,) = measure(samples[:1], reference, reference_ms=reference_ms)
        others = measure(samples[1:], samples[0], reference_ms=whole)
        return [whole, *others]


def _targets(graph: Graph, models: Iterator[nn.Module], runtime: Runtime, aside: Path) -> Iterator[Target]:
    for number, model in enumerate(models):
        if not isinstance(runtime, OnnxRuntime):
            yield model
            continue
        path = aside / f"whole{number}.onnx"
        try:
            write_fixed(model, graph.args, graph.kwargs, path, Exporter.TORCHSCRIPT)
        except ExportError as error:
            log.info("%s; the slower exporter writes it", error)
            write_fixed(model, graph.args, graph.kwargs, path)
        yield path


def refine(parts: Parts, removals: Sequence[Mask], times: Sequence[float], *, round_to: int) -> Refinement:
    """What makes the rows of a network add up to its latency in ms, tested on models left out."""
    measured = np.array(times)
    weights = np.ones(len(times))
    weights[0] = _WHOLE_WEIGHT
    columns = {
        cached: np.stack(
            [LatencyCost(parts, np.ones(len(COLUMNS)), cached).columns(gone) for gone in removals]
        )
        for cached in _CACHED
    }
    errors = []
    for index in _between(measured):
        others = np.arange(len(times)) != index
        cached, found = _best({c: t[others] for c, t in columns.items()}, measured[others], weights[others])
        errors.append(float(columns[cached][index] @ found / measured[index] - 1))
    cached, found = _best(columns, measured, weights)
    return Refinement(tuple(found.tolist()), cached, tuple(errors), float(measured[0]), round_to)


def _best(columns: Mapping[float, Floats], times: Floats, weights: Floats) -> tuple[float, Floats]:
    """The size of the cache that fits best, and its coefficients."""
    fits = {cached: _fitted(table, times, weights) for cached, table in columns.items()}
    cached = min(fits, key=lambda c: misfit(columns[c], times, fits[c]))
    return cached, fits[cached]


def _fitted(columns: Floats, times: Floats, weights: Floats) -> Floats:
    found = np.zeros(len(COLUMNS))
    used = columns.any(0)
    found[used] = fit(columns[:, used], times, np.eye(len(COLUMNS))[0, used], weights=weights)
    return found


def _between(times: Floats) -> list[int]:
    """All models but the first and the fastest."""
    return [i for i in range(1, len(times)) if i != int(times.argmin())]
