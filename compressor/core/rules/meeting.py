"""Where axes of two operands meet position by position: their labels become the same channels.

Factors are matched by the way they partition the axis: heads meet heads, dims of a head meet dims of
a head. An axis that is not split yet asks to be (see `labels.Split`) when it meets one that is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from compressor.core.labels import NEUTRAL, OPAQUE, Ids, Layer
from compressor.core.rules.call import MEETS_FIXED, Call, Layers

__all__ = ["join"]

_OTHERWISE = "meets an axis that is split into heads or groups in another way"


def join(call: Call, one: Layers, other: Layers) -> Layers:
    """The layers of an axis along which `one` and `other` meet; an operand with none is not asked."""
    if not one or not other:
        return one or other
    if len(one) == len(other) == 1:
        call.merge(one[0].ids, other[0].ids)
        return (_more_telling(one[0], other[0]),)
    a, b = np.stack([layer.ids for layer in one]), np.stack([layer.ids for layer in other])
    for positions in _segments(a, b):
        _join_factors(call, _spoken(a[:, positions]), _spoken(b[:, positions]))
    if len(one) == len(other) and all(map(_same_partition, a, b)):
        return tuple(_more_telling(*pair) for pair in zip(one, other, strict=True))
    if len(one) == len(other):
        # Of heads of three kinds that are the same heads, the side that knows them as one.
        return min(one, other, key=lambda layers: sum(len(np.unique(x.ids)) for x in layers))
    return other if len(other) > len(one) or all(layer.soft for layer in one) else one


def _segments(a: Ids, b: Ids) -> list[Ids]:
    """Positions [n] sorted into sets at which the same factors speak."""
    speaking = np.concatenate([a, b]) != NEUTRAL
    if speaking.all():
        return [np.arange(a.shape[1])]
    _, kind = np.unique(speaking, axis=1, return_inverse=True)
    return [np.flatnonzero(kind.ravel() == k) for k in range(int(kind.max()) + 1)]


def _spoken(ids: Ids) -> Ids:
    return np.asarray(ids[(ids != NEUTRAL).all(1)])


def _join_factors(call: Call, a: Ids, b: Ids) -> None:
    """One segment: factors [k, n] of one operand meet factors [m, n] of the other."""
    fixed = (a == OPAQUE).any(0) | (b == OPAQUE).any(0)
    if fixed.any():
        for side in (a, b):
            call.space.pin(side[:, fixed], f"{MEETS_FIXED} ({call.where})")
        a, b = a[:, ~fixed], b[:, ~fixed]
    if not a.size or not b.size:
        return
    if len(a) == len(b) == 1:
        call.merge(a[0], b[0])
        return
    left, right = _matched(call, [*a], [*b], _same_partition)
    if len(left) == len(right) > 1:
        left, right = _matched(call, left, right, _nested)
    if len(left) == 1 and right and call.split(left[0], [_indices(row) for row in right], _OTHERWISE):
        return
    if len(right) == 1 and left and call.split(right[0], [_indices(row) for row in left], _OTHERWISE):
        return
    for row in (*left, *right):
        call.space.pin(row, f"{_OTHERWISE} ({call.where})")


def _matched(
    call: Call, left: list[Ids], right: list[Ids], alike: Callable[[Ids, Ids], bool]
) -> tuple[list[Ids], list[Ids]]:
    """Merge the factors of both sides that are alike; those that are left over."""
    rest = []
    for mine in left:
        same = next((i for i, theirs in enumerate(right) if alike(mine, theirs)), None)
        if same is None:
            rest.append(mine)
        else:
            call.merge(mine, right[same])
            right = [*right[:same], *right[same + 1 :]]
    return rest, right


def _same_partition(a: Ids, b: Ids) -> bool:
    return a is b or np.array_equal(a, b) or np.array_equal(_partition(a), _partition(b))


def _nested(a: Ids, b: Ids) -> bool:
    """Whether one label of either side determines that of the other (heads of queries, keys and values)."""
    pairs = len(np.unique(np.stack([a, b]), axis=1).T)
    return pairs in (len(np.unique(a)), len(np.unique(b)))


def _partition(ids: Ids) -> Ids:
    """For each position the first one with the same label [n]."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def _indices(ids: Ids) -> Ids:
    return np.unique(ids, return_inverse=True)[1].ravel()


def _more_telling(kept: Layer, other: Layer) -> Layer:
    """Of two merged layers the one that knows more: labels before OPAQUE, hard before soft."""
    if other.soft and not kept.soft:
        return kept
    ids = np.where(kept.ids == OPAQUE, other.ids, kept.ids) if (kept.ids == OPAQUE).any() else kept.ids
    return Layer(kept.axis, other.ids if kept.soft and not other.soft else ids, kept.soft and other.soft)
