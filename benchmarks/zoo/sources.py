"""The sources of networks by name, with what has to be imported before their first network."""

from __future__ import annotations

import importlib

from benchmarks.zoo import timm, torchvision, transformers
from benchmarks.zoo.entry import Entry
from benchmarks.zoo.places import Missing, import_torchvision

__all__ = ["SOURCES", "entries"]

SOURCES = ("torchvision", "timm", "transformers")


def entries(source: str, shared: str | None, *, quick: bool) -> list[Entry]:
    """The networks of a source, with `quick` few and small ones; raises Missing where it is absent."""
    models = import_torchvision(shared)  # timm and transformers import it, too
    if source == "torchvision":
        return torchvision.entries(models, quick=quick)
    try:
        importlib.import_module(source)
    except ImportError as error:
        raise Missing(f"{source} cannot be imported: {error}") from error
    return timm.entries(quick=quick) if source == "timm" else transformers.entries(quick=quick)
