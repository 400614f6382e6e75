"""Faults, one a line, the first of many named."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["listed"]

_NAMED = 10


def listed(faults: Sequence[object]) -> str:
    """The first ten faults, and how many more there are.

    >>> print(listed(["a.onnx: no graph", "b.onnx: no graph"]))
      a.onnx: no graph
      b.onnx: no graph
    """
    more = [f"  and {len(faults) - _NAMED} more"] if len(faults) > _NAMED else []
    return "\n".join([*(f"  {fault}" for fault in faults[:_NAMED]), *more])
