"""Two models side by side: what the smaller one saves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.profiling.latency import Latency, measure_latency
from compressor.profiling.profile import Profile, Row, profile
from compressor.tables import aligned, megabytes

__all__ = ["Comparison", "compare", "cost_rows", "layer_rows"]


@dataclass(frozen=True)
class Comparison:
    """The profiles of a model before and after, and their times; `str()` is a table."""

    before: Profile
    after: Profile
    latency: Latency

    def layers(self) -> str:
        """A table with a line for each layer: MACs and parameters before and after."""
        return "\n".join(aligned(layer_rows(self.before, self.after), left=2))

    def __str__(self) -> str:
        rows = cost_rows(self.before, self.after)
        old_ms, new_ms = (timing.ms for timing in self.latency.timings)
        speedup = self.latency.timings[1].speedup
        rows.append(
            [
                "latency",
                f"{old_ms:.3f} ms",
                f"{new_ms:.3f} ms",
                f"{1 / speedup:.1%}",
                f"{speedup:.2f}x",
            ]
        )
        inputs = ", ".join(self.before.inputs)
        return "\n".join([f"{self.before.model} on {inputs} (whole batch)", *aligned(rows), self._how()])

    def _how(self) -> str:
        timing, clock = self.latency.timings[1], self.latency.clock
        return (
            f"latency: {clock}, factor {timing.speedup_p10:.2f}x-{timing.speedup_p90:.2f}x over "
            f"{self.latency.rounds} interleaved rounds (10-90 %)"
        )


def compare(model: nn.Module, small: nn.Module, *args: Any, **kwargs: Any) -> Comparison:
    """What `small` saves against `model` on the example inputs: costs, and time on this machine.

    Both models are run for about two seconds and left as they were. For another number of threads
    or rounds, or another runtime, use `latency`.

    >>> import torch
    >>> comparison = compare(nn.Linear(8, 64), nn.Linear(8, 16), torch.zeros(4, 8))
    >>> print(comparison.layers())
    layer    kind     MACs  after   left  params  after   left
    (model)  Linear  2,048    512  25.0%     576    144  25.0%
    """
    before, after = profile(model, *args, **kwargs), profile(small, *args, **kwargs)
    return Comparison(before, after, measure_latency([model, small], args, kwargs))


def cost_rows(before: Profile, after: Profile) -> list[list[str]]:
    """A head and a row for each cost: before, after, the fraction that is left, and how many times less."""
    rows = [["", "before", "after", "left", "factor"]]
    for name, attribute, words in (
        ("MACs", "macs", "{:,}".format),
        ("parameters", "params", "{:,}".format),
        ("weight bytes", "weight_bytes", megabytes),
        ("activation bytes", "activation_bytes", megabytes),
        ("peak activation bytes", "peak_activation_bytes", megabytes),
    ):
        old, new = getattr(before, attribute), getattr(after, attribute)
        rows.append([name, words(old), words(new), _left(old, new), _factor(old, new)])
    return rows


def layer_rows(before: Profile, after: Profile) -> list[list[str]]:
    """A head and a row for each layer of either model: its MACs and parameters."""
    old = {row.module: row for row in before.rows}
    new = {row.module: row for row in after.rows}
    rows = [["layer", "kind", "MACs", "after", "left", "params", "after", "left"]]
    for module in dict.fromkeys((*old, *new)):
        rows.append(_layer_cells(module, old.get(module), new.get(module)))
    return rows


def _layer_cells(module: str, before: Row | None, after: Row | None) -> list[str]:
    kind = next(row.kind for row in (before, after) if row is not None)
    cells = [module or "(model)", kind]
    for attribute in ("macs", "params"):
        old = None if before is None else getattr(before, attribute)
        new = None if after is None else getattr(after, attribute)
        cells += ["-" if old is None else f"{old:,}", "-" if new is None else f"{new:,}"]
        cells.append("-" if old is None or new is None else _left(old, new))
    return cells


def _left(before: int, after: int) -> str:
    return f"{after / before:.1%}" if before else "-"


def _factor(before: int, after: int) -> str:
    return f"{before / after:.2f}x" if after else "-"
