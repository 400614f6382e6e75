"""The first thing a reader sees: how much is left, and whether it is right."""

from __future__ import annotations

from compressor.reporting.blocks import Text, Tile, Tiles
from compressor.reporting.case import Case
from compressor.reporting.document import Section

__all__ = ["summary"]

_COSTS = (("MACs", "macs"), ("parameters", "params"), ("peak activation bytes", "peak_activation_bytes"))


def summary(case: Case) -> Section:
    """What was removed in one sentence, and what is left of the costs that matter most."""
    narrower = sum(width.kept < width.size for width in case.widths)
    layers = len(case.widths)
    model = case.before.model
    if not case.plan.cuts:
        lead = f"Nothing was removed from {model}: every layer is as wide as before."
    else:
        gone = sum(width.size - width.kept for width in case.widths)
        verb = "is" if narrower == 1 else "are"
        lead = f"{model}: {narrower} of {layers} layers {verb} narrower, by {gone:,} channels in all."
    tiles = [
        _tile(words, getattr(case.before, attribute), getattr(case.after, attribute))
        for words, attribute in _COSTS
    ]
    for found in case.latencies:
        tiles.append(Tile("time", f"{found.speedup:.2f}x", _faster(found.speedup), 1 / found.speedup))
    tiles = [*_quality(case), *tiles]
    lines = [lead, f"The cut is proved exact: relative error {case.proof.error:.1e} in float64."]
    note = [Text(f"Decided by: {case.plan.note}.", soft=True)] if case.plan.note else []
    data = {
        "model": model,
        "layers": layers,
        "narrower": narrower,
        "decided_by": case.plan.note,
        "left": {
            attribute: _share(getattr(case.before, attribute), getattr(case.after, attribute))
            for _, attribute in _COSTS
        },
    }
    return Section("summary", "Summary", (Text(" ".join(lines)), Tiles(tuple(tiles)), *note), data)


def _share(before: int, after: int) -> float | None:
    return after / before if before else None


def _tile(words: str, before: int, after: int) -> Tile:
    left = _share(before, after)
    if left is None:
        return Tile(words, "none", "before and after")
    fewer = f"{before / after:.2f}x fewer" if 0 < after < before else "as before" if after == before else ""
    return Tile(words, f"{left:.1%} left", fewer or f"{after / before:.2f}x as many", left)


def _quality(case: Case) -> list[Tile]:
    """What was measured of both models; else the quality of both where the frontier knows it."""
    if case.quality:
        return [Tile(name, f"{b:.4g}", f"{a:.4g} before") for name, (a, b) in case.quality.items()]
    points = () if case.frontier is None else case.frontier.points
    here = [point.quality for point in points if point.plan == case.plan]
    whole = [point.quality for point in points if point.plan is None]
    if case.frontier is None or not here or not whole:
        return []
    return [Tile(case.frontier.evaluation, f"{here[0]:.4g}", f"in the frontier; {whole[0]:.4g} before")]


def _faster(speedup: float) -> str:
    return "as fast as before, measured" if speedup >= 1 else "as fast: slower, measured"
