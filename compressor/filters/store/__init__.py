"""Kernels of any number of models on the disk: written, read, queried."""

from compressor.filters.store.layer import Layer
from compressor.filters.store.reading import Store
from compressor.filters.store.writing import StoreWriter, StreamedLayer

__all__ = ["Layer", "Store", "StoreWriter", "StreamedLayer"]
