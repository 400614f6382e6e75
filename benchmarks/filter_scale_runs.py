"""The measured parts of `filter_scale`: synthetic layers, clocks, and the memory of all processes."""

from __future__ import annotations

import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from benchmarks.filter_plain import BASELINES
from benchmarks.zoo import ROOT
from compressor.filters import FilterBank, Layer
from compressor.filters.basis import Basis
from compressor.filters.sketching import SketchSetting, sketch, sketch_all
from compressor.filters.sketching.folder import RunFolder
from compressor.filters.sketching.running import pool_of
from compressor.filters.sketching.tally import Peak, Tally
from compressor.filters.store import Store, StoreWriter, StreamedLayer

__all__ = ["Memory", "Synthetic", "SyntheticPart", "chunkings", "one_size", "parquet", "rate", "setting"]

FILTERS, CHANNELS = 256, 256
KERNELS = FILTERS * CHANNELS  # of a layer; those of CNN Filter DB have 68,334 on average
_CHUNK = 1 << 17


def setting() -> SketchSetting:
    """Principal axes of other kernels of the same kind: a dense basis, like any that is fitted."""
    return SketchSetting(Basis.of_kernels(kernels(-1, 0, 10_000) @ kernels(-2, 0, 9)))


def kernels(seed: int, start: int, count: int, *, sparse: float = 0.0) -> Tensor:
    """Normal kernels [count, 9] of a layer, from its kernel `start` on, of which a share is sparse."""
    generator = torch.Generator().manual_seed((seed * 1_000_003 + start) % (1 << 63))
    made_NK = torch.randn(count, 9, generator=generator)
    if sparse:
        made_NK[:: round(1 / sparse)] *= 1e-3
    return made_NK


@dataclass(frozen=True)
class SyntheticPart:
    """A layer that is made as it is read."""

    place: int
    filters: int = FILTERS
    sparse: float = 1 / 16

    @property
    def layer(self) -> Layer:
        return Layer(
            self.place,
            f"model{self.place // 32}",
            "conv",
            self.filters * CHANNELS,
            layer_id=self.place % 32,
            out_channels=self.filters,
            in_channels=CHANNELS,
        )

    @property
    def peak(self) -> None:
        """Found in a first pass, as for files that do not say."""

    def chunks(self) -> Iterator[Tensor]:
        count = self.filters * CHANNELS
        for start in range(0, count, _CHUNK):
            yield kernels(self.place, start, min(_CHUNK, count - start), sparse=self.sparse)


