"""Reading a store: its layers as a table, its kernels a row group at a time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from compressor.errors import FileError, InputError
from compressor.filters.bank import FilterBank
from compressor.filters.kernel_sizes import size_words
from compressor.filters.store import journal
from compressor.filters.store.arrow import layer_rows, layer_table, opened, rows_of
from compressor.filters.store.layer import Layer
from compressor.filters.store.naming import listed
from compressor.filters.store.queries import query

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Store"]


@dataclass(frozen=True, repr=False)
class Store:
    """Kernels of any number of models on the disk, or those of some of their layers.

    A value: it holds the rows of the table of layers and no file, can be pickled for other processes, and
    reads when it is asked. Over all layers in bounded memory:

        for layer in store.layers:
            for rows_NK in store.chunks(layer):  # at most 32 MiB
                ...

    Raises FileError for files that are missing, truncated or changed, by name.

    >>> import tempfile
    >>> from compressor.filters.store import StoreWriter
    >>> bank = FilterBank(torch.randn(8, 4, 3, 3), "conv1")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with StoreWriter(folder) as writer:
    ...         writer.add("net", [bank], metadata={"task": "Classification"})
    ...     store = Store.open(folder)
    ...     store, torch.equal(store.bank(store.layers[0]).weight, bank.weight)
    (Store(1 layers of 1 models, 32 kernels of 3 x 3), True)
    """

    folder: Path
    head: journal.Head
    layers: tuple[Layer, ...]
    """The layers, in the order they were written."""

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Store:
        """The store in a folder.

        Of its files the sizes are looked at; `verify_store` reads them.
        """
        path = Path(folder)
        head = journal.read_head(path)
        entries, _ = journal.read_entries(path)
        faults = [fault for entry in entries for fault in journal.size_faults(path, entry)]
        if faults:
            raise FileError(
                f"{path}: {len(faults)} files of the store are not as written:\n" + listed(faults)
            )
        layers = [layer for entry in entries for layer in layer_rows(path / journal.layer_file(entry.part))]
        if [layer.key for layer in layers] != list(range(len(layers))):
            raise FileError(f"{path}: the tables of layers are not those of {journal.JOURNAL}")
        if any(layer.kernel_size != head.kernel_size for layer in layers):
            raise FileError(f"{path / journal.HEAD}: says {head}, and the tables of layers say otherwise")
        return cls(path, head, tuple(layers))

    def __repr__(self) -> str:
        size = size_words(self.kernel_size)
        return (
            f"Store({len(self.layers)} layers of {len(self.models)} models, {self.count} kernels of {size})"
        )

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The size of every kernel."""
        return self.head.kernel_size

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the stored values."""
        found: torch.dtype = getattr(torch, self.head.dtype)
        return found

    @property
    def count(self) -> int:
        """How many kernels there are."""
        return sum(layer.count for layer in self.layers)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models, in the order they were written."""
        return tuple(dict.fromkeys(layer.model for layer in self.layers))

    @cached_property
    def table(self) -> pa.Table:
        """The layers as an Arrow table: the fields of a `Layer`, then the meta data, null where none is."""
        return layer_table(self.layers)

    def chunks(self, layer: Layer) -> Iterator[Tensor]:
        """The kernels of a layer [n, K] a row group at a time, at most 32 MiB, in their order."""
        path = self._file(layer)
        for rows in rows_of(opened(path), path, layer):
            yield torch.from_numpy(rows)

    def kernels(self, layer: Layer) -> Tensor:
        """All kernels of a layer, [N, K]."""
        return self._kernels(opened(self._file(layer)), layer)

    def bank(self, layer: Layer) -> FilterBank:
        """The layer with its weight [O, I / groups, *k]; InputError where only its kernels are known."""
        return self._bank(opened(self._file(layer)), layer)

    def banks(self) -> Iterator[FilterBank]:
        """Every layer as a bank, one at a time in memory, in their order."""
        for path, layers in groupby(self.layers, key=self._file):
            file = opened(path)
            for layer in layers:
                yield self._bank(file, layer)

    def query(
        self,
        sql: str,
        *,
        tables: Mapping[str, pa.Table] | None = None,
        memory_limit: str = "1GB",
        temp_directory: str | os.PathLike[str] | None = None,
    ) -> pa.Table:
        """What a SELECT gives over the table `layers`, and over other `tables` by their names.

        Names with other signs than letters stand in double quotes: "Visual Category". See `query`, which
        also says what is raised.

        >>> import tempfile
        >>> from compressor.filters.store import extract
        >>> nets = {name: [FilterBank(torch.randn(8, 4, 3, 3), "conv")] for name in "abc"}
        >>> tasks = {name: {"task": "Style" if name == "b" else "Segmentation"} for name in nets}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = extract(nets, folder, metadata=tasks).store
        ...     store.query("select task, sum(count) as n from layers group by task order by n").to_pylist()
        ...     store.select("task = 'Segmentation'").models
        [{'task': 'Style', 'n': 32}, {'task': 'Segmentation', 'n': 64}]
        ('a', 'c')
        """
        given = {"layers": self.table, **(tables or {})}
        return query(given, sql, memory_limit=memory_limit, temp_directory=temp_directory)

    def select(self, condition: str, *, tables: Mapping[str, pa.Table] | None = None) -> Store:
        """The layers that a condition in SQL holds for, in their order, as a store.

        It may ask other `tables`: "key in (select key from sketches where ...)". Raises InputError where it
        holds for none, and as `query` does.
        """
        found = self.query(f"SELECT key FROM layers WHERE ({condition})", tables=tables)
        keys = set(found.column("key").to_pylist())
        if not keys:
            raise InputError(
                f"{self.folder}: of {len(self.layers)} layers none is such that {condition}; to see what "
                'values there are: store.query("select distinct ... from layers")'
            )
        return self.of(layer for layer in self.layers if layer.key in keys)

    def of(self, layers: Iterable[Layer]) -> Store:
        """The same store with some of its layers only."""
        return replace(self, layers=tuple(layers))

    def _file(self, layer: Layer) -> Path:
        if not isinstance(layer, Layer):
            raise InputError(f"a layer of a store is one of store.layers, got {type(layer).__name__}")
        return self.folder / journal.kernel_file(layer.part)

    def _kernels(self, file: object, layer: Layer) -> Tensor:
        parts = list(rows_of(file, self._file(layer), layer))
        return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts))

    def _bank(self, file: object, layer: Layer) -> FilterBank:
        if layer.out_channels is None or layer.in_channels is None:
            raise InputError(
                f"layer {layer.key} ({layer}) is known by its kernels only, not which filters they belong "
                "to, as in the first release of CNN Filter DB; store.kernels(layer) and store.chunks(layer) "
                "read them"
            )
        kernels = self._kernels(file, layer)
        return FilterBank(
            kernels.view(layer.out_channels, layer.in_channels, *self.kernel_size),
            layer.layer_name,
            model=layer.model,
            layer_id=layer.layer_id,
            conv_depth=layer.conv_depth,
            conv_depth_norm=layer.conv_depth_norm,
            groups=layer.groups,
            transposed=layer.transposed,
            folded=layer.folded,
        )
