"""The options that say how much to remove, in which order, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["BudgetOptions", "OrderName"]


class OrderName(Enum):
    """In which order channels go until a fraction is met."""

    SCORE = "score"
    SCORE_PER_MAC = "score-per-mac"
    SCORE_PER_MS = "score-per-ms"
    WHERE_IT_PAYS = "where-it-pays"
    RATIO = "ratio"
    SPECTRAL_RANKS = "spectral-ranks"
    DEGENERACY = "degeneracy"


_much = partial(typer.Option, rich_help_panel="Budget (one, or several fractions)")
_fraction, _ratio_removed = partial(_much, metavar="FRACTION"), partial(_much, metavar="RATIO")
_limit = partial(typer.Option, rich_help_panel="Limits")
_measured = partial(typer.Option, rich_help_panel="Measured widths and layers")


@dataclass(frozen=True)
class BudgetOptions:
    """How much: one of the first seven, or several of the first five at once; and limits."""

    macs: Annotated[
        float | None,
        _fraction(
            "--macs", help="Leave at most this fraction of the multiply-accumulates (papers say FLOPs)."
        ),
    ] = None
    params: Annotated[
        float | None, _fraction("--params", help="Leave at most this fraction of the parameters.")
    ] = None
    memory: Annotated[
        float | None,
        _fraction("--memory", help="Leave at most this fraction of the bytes that activations take at once."),
    ] = None
    bytes: Annotated[
        float | None,
        _fraction("--bytes", help="Leave at most this fraction of the bytes of the saved weights."),
    ] = None
    latency: Annotated[
        float | None,
        _fraction(
            "--latency",
            help="Leave at most this fraction of the latency in onnxruntime on this machine, measured layer "
            "by layer; the result is measured at the end. Needs compressor[onnx].",
        ),
    ] = None
    uniform: Annotated[
        float | None, _ratio_removed("--uniform", help="Remove this ratio of the channels of every group.")
    ] = None
    global_: Annotated[
        float | None,
        _ratio_removed("--global", help="Remove this ratio of all channels, the least important first."),
    ] = None
    order: Annotated[
        OrderName,
        _limit(
            "--order",
            metavar="ORDER",
            help="What goes first until the fractions are met. score: the least scores; score-per-mac and "
            "score-per-ms: the least for what they free; where-it-pays: the least, where that saves time; "
            "ratio: of all groups alike; spectral-ranks: of groups with few directions; degeneracy: of "
            "groups with degenerate filters. Those of time are measured in onnxruntime, as --latency is.",
        ),
    ] = OrderName.SCORE
    steps: Annotated[
        int,
        _limit("--steps", min=1, help="Approach the budget in so many steps, with new scores after each."),
    ] = 1
    ignore: Annotated[
        list[str] | None,
        _limit(
            "--ignore",
            metavar="PATTERN",
            help="Layers whose own channels all stay: conv1, layer1.*, ... Repeatable.",
        ),
    ] = None
    ratio: Annotated[
        list[str] | None,
        _limit(
            "--ratio",
            metavar="PATTERN=RATIO",
            help="Layers that lose exactly this ratio: 'layer3.*=0.2'. Repeatable; of several "
            "that match, the last.",
        ),
    ] = None
    max_ratio: Annotated[
        float,
        _limit("--max-ratio", metavar="RATIO", help="No group loses more than this ratio of its channels."),
    ] = 1.0
    min_channels: Annotated[int, _limit("--min-channels", help="No layer keeps fewer channels.")] = 1
    round_to: Annotated[
        int, _limit("--round-to", help="Widths are multiples of this, which fast kernels like: 8.")
    ] = 1
    fast_widths: Annotated[
        bool,
        _measured(
            "--fast-widths",
            help="Of the widths of a layer only those that pay in onnxruntime on this machine, by the same "
            "measurements; --latency does so in any case.",
        ),
    ] = False
    sensitivity: Annotated[
        Path | None,
        _measured(
            "--sensitivity",
            metavar="FILE",
            help="Choose the ratios of layers for the least predicted fall of quality, by what the command "
            "sensitivity wrote; with fractions of costs.",
        ),
    ] = None
    latency_table: Annotated[
        Path | None,
        _measured(
            "--latency-table",
            metavar="FILE",
            help="Where the measurements are kept for the next time; by default in the user's cache.",
        ),
    ] = None
    runtime_threads: Annotated[
        int,
        _measured("--runtime-threads", min=1, help="Threads that onnxruntime is measured with."),
    ] = 1
