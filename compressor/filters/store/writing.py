"""Writing a store: a model is in it whole or not at all, whenever the process ends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from compressor.errors import FileError, InputError
from compressor.extras import imported
from compressor.filters.bank import FilterBank
from compressor.filters.kernel_sizes import size_words
from compressor.filters.store import journal
from compressor.filters.store.arrow import KernelFile, Rows, write_layers
from compressor.filters.store.exactness import Exactness
from compressor.filters.store.layer import Layer, Plain
from compressor.filters.store.metadata import kinds_of
from compressor.filters.store.resuming import ASIDE, locked, resumed
from compressor.filters.store.streamed import StreamedLayer
from compressor.whole_files import on_disk

__all__ = ["StoreWriter"]


class StoreWriter:
    """Writes banks of models to a folder, a `Store`; goes on with one that is there.

    A model is in the store once `add` returns: its files are on the disk under their names before the line
    that makes them count is. A process may be killed at any time; the next writer removes what it left, and
    `model in writer` says which models need not be read again. One process writes at a time.

    The store holds kernels of one size, as float32 or, on request, float64; kernels of other sizes belong to
    stores of their own, as no basis and no moments span both. Values that float32 does not hold to the last
    bit are an error: `dtype=torch.float64` keeps them, `allow_rounding=True` rounds them and logs how many.

    Layout: `store.json` (format, version, kernel size, dtype), `models.jsonl` (a line for each model, with
    the checksums of its files), `kernels/*.parquet` (columns `layer`, f0 ... f{K-1}; a file for each model,
    row groups of at most 32 MiB, each of one layer), `layers/*.parquet` (a row for each layer, see
    `Layer`).

    Raises FileError for a folder that holds something else, a damaged store, or one that another process is
    writing to; InputError where the store there is of another kernel size or dtype; MissingExtraError
    without the extra `filters`.

    >>> import tempfile
    >>> bank = FilterBank(torch.randn(8, 4, 3, 3), "conv1")
    >>> with tempfile.TemporaryDirectory() as folder, StoreWriter(folder) as writer:
    ...     writer.add("net", [bank], metadata={"task": "Classification"})
    ...     "net" in writer, writer
    (True, StoreWriter(1 models, 32 kernels of 3 x 3))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        kernel_size: Sequence[int] = (3, 3),
        dtype: torch.dtype = torch.float32,
        allow_rounding: bool = False,
    ) -> None:
        self.folder = Path(folder)
        size = tuple(kernel_size)
        if not size or not all(isinstance(length, int) and length > 0 for length in size):
            raise InputError(
                f"kernel_size is a tuple of positive lengths such as (3, 3), got {kernel_size!r}"
            )
        self._exactness = Exactness(dtype, allow_rounding=allow_rounding)
        self._head = journal.Head(size, self._exactness.numpy.name)
        imported("pyarrow", extra="filters", needed_for="a store of filters")
        self._lock = locked(self.folder)
        try:
            self._entries = {entry.model: entry for entry in resumed(self.folder, self._head)}
        except BaseException:
            self.close()
            raise
        self._kinds: dict[str, str] = {}
        for entry in self._entries.values():
            self._kinds.update(entry.kinds)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, model: object) -> bool:
        return model in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        kernels = sum(entry.kernels for entry in self._entries.values())
        size = size_words(self._head.kernel_size)
        return f"StoreWriter({len(self)} models, {kernels} kernels of {size})"

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The size of the kernels that the store holds."""
        return self._head.kernel_size

    def close(self) -> None:
        """Let other processes write; what was added is on the disk already."""
        self._lock.release()

    def source_sha256(self, model: str) -> str | None:
        """The digest of the file that a model of the store was read from, None where it was not said."""
        return self._entries[model].source_sha256

    def add(
        self,
        model: str,
        layers: Iterable[FilterBank | StreamedLayer],
        *,
        metadata: Mapping[str, Plain] | None = None,
        source: str | None = None,
        source_sha256: str | None = None,
    ) -> None:
        """Write a model; `layers` are taken one by one, so that a generator keeps one in memory.

        `metadata` becomes columns of all its layers: strings, numbers, truth values or None, of one kind for
        one name in the whole store. `source` says where the model came from.

        Raises InputError for a model that is in the store, no layers, kernels of another size, values that
        are not finite or would be rounded, and meta data that cannot be a column; FileError where the system
        does not let it write. The store is then as it was.
        """
        self._check_new(model)
        first_key = sum(entry.layers for entry in self._entries.values())
        said = {"model": model, "part": len(self), "source": source, "source_sha256": source_sha256}
        aside = self.folder / ASIDE
        try:
            aside.mkdir()
            written = self._write(aside, first_key, said, layers, metadata or {})
            kinds = kinds_of(model, written, self._kinds)
            write_layers(aside / "layers.parquet", written)
            entry = self._place(aside, written, kinds)
            journal.append(self.folder, entry)
        except OSError as error:
            raise FileError(f"{self.folder}: model {model!r} cannot be written: {error}") from error
        except KeyboardInterrupt:
            self.close()  # whether the line is in the journal is read from there by the next writer
            raise
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._entries[model] = entry
        self._kinds.update(kinds)

    def _check_new(self, model: str) -> None:
        if not isinstance(model, str) or not model:
            raise InputError(f"the name of a model is a string, got {model!r}")
        if not self._lock.is_locked:
            raise InputError(
                f"{self.folder}: the writer is closed; StoreWriter(folder) goes on with the store"
            )
        if model in self._entries:
            raise InputError(
                f"{self.folder}: model {model!r} is in the store; ask first: {model!r} in writer"
            )

    def _write(
        self,
        aside: Path,
        first_key: int,
        said: Mapping[str, Any],
        layers: Iterable[FilterBank | StreamedLayer],
        metadata: Mapping[str, Plain],
    ) -> list[Layer]:
        """Write the kernels of a model; its layers as rows of the table."""
        written: list[Layer] = []
        file = KernelFile(aside / "kernels.parquet", self._head.width, self._exactness.numpy)
        try:
            for given in layers:
                layer = _streamed(given, said["model"])
                where = f"{said['model']}: {layer.name}"
                key, group = first_key + len(written), file.groups
                count, peak = file.write(key, self._rows(layer, where))
                layer.check_count(count, where)
                place = {"key": key, "peak": peak, "row_group": group, "row_groups": file.groups - group}
                written.append(self._row(layer, {**said, **place}, metadata))
        finally:
            file.close()
        if not written:
            raise InputError(f"{self.folder}: model {said['model']!r} has no layers to be stored")
        return written

    def _rows(self, layer: StreamedLayer, where: str) -> Iterator[Rows]:
        for part in layer.parts:
            yield self._exactness.rows(part, self.kernel_size, where)

    def _row(self, layer: StreamedLayer, said: Mapping[str, Any], metadata: Mapping[str, Plain]) -> Layer:
        return Layer(
            layer_name=layer.name,
            count=layer.count,
            layer_id=layer.layer_id,
            conv_depth=layer.conv_depth,
            conv_depth_norm=layer.conv_depth_norm,
            out_channels=layer.out_channels,
            in_channels=layer.in_channels,
            groups=layer.groups,
            kernel_size=self.kernel_size,
            transposed=layer.transposed,
            folded=layer.folded,
            metadata={**metadata, **layer.metadata},
            **said,
        )

    def _place(self, aside: Path, written: Sequence[Layer], kinds: Mapping[str, str]) -> journal.Entry:
        """Give the files their names; the entry that makes them count."""
        first = written[0]
        places = {
            journal.kernel_file(first.part): aside / "kernels.parquet",
            journal.layer_file(first.part): aside / "layers.parquet",
        }
        files = {}
        for name, draft in places.items():
            files[name] = {"bytes": draft.stat().st_size, "sha256": journal.sha256_of(draft)}
            on_disk(draft)
            os.replace(draft, self.folder / name)
        for name in journal.FOLDERS:
            on_disk(self.folder / name)
        return journal.Entry(
            model=first.model,
            part=first.part,
            first_key=first.key,
            layers=len(written),
            kernels=sum(layer.count for layer in written),
            source_sha256=first.source_sha256,
            kinds=kinds,
            files=files,
        )


def _streamed(given: FilterBank | StreamedLayer, model: str) -> StreamedLayer:
    if isinstance(given, StreamedLayer):
        return given
    if not isinstance(given, FilterBank):
        raise InputError(f"{model}: layers are FilterBanks or StreamedLayers, got {type(given).__name__}")
    if given.model not in ("", model):
        raise InputError(
            f"{given.name} is a bank of the model {given.model!r} and was to be stored as {model!r}"
        )
    return StreamedLayer.of(given)
