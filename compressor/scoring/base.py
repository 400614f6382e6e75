"""What a scorer is: one method, two options, and the checks on what it returns."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches

import numpy as np
import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph, UnitArray
from compressor.errors import ScoreError
from compressor.scoring.units import (
    Normalize,
    NormalizeLike,
    Reduce,
    ReduceLike,
    Values,
    choice,
    comparable,
    reduce_sites,
)

__all__ = ["AxisKey", "Scorer", "SiteScores", "checked_sites"]

AxisKey = tuple[str, int]
SiteScores = Mapping[AxisKey, Tensor]


class Scorer(ABC):
    """Says how much each channel is worth keeping; subclass it with the one method `site_scores`.

    `reduce` makes one score of the sites of a unit, `normalize` makes groups comparable. Both can
    be given on construction, or set as class attributes by a subclass that has another default.

    >>> class Spread(Scorer):
    ...     '''How far apart the weights of each written row are.'''
    ...     def site_scores(self, graph):
    ...         tensors = dict(graph.model.named_parameters())
    ...         return {
    ...             (axis.tensor, axis.axis): tensors[axis.tensor].detach().flatten(1).std(dim=1)
    ...             for axis in graph.axes
    ...             if axis.role == "writer" and axis.axis == 0 and tensors[axis.tensor].ndim > 1
    ...         }
    >>> import compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> len(cp.score(cp.capture(net, torch.ones(1, 4)), Spread(normalize="max")).values)
    3
    """

    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.MEAN

    def __init__(self, *, reduce: ReduceLike | None = None, normalize: NormalizeLike | None = None) -> None:
        if reduce is not None:
            self.reduce = choice(Reduce, reduce, "reduce")
        if normalize is not None:
            self.normalize = choice(Normalize, normalize, "normalize")

    def __post_init__(self) -> None:
        """Called by scorers that are dataclasses: check the options when they are given."""
        object.__setattr__(self, "reduce", choice(Reduce, self.reduce, "reduce"))
        object.__setattr__(self, "normalize", choice(Normalize, self.normalize, "normalize"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(_shown_options(self))})"

    @abstractmethod
    def site_scores(self, graph: Graph) -> SiteScores:
        """For some axes (tensor name, axis) of the graph one real number for each channel.

        Each vector has the length `axis.size` (over all blocks, pinned channels included), on any
        device. On an axis of several factors (heads and dims of heads) a channel's score is one for
        each of its units. Where a unit is scored as a whole, give scores the shape of `axis.units`,
        the same for all channels of the unit: they count once for the axis.
        Every unit must have a site on one of the axes. The model must not be changed.
        """

    def unit_scores(self, graph: Graph) -> Values:
        """The scores [n_units], reduced over sites and made comparable between groups.

        Override it only where units are scored as wholes.
        """
        values = self.raw_unit_scores(graph)
        _check_complete(self, graph, values)
        return self.comparable(values, graph)

    def comparable(self, raw: Values, graph: Graph) -> Values:
        """Raw scores [n_units] on the scale that `normalize` says; NaN stays NaN."""
        return comparable(raw, graph, choice(Normalize, self.normalize, "normalize"))

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The scores [n_units] before groups are made comparable; NaN for a unit without a site."""
        axes, vectors = checked_sites(self, graph, self.site_scores(graph))
        if not axes:
            return np.full(graph.n_units, np.nan)
        how = choice(Reduce, self.reduce, "reduce")
        sites = [_sites(a, own, once=how is Reduce.FIRST) for a, own in zip(axes, vectors, strict=True)]
        values, units = (np.concatenate(parts) for parts in zip(*sites, strict=True))
        return reduce_sites(values, units, graph.n_units, how)


def checked_sites(scorer: Scorer, graph: Graph, sites: object) -> tuple[list[Axis], list[Values]]:
    """The scored axes in the graph's order and their scores as float64; raises ScoreError.

    Scores are [size], or [factors, size] where a scorer tells factors apart.
    """
    if not isinstance(sites, Mapping):
        raise ScoreError(
            f"{scorer!r}: site_scores returns a mapping from (tensor, axis) to a vector of scores, "
            f"got {type(sites).__name__}"
        )
    known = {(axis.tensor, axis.axis): axis for axis in graph.axes}
    for key, vector in sites.items():
        if key not in known:
            raise ScoreError(f"{scorer!r}: {key!r} is no axis of the graph; {_nearest(key, known)}")
        _check_vector(scorer, graph, known[key], vector)
    axes = [axis for key, axis in known.items() if key in sites]
    values = _numbers([sites[axis.tensor, axis.axis] for axis in axes])
    shapes = [tuple(sites[axis.tensor, axis.axis].shape) for axis in axes]
    pieces = np.split(values, np.cumsum([math.prod(shape) for shape in shapes])[:-1]) if axes else []
    vectors = [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]
    if not np.isfinite(values).all():
        for axis, numbers in zip(axes, vectors, strict=True):
            _check_finite(scorer, axis, numbers)
    return axes, vectors


