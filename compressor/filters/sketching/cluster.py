"""Sketching on many machines: a Dask cluster's workers read the layers, and merge as a tree."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compressor.errors import CompressorError, InputError, MeasurementError
from compressor.extras import imported
from compressor.filters.bank import FilterBank
from compressor.filters.sketching.layers import Part, Source
from compressor.filters.sketching.running import sketch_all
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.store_source import source_of
from compressor.filters.sketching.table import Sketches
from compressor.filters.sketching.tasks import in_tasks, pickled, sketch_or_error
from compressor.filters.store import Layer, Store

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["group_on_cluster", "sketch_on_cluster"]

Label = TypeVar("Label", bound=Hashable)


def sketch_on_cluster(
    source: Source | Store | Iterable[FilterBank],
    setting: SketchSetting,
    client: Client,
    *,
    into: str | Path | None = None,
    progress: bool = False,
    skip_unreadable: bool = False,
) -> Sketches:
    """The table of `sketch_all`, made by the workers of a Dask cluster.

    They read the layers, so a store must lie where all of them see it. A layer whose worker dies goes to
    another one, three times; then MeasurementError names it. `into` is a folder of this process.

    Raises MissingExtraError without Dask, and what `sketch_all` raises.
    """
    connected = _connected(client)
    return sketch_all(
        source,
        setting,
        into=into,
        executor=connected.get_executor(pure=False),
        workers=max(1, sum(connected.nthreads().values())),
        progress=progress,
        skip_unreadable=skip_unreadable,
    )


def group_on_cluster(
    source: Source | Store | Iterable[FilterBank],
    setting: SketchSetting,
    client: Client,
    *,
    by: Callable[[Layer], Label | None],
    split_every: int = 8,
) -> dict[Label, Sketch]:
    """The merged sketch of each group, as of `Sketches.group`, merged by workers, `split_every` at a time.

    For so many layers that one process should not see a sketch of each; nothing is kept for another run.
    """
    if split_every < 2:
        raise InputError(f"split_every must be 2 or more, got {split_every}")
    submit = _connected(client).submit
    parts = tuple(source_of(source).parts)
    futures = [
        submit(
            _grouped,
            pickled([(parts[place], by(parts[place].layer)) for place in places], setting),
            pure=False,
        )
        for places in in_tasks(parts, range(len(parts)))
    ]
    while len(futures) > 1:
        futures = [
            submit(_merged, futures[start : start + split_every], pure=False)
            for start in range(0, len(futures), split_every)
        ]
    try:
        groups: dict[Label, Sketch] = pickle.loads(futures[0].result())
    except CompressorError:
        raise
    except Exception as error:  # the end of a worker, in Dask's words
        raise MeasurementError(
            f"the workers of the cluster could not finish ({type(error).__name__}: {error}; out of memory?)"
        ) from error
    return groups


def _connected(client: Client) -> Any:
    distributed = imported("distributed", extra="dask", needed_for="sketching on a cluster")
    if not isinstance(client, distributed.Client):
        raise InputError(
            f"client is a distributed.Client, got {type(client).__name__}: Client(address) connects to a "
            "scheduler"
        )
    return client


def _grouped(task: bytes) -> bytes:
    labelled: list[tuple[Part, Hashable]]
    labelled, setting = pickle.loads(task)
    groups: dict[Hashable, Sketch] = {}
    for part, label in labelled:
        if label is None:
            continue
        made = sketch_or_error(part, setting)
        if not isinstance(made, Sketch):
            raise made
        groups[label] = groups[label].merge(made) if label in groups else made
    return pickled(groups)


def _merged(tables: list[bytes]) -> bytes:
    groups: dict[Hashable, Sketch] = {}
    for table in tables:
        for label, made in pickle.loads(table).items():
            groups[label] = groups[label].merge(made) if label in groups else made
    return pickled(groups)
