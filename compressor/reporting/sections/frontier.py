"""Quality against costs of several cuts, and which of them no other beats."""

from __future__ import annotations

from compressor.reporting.blocks import Block, Table, Text
from compressor.reporting.case import Case
from compressor.reporting.document import Section
from compressor.reporting.scatter import Scatter, Spot
from compressor.search import Frontier, Point
from compressor.tables import megabytes

__all__ = ["frontier"]

_WORDS = {"macs": "MACs", "params": "parameters"}


def frontier(case: Case) -> Section | None:
    """A picture for each cost of the frontier, and a table of all points."""
    given = case.frontier
    if given is None:
        return None
    numbers = {id(point): str(number) for number, point in enumerate(given.best, start=1)}
    here = [point for point in given.points if point.plan == case.plan]
    pictures: tuple[Block, ...] = tuple(_picture(given, cost, numbers) for cost in given.by)
    measures = ", ".join((given.evaluation, *map(_words, given.by)))
    note = (
        f"{given.evaluation}, larger is better, of {len(given.points)} cuts; those with a number are beaten "
        f"by no other in all of {measures}."
    )
    said = [Text(f"The cut of this report is {here[0].name}.")] if here else []
    data = given.to_dict()
    for point in data["points"]:
        point.pop("plan")  # the plan of this report has its own section, the others their own files
    blocks = (Text(note, soft=True), *said, *pictures, _table(given, numbers))
    return Section("frontier", "Quality and costs", blocks, data)


def _picture(given: Frontier, cost: str, numbers: dict[int, str]) -> Scatter:
    spots = tuple(
        Spot(point.costs[cost], point.quality, point.name, numbers.get(id(point), ""))
        for point in given.points
    )
    return Scatter(_words(cost), given.evaluation, spots)


def _table(given: Frontier, numbers: dict[int, str]) -> Table:
    ranked = sorted(given.points, key=lambda point: (point.costs[given.by[0]], -point.quality))
    head = ("cut", "no.", given.evaluation, *map(_words, given.by))
    return Table(head, tuple(_cells(given, point, numbers) for point in ranked))


def _cells(given: Frontier, point: Point, numbers: dict[int, str]) -> tuple[str, ...]:
    number = numbers.get(id(point), "beaten")
    return (point.name, number, f"{point.quality:.4f}", *(_amount(c, point.costs[c]) for c in given.by))


def _words(cost: str) -> str:
    return _WORDS.get(cost, cost.replace("_", " "))


def _amount(cost: str, value: float) -> str:
    if cost.endswith("bytes"):
        return megabytes(int(value))
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