def _sites(axis: Axis, scores: Values, *, once: bool) -> tuple[Values, UnitArray]:
    """The scores of the sites of an axis and their units.

    Scores of whole heads, [factors, size], are one site for each unit of the axis; so are others with
    `once`: a head has many channels, and none comes first.
    """
    channels, units = axis.sites()
    if scores.ndim == 1 and not once:
        return scores[channels], units
    own = scores[channels] if scores.ndim == 1 else scores[axis.units >= 0]
    distinct, which = np.unique(units, return_inverse=True)
    return reduce_sites(own, which.ravel(), len(distinct), Reduce.MEAN), distinct


def _nearest(key: object, known: Mapping[AxisKey, Axis]) -> str:
    names = sorted({tensor for tensor, _ in known})
    tensor = key[0] if isinstance(key, tuple) and key else key
    here = [f"{name!r} axis {axis}" for name, axis in known if name == tensor]
    if here:
        return f"of that tensor it has {', '.join(here)}"
    near = get_close_matches(str(tensor), names, n=3) or names[:3]
    return f"keys are (tensor, axis) of one of graph.axes, such as {', '.join(map(repr, near))}"


def _check_vector(scorer: Scorer, graph: Graph, axis: Axis, vector: object) -> None:
    if not isinstance(vector, Tensor) or vector.is_complex():
        where = f"{scorer!r}: {axis.tensor!r} axis {axis.axis}"
        kind = f"a {vector.dtype} tensor" if isinstance(vector, Tensor) else type(vector).__name__
        raise ScoreError(f"{where}: scores must be a tensor of real numbers, got {kind}")
    if tuple(vector.shape) not in ((axis.size,), axis.units.shape):
        where = f"{scorer!r}: {axis.tensor!r} axis {axis.axis}"
        shape = list(dict(graph.signature.tensors)[axis.tensor])
        blocks = f", counted over its {axis.blocks} blocks" if axis.blocks > 1 else ""
        raise ScoreError(
            f"{where}: expected {axis.size} scores, one for each channel{blocks} (the tensor's "
            f"shape is {shape}), got shape {list(vector.shape)}; reduce over all axes but that one"
        )


def _check_finite(scorer: Scorer, axis: Axis, numbers: Values) -> None:
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        raise ScoreError(
            f"{scorer!r}: {axis.tensor!r} axis {axis.axis}: expected finite scores, got "
            f"{numbers[tuple(bad[0])]} for channel {bad[0][-1]} ({len(bad)} of {axis.size} are not finite); "
            "look for NaN or infinite weights in that tensor, or a division by zero in the scorer"
        )


def _numbers(vectors: Sequence[Tensor]) -> Values:
    """All vectors, one after the other, as float64 on the host."""
    if not vectors:
        return np.zeros(0)
    if len({vector.device for vector in vectors}) > 1:
        vectors = [vector.cpu() for vector in vectors]
    # One copy from the device, and float64 only after it: not every device knows it.
    joined = torch.cat([vector.detach().flatten() for vector in vectors])
    result: Values = joined.cpu().to(torch.float64).numpy()
    return result


def _check_complete(scorer: Scorer, graph: Graph, values: Values) -> None:
    missing: UnitArray = np.flatnonzero(np.isnan(values))
    if not len(missing):
        return
    group = graph.groups[graph.group_of[missing[0]]]
    members = np.concatenate(group.cells)
    lacking = int(np.isnan(values[members]).sum())
    holding = [f"{axis.tensor!r} axis {axis.axis}" for axis in graph.axes if missing[0] in axis.units]
    raise ScoreError(
        f"{scorer!r}: no score for {lacking} of the {len(members)} units of group {group.name!r}, "
        f"expected one for every unit; let site_scores return at least one of the axes that hold "
        f"them: {', '.join(holding)}"
    )


def _shown_options(scorer: object) -> list[str]:
    """`name=value` of a dataclass scorer's options, without keyword-only ones at their default."""
    if not is_dataclass(scorer):
        return []
    shown = []
    for option in fields(scorer):
        value = getattr(scorer, option.name)
        if option.repr and not (option.kw_only and value == option.default):
            shown.append(f"{option.name}={_shown(value)}")
    return shown


def _shown(value: object) -> str:
    if callable(value):  # its repr would be an address
        return getattr(value, "__name__", type(value).__name__)
    return repr(value)
