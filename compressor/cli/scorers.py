"""By what importance to remove, as the command line says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from compressor.cli.objects import close_to, find_object
from compressor.errors import InputError
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    Fisher,
    GeometricMedian,
    Norm,
    Random,
    Scorer,
    Taylor,
    WeightFunction,
)

__all__ = ["ScorerOptions", "scorer_of"]

_SCORERS: Mapping[str, Callable[[int], Scorer]] = {
    "norm": lambda seed: Norm(),
    "l1": lambda seed: Norm(1),
    "geometric-median": lambda seed: GeometricMedian(),
    "batch-norm-scale": lambda seed: BatchNormScale(),
    "lamp": lambda seed: LAMP(),
    "random": Random,
}
_DATA_SCORERS: Mapping[str, type[Taylor | Fisher]] = {"taylor": Taylor, "fisher": Fisher}


@dataclass(frozen=True)
class ScorerOptions:
    """By what importance."""

    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            "-s",
            metavar="NAME",
            help=f"Importance of a channel: {', '.join(_SCORERS)}; with --data and --loss: "
            f"{', '.join(_DATA_SCORERS)}; or package.module:attribute, a Scorer or a function of "
            "(weight, axis).",
            rich_help_panel="Scorer",
        ),
    ] = "norm"
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns batches (inputs, target).",
            rich_help_panel="Scorer",
        ),
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            metavar="MODULE:FUNCTION",
            help="Function of (output, target): torch.nn.functional:cross_entropy.",
            rich_help_panel="Scorer",
        ),
    ] = None
    batches: Annotated[
        int | None,
        typer.Option(
            "--batches",
            min=1,
            metavar="N",
            help="Use at most so many batches of --data.",
            rich_help_panel="Scorer",
        ),
    ] = None


def scorer_of(options: ScorerOptions, *, seed: int, progress: Callable[[int], None] | None = None) -> Scorer:
    """The scorer of the options; raises typer.BadParameter for an unknown name or missing data.

    `progress` is called with the number of batches done.

    >>> scorer_of(ScorerOptions("l1"), seed=0)
    Norm(p=1)
    """
    name = options.scorer
    if name in _DATA_SCORERS:
        return _data_scorer(name, options, progress)
    if options.data or options.loss or options.batches:
        raise typer.BadParameter(
            f"{name!r} reads no data; drop --data, --loss and --batches, or take one of "
            f"{', '.join(_DATA_SCORERS)}",
            param_hint="--scorer",
        )
    if name in _SCORERS:
        return _SCORERS[name](seed)
    if ":" in name:
        return _own_scorer(name)
    known = (*_SCORERS, *_DATA_SCORERS)
    raise typer.BadParameter(
        f"no scorer {name!r}{close_to(name, known)}; known are {', '.join(known)}, and your own "
        "as package.module:attribute",
        param_hint="--scorer",
    )


def _own_scorer(spec: str) -> Scorer:
    found = find_object(spec, option="--scorer")
    if isinstance(found, type) and issubclass(found, Scorer):
        found = found()
    if isinstance(found, Scorer):
        return found
    if not callable(found) or isinstance(found, type):
        raise typer.BadParameter(
            f"{spec!r} is of type {type(found).__name__}: expected a Scorer, or a function of (weight, axis)",
            param_hint="--scorer",
        )
    return WeightFunction(found)


def _data_scorer(name: str, options: ScorerOptions, progress: Callable[[int], None] | None) -> Scorer:
    if options.data is None or options.loss is None:
        raise typer.BadParameter(
            f"{name!r} measures on data: give --data package.module:function (it returns batches) "
            "and --loss package.module:function, such as torch.nn.functional:cross_entropy",
            param_hint="--scorer",
        )
    loss = find_object(options.loss, option="--loss")
    if not callable(loss):
        raise typer.BadParameter(
            f"{options.loss!r} is of type {type(loss).__name__}: expected a function of (output, target)",
            param_hint="--loss",
        )
    batches = _Batches(options.data, find_object(options.data, option="--data"))
    return _DATA_SCORERS[name](batches, loss, max_batches=options.batches, progress=progress)


@dataclass(frozen=True)
class _Batches:
    """The batches of a function, made anew for every pass: a generator lasts for one only."""

    spec: str
    source: object

    def __iter__(self) -> Iterator[object]:
        made = self.source() if callable(self.source) else self.source
        if not isinstance(made, Iterable):
            raise InputError(
                f"--data {self.spec} gives {type(made).__name__}, expected something to iterate "
                "over, such as a DataLoader"
            )
        return iter(made)
