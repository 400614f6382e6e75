"""Pruned models as folders: safetensors and JSON, never a pickle, loadable without this library."""

from __future__ import annotations

from compressor.persistence.reading import load
from compressor.persistence.writing import save, unpruned

__all__ = ["load", "save", "unpruned"]
