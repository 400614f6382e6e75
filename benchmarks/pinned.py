"""How many channels of a captured network can be removed, and why the others cannot."""

from __future__ import annotations

import re
from typing import Any

from compressor import Graph

__all__ = ["CANNOT", "pinned_share"]

# Reasons for channels that no pruning could remove: they are part of what the network is given or
# returns, not of how it computes.
CANNOT = (
    "it is an output of the model",
    "whose channels are fixed, such as an input",
    "the kernel's extent",
    "rows of an embedding",
)


def pinned_share(graph: Graph) -> dict[str, Any]:
    """Channels along axes 0 and 1 of weights (two axes or more), by whether they can be removed.

    `free`: with a unit; `fixed`: pinned for a reason in `CANNOT`; `pinned`: for any other, which
    `reasons` counts without the places they name.
    """
    shapes = {name: tensor.shape for name, tensor in graph.model.named_parameters()}
    counts = {"free": 0, "fixed": 0, "pinned": 0}
    reasons: dict[str, int] = {}
    for axis in graph.axes:
        shape = shapes.get(axis.tensor)
        if shape is None or len(shape) < 2 or axis.axis > 1 or shape[axis.axis] == 1:
            continue
        free = int(axis.free.sum())
        rest = axis.size - free
        counts["free"] += free
        if not rest:
            continue
        why = graph.reasons.get((axis.tensor, axis.axis), ("no reason known",))
        cannot = all(any(part in reason for part in CANNOT) for reason in why)
        counts["fixed" if cannot else "pinned"] += rest
        for reason in dict.fromkeys(map(_without_place, why)):
            reasons[reason] = reasons.get(reason, 0) + rest
    removable = counts["free"] + counts["pinned"]
    ordered = dict(sorted(reasons.items(), key=lambda item: -item[1]))
    return {**counts, "share": counts["pinned"] / removable if removable else 0.0, "reasons": ordered}


def _without_place(reason: str) -> str:
    """The reason with the operator but without the path of the module.

    >>> _without_place("meets a constant (add in layer1.0.conv)")
    'meets a constant (add)'
    """
    return re.sub(r" in [^()]*\)", ")", reason)
