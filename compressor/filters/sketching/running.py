"""The sketches of every layer of a source: on several cores, resumable, with a bar."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from tqdm import tqdm

from compressor.errors import InputError, MeasurementError
from compressor.filters.bank import FilterBank
from compressor.filters.sketching.folder import RunFolder
from compressor.filters.sketching.layers import Part, Source, require_distinct
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.store_source import source_of
from compressor.filters.sketching.table import Sketches, Skipped
from compressor.filters.sketching.tasks import in_tasks, pickled, sketch_parts, sketch_pickled
from compressor.filters.store import Layer, Store

__all__ = ["pool_of", "sketch_all"]

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_FILES = 5.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def sketch_all(
    source: Source | Store | Iterable[FilterBank],
    setting: SketchSetting,
    *,
    into: str | Path | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    progress: bool = False,
    skip_unreadable: bool = False,
) -> Sketches:
    """A sketch of each layer of a store, of banks, or of another source, in their order.

    `workers` processes share the layers (1: this process alone). An `executor` (of Dask, MPI, ...) brings its
    own, and `workers` says how many: see `sketch_on_cluster`. Each needs memory for a chunk of a layer,
    however many layers there are.

    `into` is a folder that finished layers are written to as they come. The same call goes on from there
    after any end, and comes to the same table; another source or setting is refused. `skip_unreadable` goes
    on where a layer cannot be read or holds NaN, says so in the log and in `Sketches.skipped`, and tries
    again next time.

    Raises InputError where there is no layer, InputError or FileError with the name of one that cannot be
    sketched, and MeasurementError where a worker died.

    >>> from compressor.filters.basis import Basis
    >>> banks = [FilterBank(torch.randn(8, 4, 3, 3), name) for name in ("conv1", "conv2")]
    >>> sketch_all(banks, SketchSetting(Basis.cosines((3, 3))))
    Sketches(64 kernels of 2 layers of 1 model)
    """
    if workers < 1:
        raise InputError(f"workers must be 1 or more, got {workers}")
    if not isinstance(setting, SketchSetting):
        raise InputError(
            f"setting is a SketchSetting, got {type(setting).__name__}: SketchSetting(basis) makes one"
        )
    source = source_of(source)
    require_distinct(part.layer for part in source.parts)
    folder = RunFolder(Path(into), source, setting) if into is not None else None
    run = _Run(tuple(source.parts), setting, folder)
    with tqdm(total=run.kernels, unit="kernel", unit_scale=True, disable=not progress) as bar:
        bar.update(run.kernels_done)
        with run, pool_of(workers, executor) as pool:
            for places, outcomes in _outcomes(run.tasks(), run.parts, setting, pool, at_once=2 * workers):
                run.take(places, outcomes, skip_unreadable=skip_unreadable)
                bar.update(sum(run.parts[place].layer.count for place in places))
    return run.table()


@dataclass
class _Run:
    """What is done, what is not, and what is not written yet."""

    parts: tuple[Part, ...]
    setting: SketchSetting
    folder: RunFolder | None
    done: dict[int, tuple[Layer, Sketch]] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)
    unwritten: list[int] = field(default_factory=list)
    written_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if self.folder is not None:
            self.done = self.folder.done()
            if self.done:
                log.info("%d of %d layers were sketched before", len(self.done), len(self.parts))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        # Also after Ctrl-C and errors: what is finished is not done again.
        self.write()

    @property
    def kernels(self) -> int:
        return sum(part.layer.count for part in self.parts)

    @property
    def kernels_done(self) -> int:
        return sum(sketch.count for _, sketch in self.done.values())

    def tasks(self) -> Iterator[list[int]]:
        """Places of layers that are to be done, in groups."""
        return in_tasks(self.parts, (place for place in range(len(self.parts)) if place not in self.done))

    def take(
        self, places: list[int], outcomes: Sequence[Sketch | Exception], *, skip_unreadable: bool
    ) -> None:
        failed: Exception | None = None
        for place, outcome in zip(places, outcomes, strict=True):
            layer = self.parts[place].layer
            if isinstance(outcome, Sketch):
                self.done[place] = layer, replace(outcome, setting=self.setting)
                self.unwritten.append(place)
            elif skip_unreadable:
                log.warning("%s is left out: %s", layer, outcome)
                self.skipped[place] = str(outcome)
            else:
                failed = failed or outcome
        if failed is not None:
            raise failed
        if time.monotonic() - self.written_at > _SECONDS_BETWEEN_FILES:
            self.write()

    def write(self) -> None:
        if self.folder is not None and self.unwritten:
            pairs = [self.done[place] for place in self.unwritten]
            self.folder.add([layer for layer, _ in pairs], [sketch for _, sketch in pairs])
            self.unwritten = []
        self.written_at = time.monotonic()

    def table(self) -> Sketches:
        pairs = [self.done[place] for place in sorted(self.done)]
        layers, sketches = tuple(layer for layer, _ in pairs), tuple(sketch for _, sketch in pairs)
        if self.folder is not None:
            self.folder.close(layers, sketches)
        skipped = tuple(Skipped(self.parts[place].layer, why) for place, why in sorted(self.skipped.items()))
        return Sketches(self.setting, layers, sketches, skipped=skipped)


def _outcomes(
    tasks: Iterator[list[int]],
    parts: Sequence[Part],
    setting: SketchSetting,
    pool: Executor | None,
    *,
    at_once: int,
) -> Iterator[tuple[list[int], list[Sketch | Exception]]]:
    if pool is None:
        for places in tasks:
            yield places, sketch_parts([parts[place] for place in places], setting)
        return
    waiting: dict[Future[bytes], list[int]] = {}
    try:
        while True:
            # A few at a time: what waits is memory, and has to be taken back after Ctrl-C.
            while len(waiting) < at_once and (places := next(tasks, [])):
                waiting[pool.submit(sketch_pickled, pickled([parts[place] for place in places], setting))] = (
                    places
                )
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting[future], _result(future, [parts[place].layer for place in waiting[future]])
                del waiting[future]
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[bytes], layers: list[Layer]) -> list[Sketch | Exception]:
    try:
        outcomes = pickle.loads(future.result())
        assert isinstance(outcomes, list)
        return outcomes
    except Exception as error:  # errors of layers are values: here a worker ended, in its executor's words
        named = f"{layers[0]}" if len(layers) == 1 else f"{layers[0]} to {layers[-1]}"
        raise MeasurementError(
            f"a worker died while {named} or a layer near it was being sketched ({type(error).__name__}: "
            f"{error}; out of memory?); with `into`, what is finished is kept and the same call goes on"
        ) from error


@contextmanager
def pool_of(count: int, executor: Executor | None) -> Iterator[Executor | None]:
    """The executor that is given; without one so many processes, or none where one is enough."""
    if executor is not None or count == 1:
        yield executor
        return
    before = {name: os.environ.get(name) for name in _THREADS}
    # Read by the workers' libraries when they start; this process has read its own already.
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal: the first one alone answers it, and ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
