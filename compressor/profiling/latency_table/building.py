"""Measuring a latency table: what is missing of it for one network, saved as it comes."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

from tqdm import tqdm

from compressor.core.graph import Graph, require_graph
from compressor.errors import InputError, LatencyWarning
from compressor.profiling.latency_table.frontier import free_multiple
from compressor.profiling.latency_table.identity import identity_of, network_of
from compressor.profiling.latency_table.measuring import measure_rows, reference_ms
from compressor.profiling.latency_table.rows import Row
from compressor.profiling.latency_table.sampling import samples_of
from compressor.profiling.latency_table.storing import cached_path, load
from compressor.profiling.latency_table.surface import Shape, blends
from compressor.profiling.latency_table.table import LatencyTable, rows_needed, shapes_of
from compressor.profiling.latency_table.whole import cuts_of, measure_whole, refine
from compressor.runtimes import OnnxRuntime, Runtime

__all__ = ["fastest_multiple", "latency_table"]

log = logging.getLogger(__name__)

_BATCH = 24  # rows measured together, then saved
_TOLERATED = 0.10


def latency_table(
    graph: Graph,
    *,
    runtime: Runtime | None = None,
    path: str | PathLike[str] | None = None,
    progress: bool = False,
    row_rounds: int = 11,
    whole_rounds: int = 61,
) -> LatencyTable:
    """The latency table of this machine and `runtime` (default: `runtimes.OnnxRuntime()`), good for `graph`.

    What it lacks is measured now, and saved as it comes: single layers at a grid of widths, then the model
    itself and a dozen cut versions of it, which correct the sums of layers. A second call, and a second
    network with the same layers, find it in the file. The file is `path`, or one in the user's cache for this
    machine, runtime, its version and options ($COMPRESSOR_CACHE names another folder).

    Measures for 10 s to a few minutes, on one core. Warns with LatencyWarning where the predictions for
    models that were not used to make them are off by more than 10 %: `table.error`. Raises InputError where
    the file was measured on another machine or runtime, FileError where it is no table.

        table = latency_table(cp.capture(model, x))
        small = cp.prune(model, x, budget=cp.budget.Latency(0.5, table))
    """
    require_graph("latency_table", graph)
    by = OnnxRuntime() if runtime is None else runtime
    if not isinstance(by, Runtime):
        raise InputError(f"runtime = {runtime!r}: a runtime such as runtimes.OnnxRuntime() is expected")
    elsewhere = {t.device.type for t in graph.model.parameters()} - {"cpu"}
    if elsewhere and not isinstance(by, OnnxRuntime):
        raise InputError(
            f"latency_table measures layers on the CPU, and {graph.signature.model} lies on "
            f"{', '.join(sorted(elsewhere))}: capture it on the CPU"
        )
    table, file = _found(by, path, row_rounds)
    table = _with_rows(table, by, rows_needed(shapes_of(graph)), file, rounds=row_rounds, progress=progress)
    if network_of(graph) not in table.refinements:
        table = _refined(table, by, graph, rounds=whole_rounds)
        table.save(file)
    error = table.refinement(graph).error
    if error > _TOLERATED:
        warnings.warn(
            f"predictions of latency for {graph.signature.model} are off by up to {error:.0%} on models "
            f"that were not used to make them; measure on a quieter machine (delete {file})",
            LatencyWarning,
            stacklevel=2,
        )
    return table


def fastest_multiple(graph: Graph, runtime: Runtime, *, rounds: int = 7, layers: int = 3) -> int:
    """The multiple to which rounding widths up costs no time, measured now on the `layers` of most MACs.

    Of each family of layers the largest one at most; see `LatencyTable.round_to`.
    """
    largest: dict[str, Shape] = {}
    for shape in sorted(shapes_of(graph), key=_size, reverse=True):
        largest.setdefault(shape.layer.family, shape)
    shapes = list(largest.values())[:layers]
    rows = rows_needed(shapes)
    times = measure_rows(rows, runtime, rounds=rounds, reference_ms=reference_ms(runtime, rounds=rounds))
    found = dict(zip(rows, times, strict=True))
    samples = samples_of(shapes)
    return free_multiple(shapes, samples, found, blends(shapes, samples, found))


def _size(shape: Shape) -> int:
    read = 1 if shape.is_tied else shape.entering
    return read * shape.leaving * math.prod((*shape.layer.kernel, *shape.layer.extent))


def _found(runtime: Runtime, path: str | PathLike[str] | None, rounds: int) -> tuple[LatencyTable, Path]:
    """The table so far, or an empty one, and its file."""
    here = identity_of(runtime)
    file = cached_path(here) if path is None else Path(path)
    if not file.exists():
        unit = reference_ms(runtime, rounds=3 * rounds)
        return LatencyTable(here, runtime, unit), file
    table = load(file, runtime)
    difference = here.difference(table.identity)
    if difference is not None:
        raise InputError(
            f"{file} was measured elsewhere: {difference}. Rows of two machines cannot be mixed; name "
            f"another file, or use this one as it is: LatencyTable.load(path)"
        )
    return table, file


def _with_rows(
    table: LatencyTable, runtime: Runtime, rows: Sequence[Row], file: Path, *, rounds: int, progress: bool
) -> LatencyTable:
    missing = sorted((row for row in rows if row not in table.rows), key=_work)
    log.info("latency table: %d rows, %d of them to be measured", len(rows), len(missing))
    with tqdm(total=len(missing), desc="latency table", unit="row", disable=not progress) as bar:
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            times = measure_rows(batch, runtime, rounds=rounds, reference_ms=table.reference_ms)
            found = dict(zip(batch, times, strict=True))
            table = replace(table, rows={**table.rows, **found})
            table.save(file)
            bar.update(len(batch))
    return table


def _work(row: Row) -> tuple[str, int, int]:
    return str(row.layer), row.entering, row.leaving


def _refined(table: LatencyTable, runtime: Runtime, graph: Graph, *, rounds: int) -> LatencyTable:
    shapes = shapes_of(graph)
    samples = samples_of(shapes)
    blend = blends(shapes, samples, table.rows)
    multiple = free_multiple(shapes, samples, table.rows, blend)
    removals = cuts_of(graph, multiple)
    times = measure_whole(graph, removals, runtime, rounds=rounds, reference_ms=table.reference_ms)
    found = refine(table.parts(graph), removals, times, round_to=multiple)
    return replace(table, refinements={**table.refinements, network_of(graph): found})
