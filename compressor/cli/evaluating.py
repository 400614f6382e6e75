"""What is asked of a cut model: a function of the user's, or how much of the original's outputs is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from torch import nn

from compressor.cli.batches import batches_of
from compressor.cli.objects import find_object
from compressor.search import Evaluate, OutputFidelity

__all__ = ["EvaluateOptions", "check_evaluation", "evaluation_of", "function_of"]

_PANEL = "Evaluation (one of the two)"


@dataclass(frozen=True)
class EvaluateOptions:
    """What is asked of every cut model."""

    evaluate: Annotated[
        str | None,
        typer.Option(
            "--evaluate",
            "-e",
            metavar="MODULE:FUNCTION",
            help="Function of a model that returns one number, larger = better: an accuracy on images that "
            "were not trained on.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    fidelity: Annotated[
        str | None,
        typer.Option(
            "--fidelity",
            metavar="MODULE:FUNCTION",
            help="Function without arguments that returns batches: how much of the original's outputs on "
            "them is still there, for want of labels.",
            rich_help_panel=_PANEL,
        ),
    ] = None


def check_evaluation(options: EvaluateOptions) -> None:
    """Raise what `evaluation_of` would raise for the options alone, before any work."""
    if (options.evaluate is None) == (options.fidelity is None):
        raise typer.BadParameter(
            "give a function of a model that says how good it is, --evaluate package.module:function, or "
            "--fidelity with a function that returns batches (one of the two)",
            param_hint="--evaluate",
        )
    if options.evaluate is not None:
        function_of(options.evaluate, "--evaluate")
    if options.fidelity is not None:
        batches_of(options.fidelity, option="--fidelity")


def evaluation_of(options: EvaluateOptions, net: nn.Module) -> tuple[Evaluate, str]:
    """The evaluation, and its name; `net` is the original, whose outputs a fidelity is held against."""
    if options.evaluate is not None:
        return function_of(options.evaluate, "--evaluate"), options.evaluate
    assert options.fidelity is not None, "check_evaluation came first"
    batches = batches_of(options.fidelity, option="--fidelity")
    return OutputFidelity(net, batches), f"fidelity on {options.fidelity}"


def function_of(spec: str, option: str) -> Callable[[nn.Module], float]:
    """The function that an option names; raises typer.BadParameter for what cannot be one of a model."""
    found = find_object(spec, option=option)
    if not callable(found) or isinstance(found, type):
        raise typer.BadParameter(
            f"{spec!r} is of type {type(found).__name__}: expected a function of a model", param_hint=option
        )
    return found
