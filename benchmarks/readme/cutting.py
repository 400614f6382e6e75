"""The README's numbers of the cut itself: its error, and its time beside Torch-Pruning."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

from benchmarks.readme.statement import Content

__all__ = ["errors", "speed"]


def errors(*contents: Content) -> Iterable[str]:
    """The usual error of a cut, by `verify`."""
    exact = [row for content in contents for row in content["rows"] if row["status"].startswith("exact")]
    found = [plan["verify_error"] for row in exact for plan in row["plans"].values()]
    usual = round(math.log10(statistics.median(found)))
    assert max(found) < 1e-9
    yield f"the error of a correct cut is about 1e{usual}, the limit 1e-9"


def speed(content: Content) -> Iterable[str]:
    """The table of times, ours with a new network, theirs in place."""
    yield f"Torch-Pruning {content['context']['versions']['torch-pruning']} on the same networks"
    for row in content["rows"]["networks"]:
        rounds = [times for times in row["rounds"] if "ours" in times and "theirs_" in times]
        ours, theirs = (statistics.median(t[who]["cpu_s"] for t in rounds) for who in ("ours", "theirs_"))
        ratio = statistics.median(t["ours"]["cpu_s"] / t["theirs_"]["cpu_s"] for t in rounds)
        yield f"| {row['network']} | {1e3 * ours:.0f} | {1e3 * theirs:.0f} | {ratio:.2f} |"