@dataclass(frozen=True)
class Synthetic:
    """A source of synthetic layers; `layers=1` puts all kernels into one."""

    kernels: int
    layers: int | None = None

    @property
    def identity(self) -> str:
        return f"synthetic {self.kernels} {self.layers}"

    @property
    def parts(self) -> tuple[SyntheticPart, ...]:
        layers = self.layers or max(1, self.kernels // KERNELS)
        return tuple(SyntheticPart(place, self.kernels // layers // CHANNELS) for place in range(layers))


@dataclass
class Memory:
    """The largest resident memory of this process and its children together, in MB, seen 20 times a second.

    What processes share is counted once for each: an upper bound.
    """

    peak_mb: float = 0.0
    largest_process_mb: float = 0.0
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        here = psutil.Process()
        while not self._end.wait(0.05):
            sizes = []
            for process in [here, *here.children(recursive=True)]:
                try:
                    sizes.append(process.memory_info().rss / 2**20)
                except psutil.NoSuchProcess:
                    continue
            self.peak_mb = max(self.peak_mb, sum(sizes))
            self.largest_process_mb = max(self.largest_process_mb, *sizes)


@lru_cache(maxsize=2)
def _layer(seed: int, count: int, sparse: float) -> Tensor:
    return kernels(seed, 0, count, sparse=sparse)


def rate(which: str, seed: int, count: int, sparse: float) -> tuple[float, float]:
    """Wall and CPU seconds (all threads of the process) of one layer; runs in a process of its own."""
    kernels_NK, rows = _layer(seed, count, sparse), 1024
    work = _work(which, kernels_NK, rows)
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _work(which: str, kernels_NK: Tensor, rows: int) -> Callable[[], object]:
    how = _setting()
    if which in BASELINES:
        mean, components = how.basis.mean_K.numpy(), how.basis.components_KK.numpy()
        return lambda: BASELINES[which](kernels_NK.numpy(), mean, components, rows)
    bank = FilterBank(kernels_NK.reshape(rows, -1, 3, 3), "layer")
    return lambda: sketch(bank, how)


_setting = lru_cache(maxsize=1)(setting)


def chunkings(count: int) -> dict[str, Any]:
    """Whether counts are identical and how far moments are apart, for kernels cut in several ways."""
    sizes = [count, count // 10 - 17, 65_536, 4_099]
    kernels_NK = kernels(0, 0, count, sparse=1 / 16)
    made = [_chunked(kernels_NK, size) for size in sizes]
    apart = 0.0
    for other in made[1:]:
        for name in ("raw", "clean", "scaled", "scaled_clean"):
            one, two = getattr(made[0], name).covariance, getattr(other, name).covariance
            apart = max(apart, float((one - two).abs().max()))
    same = all(
        torch.equal(made[0].counts_KB, other.counts_KB)
        and torch.equal(made[0].sparse_2E, other.sparse_2E)
        and (made[0].dead_filters, made[0].dead_channels) == (other.dead_filters, other.dead_channels)
        for other in made[1:]
    )
    return {
        "kernels": count,
        "sizes": sizes,
        "identical counts": same,
        "largest difference of covariances": apart,
    }


def _chunked(kernels_NK: Tensor, size: int) -> Any:
    peak = Peak("layer")
    for chunk_NK in kernels_NK.split(size):
        peak.add(chunk_NK)
    tally = Tally(_setting(), peak.value, named="layer", shape=(1000, len(kernels_NK) // 1000))
    for chunk_NK in kernels_NK.split(size):
        tally.add(chunk_NK)
    return tally.sketch()


def out_folder(name: str) -> Path:
    """Where a run that can go on keeps what it has."""
    folder = ROOT / "out" / "filter_scale" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def one_size(count: int, layers: int, workers: int) -> dict[str, Any]:
    """Sketch so many synthetic kernels; goes on where it was interrupted."""
    source, how = Synthetic(count, layers or None), setting()
    folder = out_folder(f"{count}-{layers or 'many'}")
    import_mb = psutil.Process().memory_info().rss / 2**20
    before = sum(sketch.count for _, sketch in RunFolder(folder, source, how).done().values())
    row: dict[str, Any] = {}
    with Memory() as memory, _pool(row, workers) as executor, _timed(row, "sketch"):
        made = sketch_all(source, how, into=folder, executor=executor, workers=workers, progress=True)
    making = time.process_time()
    for chunk_NK in SyntheticPart(0, 16 * FILTERS).chunks():
        del chunk_NK
    making = (time.process_time() - making) / (16 * KERNELS)
    total = made.total()
    assert total.count == sum(part.layer.count for part in source.parts)
    assert total.counts_KB.sum(dim=1).tolist() == [total.count] * 9
    shutil.rmtree(folder)
    return row | {
        "asked": [count, layers],
        "kernels": total.count,
        "kernels done": total.count - before,
        "layers": len(made),
        "workers": workers,
        "making": 2 * making * total.count,  # one pass for the peak, one for all else
        "peak MB": memory.peak_mb,
        "largest process MB": memory.largest_process_mb,
        "import MB": import_mb,
    }


def parquet(count: int, *, workers: int) -> dict[str, Any]:
    """Write synthetic layers to a store, read them, read and sketch them."""
    folder = out_folder("parquet")
    shutil.rmtree(folder)
    parts = Synthetic(count).parts
    row: dict[str, Any] = {
        "layers": len(parts),
        "workers": workers,
        "kernels": sum(p.layer.count for p in parts),
    }
    with _timed(row, "write"), StoreWriter(folder / "store") as writer:
        for model, layers in groupby(parts, key=lambda part: part.layer.model):
            writer.add(model, [_streamed(part) for part in layers])
    store = Store.open(folder / "store")
    row["bytes"] = sum(file.stat().st_size for file in (folder / "store").rglob("*") if file.is_file())
    with _timed(row, "read"):
        for layer in store.layers:
            for chunk_NK in store.chunks(layer):
                del chunk_NK
    with _pool(row, workers) as executor, _timed(row, "read and sketch"):
        sketch_all(store, setting(), into=folder / "run", executor=executor, workers=workers, progress=True)
    row["table bytes"] = (folder / "run" / "sketches.parquet").stat().st_size
    shutil.rmtree(folder)
    return row


def _streamed(part: SyntheticPart) -> StreamedLayer:
    layer = part.layer
    return StreamedLayer(
        layer.layer_name,
        layer.count,
        part.chunks(),
        out_channels=layer.out_channels,
        in_channels=layer.in_channels,
        layer_id=layer.layer_id,
    )


@contextmanager
def _timed(row: dict[str, Any], what: str) -> Iterator[None]:
    wall, cpu = time.perf_counter(), _cpu()
    yield
    row[what] = {"wall": time.perf_counter() - wall, "cpu": _cpu() - cpu}


@contextmanager
def _pool(row: dict[str, Any], workers: int) -> Iterator[Executor | None]:
    """The processes that `sketch_all` would start, ready; how long that took goes into the row."""
    with pool_of(workers, None) as executor:
        with _timed(row, "start"):
            # Long enough that none of them takes two.
            for future in [executor.submit(time.sleep, 1) for _ in range(workers)] if executor else []:
                future.result()
        yield executor


def _cpu() -> float:
    """CPU seconds of this process and of its children, also those that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + ended.ru_utime + ended.ru_stime + sum(one.user + one.system for one in alive)
