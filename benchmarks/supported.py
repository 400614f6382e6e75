"""The page `docs/supported.md`, written from the results of the coverage benchmark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import results, zoo
from benchmarks.pinned import CANNOT
from benchmarks.results import Table

__all__ = ["PAGE", "page", "write"]

Row = Mapping[str, Any]
PAGE = zoo.ROOT / "docs" / "supported.md"
_COLUMNS = ("family", "network", "units", "free", "result")
_EXACT = ("exact", "exact, kept statistics")
_SHOWN_REASONS = 25


def write(sources: Sequence[str]) -> Path:
    """The file written from what `benchmarks/results/` holds of these sources."""
    kept = {source: results.read(f"coverage-{source}") for source in sources}
    PAGE.write_text(page({k: v for k, v in kept.items() if v is not None}), encoding="utf-8")
    return PAGE


def page(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of the page."""
    parts = [_HEAD, _counts(kept)]
    for source, content in kept.items():
        rows = content["rows"]
        table = Table(source, _COLUMNS, tuple(map(_cells, rows)), words=(0, 1, -1))
        parts.append(_section(table))
    parts.append(_gaps(kept))
    return "\n\n".join(parts) + "\n"


_HEAD = """# What is covered

Written by `python -m benchmarks.coverage --write-docs` from the results of `python -m benchmarks.coverage`,
not by hand.

Every network has random weights, scrambled so that a wrong channel shows, and runs in float64. It is
captured, pruned by two plans (30 % of each group at random, 50 % by norm) and checked: by
`compressor.verify`, by an oracle that shares no code with the library, by its output shapes, by a training
step that has to reach every parameter, and by a batch of three that has to equal its examples one by one.
For each network a wrong cut is planted, which the oracle has to see.

- **units**: what can be removed by itself. **free**: the share of channels that can be removed, along the
  first two axes of weights; class scores, input channels, kernel extents and vocabularies are not counted.
- **exact**: equal to the original without the removed channels, to rounding. *kept statistics*: so it is
  where norms run over the channels that stay, which is not what they did before.
- **refused**: no plan, with the reason. **wrong**: an oracle disagrees. **fails**: another error.
  **not run**: the limit of time or memory was reached."""


def _counts(kept: Mapping[str, Mapping[str, Any]]) -> str:
    names = (*_EXACT, "refused", "wrong", "fails", "not run")
    lines = []
    for source, content in kept.items():
        counts = Counter(row["status"] for row in content["rows"])
        lines.append((source, str(len(content["rows"])), *(str(counts[name]) for name in names)))
    return _section(Table("Counts", ("source", "networks", *names), tuple(lines)))


def _section(table: Table) -> str:
    return table.markdown().replace("### ", "## ", 1).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    free = f"{1 - row['pinned']['share']:.0%}" if "pinned" in row else "-"
    return (row["family"], row["network"], str(row.get("units", "-")), free, _result(row))


def _result(row: Row) -> str:
    said = "; ".join(row["failures"][:1]) or row.get("refused", "")
    if row["status"] in _EXACT or not said:
        return str(row["status"])
    return f"{row['status']}: {said[:200]}"


def _gaps(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Why channels stay that could go: each reason, in how many networks, and where most."""
    shares: dict[str, list[tuple[float, str]]] = {}
    for content in kept.values():
        for row in content["rows"]:
            pinned = row.get("pinned")
            if pinned is None:
                continue
            whole = pinned["free"] + pinned["pinned"] or 1
            for reason, channels in pinned["reasons"].items():
                if not any(part in reason for part in CANNOT):
                    shares.setdefault(reason, []).append((channels / whole, row["network"]))
    ordered = sorted(shares.items(), key=lambda item: -sum(share for share, _ in item[1]))
    lines = [
        (reason, str(len(found)), ", ".join(f"{name} {share:.0%}" for share, name in sorted(found)[::-1][:4]))
        for reason, found in ordered[:_SHOWN_REASONS]
    ]
    note = "The share is that of all channels that could be removed; an axis may have several reasons."
    table = Table("Gaps and reasons", ("reason", "networks", "most in"), tuple(lines), (note,), (0, -1))
    return _section(table)
