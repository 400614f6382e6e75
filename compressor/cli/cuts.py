"""A cut that was made: the original, the smaller model and the plan, from a saved folder or a plan alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.model import ModelOptions, build
from compressor.cli.saved import SavedOptions, load_saved
from compressor.core.plan import Plan
from compressor.core.surgery import apply, plan_of

__all__ = ["Cut", "PlanOptions", "check_cut", "cut_of"]


@dataclass(frozen=True)
class PlanOptions:
    """A plan file."""

    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="A plan; with --saved instead of the plan in that folder.",
            rich_help_panel="Model",
        ),
    ] = None


@dataclass(frozen=True, eq=False)
class Cut:
    """A model, what was made of it, and by which plan."""

    original: nn.Module
    small: nn.Module
    plan: Plan


def check_cut(saved: SavedOptions, plan: PlanOptions, *, to: str) -> None:
    """Raise typer.BadParameter where neither a folder nor a plan says what `to` verify, or report on."""
    if saved.saved is None and plan.plan is None:
        raise typer.BadParameter(f"say what to {to}: --saved DIR, --plan FILE, or both", param_hint="--saved")


def cut_of(model: ModelOptions, saved: SavedOptions, plan: PlanOptions) -> Cut:
    """The cut of a saved folder, or what a plan alone makes of MODEL."""
    given = None if plan.plan is None else Plan.load(plan.plan)
    original = build(model)
    if saved.saved is None:
        assert given is not None, "check_cut came first"
        return Cut(original, apply(original, given), given)
    small = load_saved(model, saved.saved)
    made_by = given or plan_of(small)
    assert made_by is not None, "a loaded model knows its plan"
    return Cut(original, small, made_by)
