"""A picture of the network: how wide each layer was, and how wide it is."""

from __future__ import annotations

import math
from dataclasses import asdict

from compressor.reporting.blocks import Text
from compressor.reporting.case import Case, Width
from compressor.reporting.document import Section
from compressor.reporting.rows import Row, Rows, bar

__all__ = ["channels"]

_CHARACTERS = 32


def channels(case: Case) -> Section | None:
    """A bar for each layer, its kept channels in the middle and the removed ones at both sides."""
    if not case.widths:
        return None
    widest = max(width.size for width in case.widths)
    rows = tuple(_row(width, math.sqrt(width.size / widest)) for width in case.widths)
    key = (("kept", "kept"), ("gone", "removed"), ("held", "could not be removed"))
    note = Text(
        "Channels that each layer writes, in the order in which the model defines them. Bars grow with the "
        "square root of the width; within a bar shares are true to scale.",
        soft=True,
    )
    picture = Rows("channels of each layer, kept and removed", rows, key)
    data = {"layers": [asdict(width) for width in case.widths]}
    return Section("channels", "Channels by layer", (note, picture), data)


def _row(width: Width, extent: float) -> Row:
    share = width.kept / width.size
    whole, inner = 100 * extent, 100 * extent * share
    kind = "kept" if width.free else "held"
    side = (whole - inner) / 2
    left = 50 - whole / 2
    graphic = (
        bar("gone", left, side, 1, 8)
        + bar(kind, left + side, inner)
        + bar("gone", left + side + inner, side, 1, 8)
    )
    value = f"{width.size} → {width.kept}" if width.kept < width.size else f"{width.size}"
    long = max(1, round(_CHARACTERS * extent))
    # What is removed shows, however little it is.
    kept = long if width.kept == width.size else min(long - 1, round(long * share))
    text = ("█" if width.free else "▒") * kept + "░" * (long - kept)
    return Row(width.layer, value, graphic, text)
