"""How deep each convolution of a network stands, counted in convolutions."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["conv_depths"]


def conv_depths(depths: Sequence[int]) -> tuple[tuple[int, float], ...]:
    """For each convolution its rank among the depths that hold any, and that rank in [0, 1].

    `depths` are the lengths of the longest paths from an input of the network to each convolution, in
    operators. Convolutions of one depth stand beside each other and share a rank.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331, and their extraction code.*
    Departure: where all convolutions are of one depth the published rank in [0, 1] is a division by zero,
    here it is 0.

    >>> conv_depths([1, 4, 4, 9])
    ((0, 0.0), (1, 0.5), (1, 0.5), (2, 1.0))
    """
    ranks = {depth: rank for rank, depth in enumerate(sorted(set(depths)))}
    last = max(len(ranks) - 1, 1)
    return tuple((ranks[depth], ranks[depth] / last) for depth in depths)
