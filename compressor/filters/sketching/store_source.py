"""A store of filters as a source of sketches, and what else may be given for one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.sketching.layers import Banks, Source
from compressor.filters.store import Store
from compressor.filters.store.journal import JOURNAL
from compressor.filters.store.layer import Layer

__all__ = ["Stored", "source_of"]


@dataclass(frozen=True)
class Stored:
    """The layers of a store, read a row group at a time; their peaks are known, so that once is enough.

    >>> import tempfile
    >>> from compressor.filters import StoreWriter
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with StoreWriter(folder) as writer:
    ...         writer.add("net", [FilterBank(torch.ones(2, 3, 3, 3), "conv1")])
    ...     source = Stored(Store.open(folder))
    ...     source.parts[0].layer, source.parts[0].peak
    (Layer(0, net: conv1, 6 kernels), tensor(1.))
    """

    store: Store

    @property
    def identity(self) -> str:
        """A digest of the store's journal, which holds a checksum of each file, and of the layers chosen."""
        digest = hashlib.sha256((self.store.folder / JOURNAL).read_bytes())
        digest.update(repr([layer.key for layer in self.store.layers]).encode())
        return digest.hexdigest()[:16]

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """One part for each layer."""
        return tuple(StoredPart(self.store.of([layer])) for layer in self.store.layers)


@dataclass(frozen=True)
class StoredPart:
    """A store of one layer as a part of a source."""

    store: Store

    @property
    def layer(self) -> Layer:
        """The layer."""
        return self.store.layers[0]

    @property
    def peak(self) -> Tensor:
        """Its largest |weight|, from the table of layers."""
        return torch.tensor(self.layer.peak, dtype=self.store.dtype)

    def chunks(self) -> Iterator[Tensor]:
        """Its row groups."""
        return self.store.chunks(self.layer)


def source_of(given: Source | Store | Iterable[FilterBank]) -> Source:
    """A source as it is, and one of a store or of banks; raises InputError for one without layers.

    >>> source_of([FilterBank(torch.randn(8, 4, 3, 3), "conv1")]).parts[0].layer
    Layer(0, : conv1, 32 kernels)
    """
    if isinstance(given, Store):
        found: Source = Stored(given)
    else:
        found = given if isinstance(given, Source) else Banks.of(given)
    if not found.parts:
        raise InputError(
            f"a {type(given).__name__} without layers was given to be sketched, expected one at least; was "
            "it an iterator that is used up, or a store that nothing was written to?"
        )
    return found
