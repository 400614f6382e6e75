"""Comparing groups of layers by their sketches."""

from __future__ import annotations

from pathlib import Path

import typer

from compressor.cli.command import Result
from compressor.cli.filters.drifts import HEAD, cells, plain
from compressor.cli.objects import close_to
from compressor.errors import InputError
from compressor.filters import Basis, Layer, Sketches
from compressor.tables import aligned

__all__ = ["compare_groups", "is_sketch"]


def is_sketch(text: str) -> bool:
    """Whether this is a file of sketches, by its name."""
    return text.endswith(".parquet")


def compare_groups(before: str, after: str | None, *, by: str | None, basis: Basis | None) -> Result:
    """The drift between the layers of two files of sketches, or of every two groups of one.

    Raises typer.BadParameter for files without groups, InputError for sketches of different settings, a
    column that is not there, or fewer than two groups.
    """
    first = Sketches.read(Path(before))
    if after is None:
        if by is None:
            raise typer.BadParameter(
                "there is one file: give another, or --by the column that makes groups of its layers",
                param_hint="AFTER",
            )
        pairs = first.drifts(lambda layer: _value(layer, by), basis=basis)
        if not pairs:
            raise InputError(f"{before}: {by!r} {_columns(first, by)}")
        rows = [
            ({"groups": [str(a), str(b)], **plain(d)}, [str(a), str(b), *cells(d)])
            for (a, b), d in pairs.items()
        ]
        text = "\n".join(aligned([["group", "and group", *HEAD], *(row for _, row in rows)], left=2))
        return Result(text, {"by": by, "pairs": [data for data, _ in rows]})
    if by is not None:
        raise typer.BadParameter("groups are those within one file: leave AFTER out", param_hint="--by")
    if not is_sketch(after):
        raise typer.BadParameter(
            f"{before} is a file of sketches, so that {after} has to be one, too: see `filters sketch`",
            param_hint="AFTER",
        )
    second = Sketches.read(Path(after))
    found = first.total().drift(second.total(), basis=basis)
    return Result("\n".join(aligned([["", *HEAD], ["all layers", *cells(found)]])), {"whole": [plain(found)]})


def _value(layer: Layer, by: str) -> str | int | float | bool | None:
    if by == "model":
        return layer.model
    return layer.metadata.get(by)


def _columns(sketches: Sketches, by: str) -> str:
    known = sorted({"model", *(name for layer in sketches.layers for name in layer.metadata)})
    if by in known:
        return "has the same value in all layers that have one: there are no two groups"
    return f"is no column of its layers{close_to(by, known)}; there are {', '.join(known)}"
