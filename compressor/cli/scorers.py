"""By what importance to remove, as the command line says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

from compressor.cli.batches import batches_of
from compressor.cli.objects import close_to, find_object
from compressor.scoring import (
    CHIP,
    DEFAULT,
    LAMP,
    WHC,
    APoZ,
    BatchNormScale,
    BetaRank,
    FilterQuality,
    Fisher,
    GateTaylor,
    GeometricMedian,
    GraSP,
    Hessian,
    MeanActivation,
    Norm,
    Random,
    ReconstructionError,
    Scorer,
    SynFlow,
    Taylor,
    WeightFunction,
)
from compressor.scoring.gradients import Loss

__all__ = ["ScorerOptions", "scorer_of"]

_SCORERS: Mapping[str, Callable[[int], Scorer]] = {
    "norm": lambda seed: DEFAULT,
    "l1": lambda seed: Norm(1),
    "geometric-median": lambda seed: GeometricMedian(),
    "batch-norm-scale": lambda seed: BatchNormScale(),
    "lamp": lambda seed: LAMP(),
    "whc": lambda seed: WHC(),
    "filter-quality": lambda seed: FilterQuality(),
    "syn-flow": lambda seed: SynFlow(),
    "random": Random,
}
# HRank is not among them: it needs a second scorer.
_ACTIVATION_SCORERS: Mapping[str, type[APoZ | MeanActivation | CHIP | BetaRank | ReconstructionError]] = {
    "apoz": APoZ,
    "mean-activation": MeanActivation,
    "chip": CHIP,
    "beta-rank": BetaRank,
    "reconstruction-error": ReconstructionError,
}
_LOSS_SCORERS: Mapping[str, type[Taylor | Fisher | GateTaylor | GraSP | Hessian]] = {
    "taylor": Taylor,
    "fisher": Fisher,
    "gate-taylor": GateTaylor,
    "grasp": GraSP,
    "hessian": Hessian,
}
_DATA_SCORERS = (*_ACTIVATION_SCORERS, *_LOSS_SCORERS)


@dataclass(frozen=True)
class ScorerOptions:
    """By what importance."""

    scorer: Annotated[
        str,
        typer.Option(
            "--scorer",
            "-s",
            metavar="NAME",
            help=f"Importance of a channel: {', '.join(_SCORERS)}; with --data: "
            f"{', '.join(_ACTIVATION_SCORERS)}; with --data and --loss: {', '.join(_LOSS_SCORERS)}; or "
            "package.module:attribute, a Scorer or a function of (weight, axis).",
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
    needs_loss = name in _LOSS_SCORERS
    if options.data is None or (needs_loss and options.loss is None):
        loss = " and --loss package.module:function, such as torch.nn.functional:cross_entropy"
        raise typer.BadParameter(
            f"{name!r} measures on data: give --data package.module:function (it returns batches)"
            f"{loss if needs_loss else ''}",
            param_hint="--scorer",
        )
    batches = batches_of(options.data, option="--data")
    if needs_loss:
        assert options.loss is not None
        return _LOSS_SCORERS[name](
            batches, _loss(options.loss), max_batches=options.batches, progress=progress
        )
    if options.loss is not None:
        raise typer.BadParameter(
            f"{name!r} measures no loss; drop --loss, or take one of {', '.join(_LOSS_SCORERS)}",
            param_hint="--scorer",
        )
    return _ACTIVATION_SCORERS[name](batches, max_batches=options.batches, progress=progress)


def _loss(spec: str) -> Loss:
    loss = find_object(spec, option="--loss")
    if not callable(loss):
        raise typer.BadParameter(
            f"{spec!r} is of type {type(loss).__name__}: expected a function of (output, target)",
            param_hint="--loss",
        )
    return loss
