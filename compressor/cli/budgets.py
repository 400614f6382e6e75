"""How much to remove, as the command line says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from compressor.budget import All, Budget, Bytes, Global, Latency, Macs, Memory, Params, Uniform
from compressor.budget.numbers import check_fraction
from compressor.profiling import LatencyTable
from compressor.runtimes.extras import require_onnx
from compressor.search import LeastDrop, Sensitivity

__all__ = ["BudgetOptions", "budget_of", "check_budget", "needs_table"]

_BUDGETS: Mapping[str, type[Macs | Params | Memory | Bytes | Uniform | Global]] = {
    "macs": Macs,
    "params": Params,
    "memory": Memory,
    "bytes": Bytes,
    "uniform": Uniform,
    "global": Global,
}
_FRACTIONS = {"macs", "params", "memory", "bytes", "latency"}


@dataclass(frozen=True)
class BudgetOptions:
    """How much: one of the first seven, or several of the first five at once; and limits."""

    macs: Annotated[
        float | None,
        typer.Option(
            "--macs",
            metavar="FRACTION",
            help="Leave at most this fraction of the multiply-accumulates (papers say FLOPs).",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    params: Annotated[
        float | None,
        typer.Option(
            "--params",
            metavar="FRACTION",
            help="Leave at most this fraction of the parameters.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    memory: Annotated[
        float | None,
        typer.Option(
            "--memory",
            metavar="FRACTION",
            help="Leave at most this fraction of the bytes that activations take at once.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    bytes: Annotated[
        float | None,
        typer.Option(
            "--bytes",
            metavar="FRACTION",
            help="Leave at most this fraction of the bytes of the saved weights.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    latency: Annotated[
        float | None,
        typer.Option(
            "--latency",
            metavar="FRACTION",
            help="Leave at most this fraction of the latency in onnxruntime on this machine, measured layer "
            "by layer; the result is measured at the end. Needs the extra onnx.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    uniform: Annotated[
        float | None,
        typer.Option(
            "--uniform",
            metavar="RATIO",
            help="Remove this ratio of the channels of every group.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    global_: Annotated[
        float | None,
        typer.Option(
            "--global",
            metavar="RATIO",
            help="Remove this ratio of all channels, the least important first.",
            rich_help_panel="Budget (one, or several fractions)",
        ),
    ] = None
    steps: Annotated[
        int,
        typer.Option(
            "--steps",
            min=1,
            help="Approach the budget in so many steps, with new scores after each.",
            rich_help_panel="Limits",
        ),
    ] = 1
    ignore: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore",
            metavar="PATTERN",
            help="Layers whose own channels all stay: conv1, layer1.*, ... Repeatable.",
            rich_help_panel="Limits",
        ),
    ] = None
    ratio: Annotated[
        list[str] | None,
        typer.Option(
            "--ratio",
            metavar="PATTERN=RATIO",
            help="Layers that lose exactly this ratio: 'layer3.*=0.2'. Repeatable; of several "
            "that match, the last.",
            rich_help_panel="Limits",
        ),
    ] = None
    max_ratio: Annotated[
        float,
        typer.Option(
            "--max-ratio",
            metavar="RATIO",
            help="No group loses more than this ratio of its channels.",
            rich_help_panel="Limits",
        ),
    ] = 1.0
    min_channels: Annotated[
        int,
        typer.Option("--min-channels", help="No layer keeps fewer channels.", rich_help_panel="Limits"),
    ] = 1
    round_to: Annotated[
        int,
        typer.Option(
            "--round-to",
            help="Widths are multiples of this, which fast kernels like: 8.",
            rich_help_panel="Limits",
        ),
    ] = 1

    fast_widths: Annotated[
        bool,
        typer.Option(
            "--fast-widths",
            help="Of the widths of a layer only those that pay in onnxruntime on this machine, by the same "
            "measurements; --latency does so in any case.",
            rich_help_panel="Limits",
        ),
    ] = False
    sensitivity: Annotated[
        Path | None,
        typer.Option(
            "--sensitivity",
            metavar="FILE",
            help="Choose the ratios of layers for the least predicted fall of quality, by what the command "
            "sensitivity wrote; with fractions of costs.",
            rich_help_panel="Limits",
        ),
    ] = None
    latency_table: Annotated[
        Path | None,
        typer.Option(
            "--latency-table",
            metavar="FILE",
            help="Where the measurements are kept for the next time; by default in the user's cache.",
            rich_help_panel="Limits",
        ),
    ] = None
    runtime_threads: Annotated[
        int,
        typer.Option(
            "--runtime-threads",
            min=1,
            help="Threads that onnxruntime is measured with.",
            rich_help_panel="Limits",
        ),
    ] = 1


def needs_table(options: BudgetOptions) -> bool:
    """Whether the budget is made from measurements of the model on a runtime."""
    return options.latency is not None or options.fast_widths


def check_budget(options: BudgetOptions) -> None:
    """Raise what `budget_of` would raise for the options alone, before anything is measured."""
    if not needs_table(options):
        budget_of(options)
        return
    require_onnx()
    asked = _asked(options)
    if options.fast_widths and options.round_to != 1:
        raise typer.BadParameter("give --round-to or --fast-widths, not both", param_hint="--fast-widths")
    if "latency" in asked:
        check_fraction("Latency(fraction)", asked["latency"])
    plain = replace(options, fast_widths=False, latency=None)
    budget_of(replace(plain, macs=asked["latency"]) if list(asked) == ["latency"] else plain)


def budget_of(options: BudgetOptions, table: LatencyTable | None = None) -> Budget:
    """The budget of the options; raises typer.BadParameter unless they make one.

    `table` is needed where `needs_table` says so.

    >>> budget_of(BudgetOptions(macs=0.5, ratio=["layer3.*=0.2"], round_to=8))
    Macs(0.5, ratios={'layer3.*': 0.2}, round_to=8)
    >>> budget_of(BudgetOptions(macs=0.5, memory=0.6))
    All((Macs(0.5), Memory(0.6)))
    """
    asked = _asked(options)
    limits: dict[str, Any] = {
        "ignore": tuple(options.ignore or ()),
        "ratios": dict(map(_ratio, options.ratio or ())),
        "max_ratio": options.max_ratio,
        "min_channels": options.min_channels,
        "round_to": options.round_to,
    }
    if options.fast_widths and "latency" not in asked:
        limits["round_to"] = table
    if options.sensitivity is not None:
        if not asked.keys() <= _FRACTIONS:
            raise typer.BadParameter(
                "a sensitivity says how to meet fractions of costs: give --macs, --params, ...",
                param_hint="--sensitivity",
            )
        parts = [_budget(name, value, table, {}) for name, value in asked.items()]
        return LeastDrop(Sensitivity.load(options.sensitivity), parts, **limits)  # type: ignore[arg-type]
    if len(asked) == 1:
        return _budget(*asked.popitem(), table, limits)
    parts = [_budget(name, value, table, {}) for name, value in asked.items()]
    return All(parts, **limits)  # type: ignore[arg-type] # _asked lets fractions be several only


def _budget(name: str, value: float, table: LatencyTable | None, limits: dict[str, Any]) -> Budget:
    if name == "latency":
        assert table is not None
        return Latency(value, table, **limits)
    return _BUDGETS[name](value, **limits)


def _asked(options: BudgetOptions) -> dict[str, float]:
    """The budgets that are given, by name: one, or several fractions of costs."""
    asked = {
        "macs": options.macs,
        "params": options.params,
        "memory": options.memory,
        "bytes": options.bytes,
        "latency": options.latency,
        "uniform": options.uniform,
        "global": options.global_,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if not given or (len(given) > 1 and not given.keys() <= _FRACTIONS):
        found = " and ".join(f"--{name}" for name in given) or "none"
        raise typer.BadParameter(
            "give one budget, or several fractions that all have to be met: --macs, --params, --memory, "
            "--bytes, --latency with the fraction that is left; or one of --uniform and --global with the "
            f"ratio that is removed; found {found}",
            param_hint="--macs",
        )
    return given


def _ratio(text: str) -> tuple[str, float]:
    pattern, _, number = text.rpartition("=")
    try:
        if pattern:
            return pattern, float(number)
    except ValueError:
        pass
    raise typer.BadParameter(
        f"{text!r} is not of the form PATTERN=RATIO, such as 'layer3.*=0.2'", param_hint="--ratio"
    )
