"""Kernels of any number of models on the disk: written, read, queried."""

from compressor.filters.store.extracting import Extraction, extract, import_filter_db
from compressor.filters.store.hdf5 import FilterDb, PublishedModel, open_filter_db
from compressor.filters.store.layer import Layer
from compressor.filters.store.queries import query
from compressor.filters.store.reading import Store
from compressor.filters.store.streamed import StreamedLayer
from compressor.filters.store.verifying import Verified, verify_store
from compressor.filters.store.writing import StoreWriter

__all__ = [
    "Extraction",
    "FilterDb",
    "Layer",
    "PublishedModel",
    "Store",
    "StoreWriter",
    "StreamedLayer",
    "Verified",
    "extract",
    "import_filter_db",
    "open_filter_db",
    "query",
    "verify_store",
]
