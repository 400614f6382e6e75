"""Groups that a scorer has nothing to say about, scored by another scorer."""

from __future__ import annotations

import numpy as np

from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring.base import Scorer
from compressor.scoring.units import Values

__all__ = ["check_otherwise", "filled"]


def check_otherwise(otherwise: object) -> None:
    """InputError for anything but a scorer or None."""
    if not isinstance(otherwise, Scorer | None):
        raise InputError(f"otherwise must be a Scorer such as Norm(), got {otherwise!r}")


def filled(scorer: Scorer, graph: Graph, raw: Values, otherwise: Scorer | None, *, lack: str) -> Values:
    """The scores `raw` [n_units] made comparable, those of every group with a NaN taken from `otherwise`.

    Raises ScoreError where there is none to ask; `lack` says in words what such channels do not meet.
    """
    values = scorer.comparable(raw, graph)
    lacking = np.unique(graph.group_of[np.isnan(raw)])
    if not len(lacking):
        return values
    if otherwise is None:
        kind = type(scorer).__name__
        names = [graph.groups[position].name for position in lacking]
        raise ScoreError(
            f"{scorer!r}: channels of {len(names)} of the {len(graph.groups)} groups {lack}: "
            f"{', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''}; expected one for every "
            f"channel: give a scorer for these groups, {kind}(otherwise=Norm())"
        )
    replaced = np.isin(graph.group_of, lacking)
    return np.where(replaced, otherwise.unit_scores(graph), values)
