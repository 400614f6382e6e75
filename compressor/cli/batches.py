"""Batches that a function of the user's returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from compressor.cli.objects import find_object
from compressor.errors import InputError

__all__ = ["Batches", "batches_of"]


@dataclass(frozen=True)
class Batches:
    """The batches of a function, made anew for every pass: a generator lasts for one only."""

    option: str
    spec: str
    source: object

    def __iter__(self) -> Iterator[object]:
        made = self.source() if callable(self.source) else self.source
        if not isinstance(made, Iterable) or isinstance(made, Mapping | str):
            raise InputError(
                f"{self.option} {self.spec} gives {type(made).__name__}, expected something to iterate "
                "over, such as a DataLoader"
            )
        return iter(made)


def batches_of(spec: str, *, option: str) -> Batches:
    """The batches that the object `spec` names gives; raises typer.BadParameter where there is none."""
    return Batches(option, spec, find_object(spec, option=option))
