"""From the options of the command line to a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import typer

from compressor.budget import (
    All,
    Budget,
    ByDegeneracy,
    Bytes,
    Global,
    Latency,
    Macs,
    Memory,
    Params,
    Uniform,
    by_ratio,
    by_score,
    by_score_per_mac,
    by_score_per_ms,
    where_it_pays,
)
from compressor.budget.ladder import Order
from compressor.budget.numbers import check_fraction
from compressor.cli.budget_options import BudgetOptions, OrderName
from compressor.design import SpectralRanks
from compressor.profiling import LatencyTable
from compressor.runtimes.extras import require_onnx
from compressor.search import LeastDrop, Sensitivity

__all__ = ["budget_of", "check_budget", "needs_table"]

_BUDGETS: Mapping[str, type[Macs | Params | Memory | Bytes | Uniform | Global]] = {
    "macs": Macs,
    "params": Params,
    "memory": Memory,
    "bytes": Bytes,
    "uniform": Uniform,
    "global": Global,
}
_FRACTIONS = {"macs", "params", "memory", "bytes", "latency"}


_ORDERS: Mapping[OrderName, Callable[[], Order]] = {
    OrderName.SCORE: lambda: by_score,
    OrderName.SCORE_PER_MAC: lambda: by_score_per_mac,
    OrderName.RATIO: lambda: by_ratio,
    OrderName.SPECTRAL_RANKS: SpectralRanks,
    OrderName.DEGENERACY: ByDegeneracy,
}
_MEASURED_ORDERS: Mapping[OrderName, Callable[[LatencyTable], Order]] = {
    OrderName.SCORE_PER_MS: by_score_per_ms,
    OrderName.WHERE_IT_PAYS: where_it_pays,
}


def needs_table(options: BudgetOptions) -> bool:
    """Whether the budget is made from measurements of the model on a runtime."""
    return options.latency is not None or options.fast_widths or options.order in _MEASURED_ORDERS


def check_budget(options: BudgetOptions) -> None:
    """Raise what `budget_of` would raise for the options alone, before anything is measured."""
    asked = _asked(options)
    if options.order is not OrderName.SCORE:
        if options.sensitivity is not None:
            raise typer.BadParameter(
                "a sensitivity has an order of its own; give --order or --sensitivity", param_hint="--order"
            )
        if not asked.keys() <= _FRACTIONS:
            raise typer.BadParameter(
                "an order says how to meet fractions of costs: give --macs, --params, ...",
                param_hint="--order",
            )
    if not needs_table(options):
        budget_of(options)
        return
    require_onnx()
    if options.fast_widths and options.round_to != 1:
        raise typer.BadParameter("give --round-to or --fast-widths, not both", param_hint="--fast-widths")
    if "latency" in asked:
        check_fraction("Latency(fraction)", asked["latency"])
    plain = replace(options, fast_widths=False, latency=None, order=OrderName.SCORE)
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
    if options.order is not OrderName.SCORE:
        limits["order"] = _order(options.order, table)
    if len(asked) == 1:
        return _budget(*asked.popitem(), table, limits)
    parts = [_budget(name, value, table, {}) for name, value in asked.items()]
    return All(parts, **limits)  # type: ignore[arg-type] # _asked lets fractions be several only


def _order(name: OrderName, table: LatencyTable | None) -> Order:
    if name in _MEASURED_ORDERS:
        assert table is not None
        return _MEASURED_ORDERS[name](table)
    return _ORDERS[name]()


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
