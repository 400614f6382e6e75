"""The plan: what went from each group of coupled channels, and why the rest stayed."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.reporting.blocks import Block, Facts, Folded, Table, Text
from compressor.reporting.case import Case, GroupCut
from compressor.reporting.document import Section

__all__ = ["plan", "ranges"]

_LAYERS = 4  # named for a reason, the others are counted


def plan(case: Case) -> Section:
    """A row for each group, the indices where one opens them, and the reasons."""
    cut = [group for group in case.groups if group.lost]
    rows = tuple(
        (group.name, str(group.units), str(group.units - group.lost), str(group.tensors)) for group in cut
    )
    blocks: list[Block] = []
    if cut:
        table = Table(("group", "before", "after", "tensors"), rows)
        lead = (
            "Channels that live and die together are a group, named after its first tensor. Of attention, "
            "heads and dims of heads are groups of their own."
        )
        folded = Folded("Removed, by index", (Facts(tuple((g.name, _indices(g)) for g in cut)),))
        blocks += [Text(lead, soft=True), table, folded]
    else:
        blocks.append(Text("No channel is removed."))
    whole = [group.name for group in case.groups if not group.lost]
    if whole:
        blocks.append(Text(f"Free to go, but not chosen: {_listed(whole)}."))
    if case.pinned:
        reasons = tuple((reason, _listed(layers)) for reason, layers in case.pinned.items())
        blocks += [Text("What could not be removed, and why:"), Facts(reasons)]
    statistics = [group.name for group in cut if group.statistics]
    if statistics:
        blocks.append(
            Text(f"Norms take their statistics over fewer channels behind {_listed(statistics)}.", soft=True)
        )
    if case.plan.patches or case.plan.sizes:
        changed = tuple(map(str, (*case.plan.sizes, *case.plan.patches)))
        blocks.append(Folded("Numbers that follow", tuple(Text(line) for line in changed)))
    data = {
        "groups": [
            {"name": g.name, "units": g.units, "removed": [list(cell) for cell in g.removed]}
            for g in case.groups
        ],
        "pinned": case.pinned,
        "sizes": [str(size) for size in case.plan.sizes],
        "patches": [str(patch) for patch in case.plan.patches],
    }
    return Section("plan", "Plan", tuple(blocks), data)


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in words.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2, 5, 7-8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, run)) for run in runs)


def _indices(group: GroupCut) -> str:
    cells = [ranges(cell) for cell in group.removed]
    return cells[0] if len(cells) == 1 else "; ".join(f"cell {n}: {cell}" for n, cell in enumerate(cells))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _LAYERS
    return ", ".join(names[:_LAYERS]) + (f" and {more} more" if more > 0 else "")
