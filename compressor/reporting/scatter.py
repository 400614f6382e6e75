"""A picture of points: one number against another, those that no other beats joined by a line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from compressor.reporting.blocks import Block
from compressor.reporting.escaping import as_html, shortened
from compressor.reporting.rows import legend

__all__ = ["Scatter", "Spot", "ticks"]

_HEIGHT, _TOP, _BOTTOM = 270, 38, 40  # pixels: the picture, room above and below the points
_LEFT, _RIGHT = 16.0, 94.0  # percent of the width: where points lie; numbers of lines stand left of them
_APART = 4.0, 14.0  # percent and pixels between two numbers of points that do not overlap


@dataclass(frozen=True)
class Spot:
    """A point; with a `number` it is one that no other beats."""

    x: float
    y: float
    name: str
    number: str = ""


@dataclass(frozen=True)
class Scatter(Block):
    """Points with `x` and `y` in words. Markdown leaves it to the table beside it."""

    x: str
    y: str
    spots: tuple[Spot, ...]

    def html(self) -> str:
        best = sorted((spot for spot in self.spots if spot.number), key=lambda spot: spot.x)
        joined = "".join(
            f'<line class="curve" x1="{self._x(a.x):.2f}%" y1="{self._y(a.y):.1f}" '
            f'x2="{self._x(b.x):.2f}%" y2="{self._y(b.y):.1f}"/>'
            for a, b in pairwise(best)
        )
        circles = "".join(self._circle(spot) for spot in sorted(self.spots, key=lambda s: bool(s.number)))
        title = as_html(f"{self.y} against {self.x}")
        return (
            f"<figure>{legend((('kept', 'not beaten'), ('beaten', 'beaten')))}"
            f'<svg width="100%" height="{_HEIGHT}" role="img" aria-label="{title}">'
            f"{self._grid()}{joined}{circles}{self._numbers(best)}</svg></figure>"
        )

    def markdown(self) -> str:
        return ""

    def _circle(self, spot: Spot) -> str:
        kind, radius = ("kept", 5) if spot.number else ("beaten", 4)
        words = as_html(f"{spot.name}: {self.y} {spot.y:.4g}, {self.x} {spot.x:,.6g}")
        at = f'cx="{self._x(spot.x):.2f}%" cy="{self._y(spot.y):.1f}"'
        return f'<circle class="{kind}" {at} r="{radius}"><title>{words}</title></circle>'

    def _numbers(self, best: list[Spot]) -> str:
        """The numbers of points above them, those left out that would cover an earlier one."""
        placed: list[tuple[float, float]] = []
        shown = ""
        for spot in best:
            x, y = self._x(spot.x), self._y(spot.y) - 9
            if any(abs(x - a) < _APART[0] and abs(y - b) < _APART[1] for a, b in placed):
                continue
            placed.append((x, y))
            shown += f'<text class="middle" x="{x:.2f}%" y="{y:.1f}">{as_html(spot.number)}</text>'
        return shown

    def _grid(self) -> str:
        low, high = self._range("y")
        drawn = f'<text class="tick" x="0" y="11">{_name(self.y)}</text>'
        for value in ticks(low, high):
            y = self._y(value)
            drawn += f'<line class="axis" x1="0" y1="{y:.1f}" x2="100%" y2="{y:.1f}"/>'
            drawn += f'<text class="tick" x="0" y="{y - 3:.1f}">{value:g}</text>'
        low, high = self._range("x")
        for value in ticks(low, high):
            drawn += (
                f'<text class="tick middle" x="{self._x(value):.2f}%" y="{_HEIGHT - _BOTTOM + 22}">'
                f"{as_html(_short(value))}</text>"
            )
        return drawn + f'<text class="tick value" x="100%" y="{_HEIGHT - 3}">{_name(self.x)}</text>'

    def _range(self, which: str) -> tuple[float, float]:
        values = [spot.x if which == "x" else spot.y for spot in self.spots]
        low, high = min(values), max(values)
        return (low, high) if high > low else (low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1))

    def _x(self, value: float) -> float:
        low, high = self._range("x")
        return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)

    def _y(self, value: float) -> float:
        low, high = self._range("y")
        return _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low)


def _name(words: str) -> str:
    """What an axis shows, as wide as a phone at most."""
    return as_html(shortened(words, 40))


def ticks(low: float, high: float) -> list[float]:
    """Two to five round numbers between `low` and `high`, 1, 2 or 5 times a power of ten apart.

    >>> ticks(0.71, 0.93), ticks(3_000_000, 10_000_000)
    ([0.8, 0.9], [4000000.0, 6000000.0, 8000000.0, 10000000.0])
    """
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(value: float) -> str:
    """A number of few letters.

    >>> _short(4_000_000.0), _short(0.25)
    ('4M', '0.25')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
