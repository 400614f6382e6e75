"""The model a command works on: built by the user's function or by name, with its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from compressor import models
from compressor.cli.objects import close_to, find_object, meant_object
from compressor.cli.weights import load_weights_
from compressor.errors import CompressorError, InputError, ModelError

__all__ = ["ModelOptions", "build", "device_of", "warn_if_random"]


@dataclass(frozen=True)
class ModelOptions:
    """Which model."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="package.module:attribute, a function without arguments that returns a model, or "
            "a model (the current directory is importable); or a name such as resnet56_cifar from "
            "compressor.models.",
            show_default=False,
        ),
    ]
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="FILE",
            help="Weights to load: .safetensors, or .pt/.pth with a state dict (plain or under "
            "'state_dict'). Without it the weights are those the model is built with.",
            rich_help_panel="Model",
        ),
    ] = None
    device: Annotated[
        str,
        typer.Option("--device", help="Where to run: cpu, cuda, mps.", rich_help_panel="Model"),
    ] = "cpu"
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            help="Seed of random weights, inputs and scores.",
            rich_help_panel="Model",
        ),
    ] = 0


def build(options: ModelOptions) -> nn.Module:
    """The model of the options with its weights on its device, in eval mode.

    Raises typer.BadParameter where MODEL names no model, FileError where the weights do not fit.
    """
    model = _named(options.model, options.seed)
    if options.weights is not None:
        load_weights_(model, options.weights)
    return model.to(device_of(options)).eval()


def device_of(options: ModelOptions) -> torch.device:
    """The device of the options; raises typer.BadParameter where this machine has none such."""
    try:
        device = torch.device(options.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA asserts
        raise typer.BadParameter(
            f"{options.device!r} cannot be used: {str(error).splitlines()[0]}",
            param_hint="--device",
        ) from error
    return device


def warn_if_random(options: ModelOptions) -> None:
    """Say on stderr that importance means nothing where the weights are surely random."""
    if ":" not in options.model and options.weights is None:
        typer.secho(
            f"warning: {options.model} has random weights, so importance is random, too; give --weights FILE",
            err=True,
            fg=typer.colors.YELLOW,
        )


def _named(spec: str, seed: int) -> nn.Module:
    """The model, its random weights those of the seed: what importing its module draws does not count."""
    found = find_object(spec, option="MODEL") if ":" in spec else None
    torch.manual_seed(seed)
    if ":" in spec:
        return _made(spec, found)
    if spec in models.names():
        return models.create(spec)
    meant = close_to(spec, models.names()) or meant_object(spec)
    raise typer.BadParameter(
        f"{spec!r} is neither package.module:attribute nor the name of a model of the library"
        f"{meant or '; its models are ' + ', '.join(models.names())}",
        param_hint="MODEL",
    )


def _made(spec: str, found: object) -> nn.Module:
    if isinstance(found, nn.Module):
        return copy.deepcopy(found)  # a command may need the original twice
    if not callable(found):
        raise typer.BadParameter(
            f"{spec!r} is of type {type(found).__name__}: expected a model, or a function without "
            "arguments that returns one",
            param_hint="MODEL",
        )
    try:
        made = found()
    except CompressorError:
        raise
    except Exception as error:
        raise ModelError(
            f"{spec} cannot build a model: {type(error).__name__}: {error}. It is called without "
            "arguments; wrap it in a function that gives it those it needs"
        ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{spec} returns {type(made).__name__}, expected a torch.nn.Module")
    return made
