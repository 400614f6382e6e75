"""The sources of networks by name, with what has to be imported before their first network."""

from __future__ import annotations

import importlib

from benchmarks.zoo import timm
from benchmarks.zoo.entry import Entry
from benchmarks.zoo.places import Missing, import_torchvision

__all__ = ["SOURCES", "entries"]

SOURCES = ("timm",)


def entries(source: str, shared: str | None) -> list[Entry]:
    """All networks of a source; raises Missing where it is not installed."""
    import_torchvision(shared)
    try:
        importlib.import_module(source)
    except ImportError as error:
        raise Missing(f"{source} cannot be imported: {error}") from error
    return {"timm": timm.entries}[source]()
