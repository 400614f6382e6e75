"""What the command line does about a cut: layers fitted anew, without labels."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from torch import nn

from compressor.cli.batches import batches_of
from compressor.cli.progress import Progress
from compressor.core.plan import Plan
from compressor.recovery import Reconstructed, reconstruct_

__all__ = ["RecoverOptions", "check_examples", "recover_", "recovered_data", "recovered_text"]


@dataclass(frozen=True)
class RecoverOptions:
    """Whether and from what to recover."""

    recover: Annotated[
        str | None,
        typer.Option(
            "--recover",
            metavar="MODULE:FUNCTION",
            help="Fit the layers behind the cut anew to what the original computes, by least squares on "
            "the batches that this function without arguments returns; a few hundred examples, no labels.",
            rich_help_panel="Recovery",
        ),
    ] = None


def check_examples(options: RecoverOptions) -> None:
    """Raise what `recover_` would raise for the option alone, before any work."""
    if options.recover is not None:
        batches_of(options.recover, option="--recover")


def recover_(
    small: nn.Module, original: nn.Module, plan: Plan, options: RecoverOptions, progress: Progress
) -> Reconstructed | None:
    """What was fitted, in place; None where nothing is asked for."""
    if options.recover is None:
        return None
    batches = batches_of(options.recover, option="--recover")
    with progress.step("reconstructing layers") as detail:
        return reconstruct_(
            small, original, batches, plan=plan, progress=lambda done, of: detail(f"{done} of {of}")
        )


def recovered_text(done: Reconstructed | None) -> list[str]:
    """The lines that tell of it."""
    if done is None:
        return []
    lines = ["no layer could be reconstructed"]
    if done.layers:
        before, after = (statistics.median(getattr(layer, at) for layer in done.layers) for at in _STAGES)
        lines = [
            f"reconstructed {len(done.layers)} layers: the median misses {after:.1%} of what the original "
            f"writes, {before:.1%} before"
        ]
    return lines + [f"{name} left as it was: {why}" for name, why in done.left.items()]


def recovered_data(done: Reconstructed | None) -> dict[str, Any] | None:
    """The same for programs."""
    if done is None:
        return None
    layers = {layer.weight: {at: getattr(layer, at) for at in _STAGES} for layer in done.layers}
    return {"layers": layers, "left": dict(done.left)}


_STAGES = ("before", "after")
