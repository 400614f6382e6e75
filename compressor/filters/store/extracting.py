"""Many models into one store: which were taken, which were there, which could not be read."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm

from compressor.errors import FileError, InputError, ModelError
from compressor.filters.onnx_files import Unread
from compressor.filters.store.hdf5 import open_filter_db
from compressor.filters.store.layer import Plain
from compressor.filters.store.naming import listed
from compressor.filters.store.reading import Store
from compressor.filters.store.sources import Contents, Source, Sources, sources_of
from compressor.filters.store.writing import StoreWriter

__all__ = ["Extraction", "extract", "import_filter_db"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Extraction:
    """What a run did: the models it added, those that were in the store already, and those left out."""

    store: Store
    added: tuple[str, ...]
    kept: tuple[str, ...]
    skipped: tuple[Unread, ...] = ()

    def __repr__(self) -> str:
        return f"Extraction({self})"

    def __str__(self) -> str:
        left = f", {len(self.skipped)} left out" if self.skipped else ""
        return f"{len(self.added)} models added, {len(self.kept)} there before{left}; {self.store}"


def extract(
    sources: Sources,
    folder: str | os.PathLike[str],
    *,
    kernel_size: Sequence[int] = (3, 3),
    metadata: Mapping[str, Mapping[str, Plain]] | None = None,
    skip_unreadable: bool = False,
    dtype: torch.dtype = torch.float32,
    allow_rounding: bool = False,
    progress: bool = False,
) -> Extraction:
    """Write the kernels of that size of many models to a store, and say what was done.

    `sources` is an ONNX file, a folder of which all .onnx files are taken, several of these, or a mapping
    from names of models to modules, banks, files, or functions that return one of these (so that one model
    is in memory at a time). Files name their model, by their path from the folder where two have one name.
    Banks of modules are those of `banks(model, kernel_size=...)`; for depths or folded batch norms give
    `banks(model, x, fold_batch_norm=True)` instead. Files are read by `read_onnx`; their facts become
    meta data under the published names. `metadata` holds more for models by their names.

    A run that was ended, by whatever, is continued by the same call: models in the store are not read
    again. A file that has changed since is a fault.

    Models that cannot be taken (unreadable files, files with convolutions that cannot be read, no such
    kernels, values that are not finite) do not keep the others from being stored; then they are an error
    that counts and names them or, with `skip_unreadable`, stand in `skipped` and in the log. `progress`
    draws a bar. `dtype` and `allow_rounding` are those of a `StoreWriter`, its errors as well.

    >>> import tempfile
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(extract({"net": net}, folder, metadata={"net": {"task": "Style"}}))
    1 models added, 0 there before; Store(2 layers of 1 models, 56 kernels of 3 x 3)
    """
    said = dict(metadata or {})
    found = sources_of(sources, tuple(kernel_size))
    strangers = sorted(set(said) - {source.model for source in found})
    if strangers:
        raise InputError(
            f"metadata speaks of {', '.join(map(repr, strangers[:5]))}, which is none of the {len(found)} "
            f"models; they are called {', '.join(source.model for source in found[:5])}, ..."
        )
    with StoreWriter(folder, kernel_size=kernel_size, dtype=dtype, allow_rounding=allow_rounding) as writer:
        return _stored(writer, found, said, skip_unreadable=skip_unreadable, progress=progress)


def import_filter_db(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    unify_segmentation: bool = False,
    skip_unreadable: bool = False,
    dtype: torch.dtype = torch.float32,
    allow_rounding: bool = False,
    progress: bool = False,
) -> Extraction:
    """Write the published HDF5 file of CNN Filter DB to a store, a model at a time.

    What is read, and how safely, is told at `open_filter_db`; kernels are held in parts of 19 MB. A run that
    was ended is continued by the same call. Kernels that no row of the meta data speaks of, and models with
    values that are not finite or that float32 does not hold exactly, are an error once all others are
    stored, or are left out as in `extract`; `dtype=torch.float64` keeps such values.

    The 105 GB of the published file are not hashed: `source_sha256` is None.
    """
    with open_filter_db(path, unify_segmentation=unify_segmentation) as database:
        if database.loose:
            said = f"{path}: no row of the meta data speaks of {database.loose} of {database.kernels} kernels"
            if not skip_unreadable:
                raise FileError(f"{said}; skip_unreadable=True (--skip-unreadable) leaves them out")
            log.warning("%s; they are left out", said)
        sources = [
            Source(model.name, lambda layers=model.layers: Contents(layers), database.path.name)  # type: ignore[misc]
            for model in database.models
        ]
        with StoreWriter(folder, dtype=dtype, allow_rounding=allow_rounding) as writer:
            return _stored(writer, sources, {}, skip_unreadable=skip_unreadable, progress=progress)


def _stored(
    writer: StoreWriter,
    sources: Sequence[Source],
    metadata: Mapping[str, Mapping[str, Plain]],
    *,
    skip_unreadable: bool,
    progress: bool,
) -> Extraction:
    added: list[str] = []
    kept: list[str] = []
    faults: list[Unread] = []
    for source in tqdm(sources, desc="extracting", unit="model", leave=False, disable=not progress):
        try:
            if source.model in writer:
                _check_unchanged(writer, source)
                kept.append(source.model)
                continue
            contents = source.read()
            digest = None if source.digest is None else source.digest()
        except (FileError, InputError, ModelError) as error:
            faults.append(Unread(source.model, str(error)))
            continue
        try:
            said = {**contents.metadata, **metadata.get(source.model, {})}
            writer.add(
                source.model, contents.layers, metadata=said, source=source.origin, source_sha256=digest
            )
            added.append(source.model)
        except InputError as error:  # what cannot be written is FileError, and ends the run
            faults.append(Unread(source.model, str(error)))
    if faults and not (skip_unreadable and (added or kept)):
        way = (
            "none is left"
            if skip_unreadable
            else "leave them out with skip_unreadable=True (--skip-unreadable)"
        )
        raise FileError(
            f"{writer.folder}: {len(faults)} of {len(sources)} models cannot be stored, the others are; "
            f"{way}:\n{listed(faults)}"
        )
    for fault in faults:
        log.warning("left out %s", fault)
    return Extraction(Store.open(writer.folder), tuple(added), tuple(kept), tuple(faults))


def _check_unchanged(writer: StoreWriter, source: Source) -> None:
    before = writer.source_sha256(source.model)
    if before is not None and source.digest is not None and source.digest() != before:
        raise InputError(
            f"{source.origin} has changed since it was stored as {source.model!r}; extract to another store, "
            "or give the model another name"
        )
