"""Saved folders as the command line reads and writes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from compressor.cli.inputs import Inputs
from compressor.cli.model import ModelOptions, build
from compressor.core.plan import Plan
from compressor.persistence import load, save

__all__ = ["OutOptions", "SavedOptions", "build_or_load", "load_saved", "save_folder"]


@dataclass(frozen=True)
class SavedOptions:
    """A saved folder."""

    saved: Annotated[
        Path | None,
        typer.Option(
            "--saved",
            metavar="DIR",
            help="Folder written by prune, apply or compressor.save; MODEL is its original.",
            rich_help_panel="Model",
        ),
    ] = None


@dataclass(frozen=True)
class OutOptions:
    """Where the smaller model goes."""

    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for the smaller model: plan.json, weights.safetensors, load_model.py.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ]
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace what was written before.", rich_help_panel="Output"),
    ] = False


def build_or_load(model: ModelOptions, saved: SavedOptions) -> nn.Module:
    """The saved model where a folder is given, else the one that MODEL builds."""
    if saved.saved is None:
        return build(model)
    if model.weights is not None:
        raise typer.BadParameter(
            "the folder of --saved has its own weights; drop one of the two",
            param_hint="--weights",
        )
    return load_saved(model, saved.saved)


def load_saved(model: ModelOptions, folder: Path) -> nn.Module:
    """The model of a saved folder, in eval mode; raises FileError."""
    return load(folder, lambda: build(model)).eval()


def save_folder(small: nn.Module, plan: Plan, given: Inputs | None, out: OutOptions) -> None:
    """Write the model, with its outputs on the inputs where these are all of one kind."""
    # A saved example is a tuple or a dict; a forward with both kinds is saved without one.
    example = None if given is None or (given.args and given.kwargs) else given.args or given.kwargs
    save(small, out.out, plan=plan, example=example, overwrite=out.overwrite)
