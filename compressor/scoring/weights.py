"""Which weights a scorer looks at, and what a channel's slice of one is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.core.channels import any_free
from compressor.core.graph import PINNED, Axis, Graph
from compressor.core.plan import Role
from compressor.core.tape import named_tensors
from compressor.errors import InputError
from compressor.observing.precision import widened

__all__ = [
    "BOTH",
    "READERS",
    "WRITERS",
    "RolesLike",
    "channel_slices",
    "channel_sums",
    "factor_layers",
    "layer_scores",
    "own_axes",
    "roles_of",
    "spread",
    "unblocked",
    "weight_axes",
    "weights_of",
]

RolesLike = Role | Collection[Role]
WRITERS: tuple[Role, ...] = ("writer",)
READERS: tuple[Role, ...] = ("reader",)
BOTH: tuple[Role, ...] = WRITERS + READERS


def roles_of(roles: RolesLike) -> tuple[Role, ...]:
    """The chosen roles in a fixed order; InputError for anything but writers, readers or both.

    >>> roles_of("reader")
    ('reader',)
    """
    chosen = {roles} if isinstance(roles, str) else set(roles)
    if not chosen or not chosen <= set(BOTH):
        raise InputError(f"roles must be 'writer', 'reader' or both, got {roles!r}")
    return tuple(role for role in BOTH if role in chosen)


def weight_axes(graph: Graph, roles: RolesLike) -> list[Axis]:
    """The axes of filters and matrices (parameters with two axes or more) with one of the roles.

    Vectors (biases, norm scales) and buffers are measured in other units than weights and are left
    out. Only for units that no chosen axis reaches, axes are added in this order: weights of the
    other role, vectors, buffers. So every unit has a site.
    """
    found = {(axis.tensor, axis.axis) for axis in own_axes(graph, roles)}
    return [axis for axis in graph.axes if (axis.tensor, axis.axis) in found]


def own_axes(graph: Graph, roles: RolesLike) -> list[Axis]:
    """The same axes, those that were added with only the units that they were added for.

    Dims of queries are read by no weight. The rows that write them belong to heads as well, whose
    effect is counted where heads are read.
    """
    chosen = roles_of(roles)
    tensors = named_tensors(graph.model)

    def preference(axis: Axis) -> int:
        if not isinstance(tensors[axis.tensor], nn.Parameter):
            return 3
        if tensors[axis.tensor].ndim < 2:
            return 2
        return 0 if axis.role in chosen else 1

    reached = np.zeros(graph.n_units + 1, dtype=bool)
    ranked: dict[int, list[tuple[int, Axis]]] = {}
    for position, axis in enumerate(graph.axes):
        if tensors[axis.tensor].is_floating_point() or tensors[axis.tensor].is_complex():
            ranked.setdefault(preference(axis), []).append((position, axis))
    found: dict[int, Axis] = {}
    for level in sorted(ranked):
        for position, axis in ranked[level]:
            own = axis.units if level == 0 else np.where(reached[axis.units], PINNED, axis.units)
            if any_free(own):
                found[position] = axis if level == 0 else replace(axis, units=own)
                reached[own[own >= 0]] = True
    return [found[position] for position in sorted(found)]


def spread(scores: npt.NDArray[np.float64], axes: Iterable[Axis]) -> dict[tuple[str, int], Tensor]:
    """For each axis the unit scores [n_units] at its channels [axis.size]: 0 where none can go.

    A channel of several factors has the lowest of their scores: the one that takes it away first.
    """
    padded = np.append(scores, np.inf)  # so that PINNED reads infinity
    found = {}
    for axis in axes:
        lowest = np.atleast_2d(padded[axis.units]).min(0)
        found[axis.tensor, axis.axis] = torch.from_numpy(np.where(axis.free, lowest, 0.0))
    return found


def factor_layers(graph: Graph, axis: Axis) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The layers that the factors of an axis [factors, size] see: heads as wholes, dims as wholes.

    Each is a factor and the channels of every unit [n_units, times], which correspond column by column.
    Units of one group are of one layer; queries and keys side by side in one are another than values.
    """
    for factor, row in enumerate(np.atleast_2d(axis.units)):
        channels = np.argsort(row, kind="stable")
        units, first, times = np.unique(row[channels], return_index=True, return_counts=True)
        kinds = np.stack([graph.group_of[units], times])
        for group, count in np.unique(kinds[:, units >= 0], axis=1).T.tolist():
            starts = first[(units >= 0) & (kinds[0] == group) & (kinds[1] == count)]
            yield factor, channels[starts[:, None] + np.arange(count)]


def layer_scores(graph: Graph, axis: Axis, filters_NF: Tensor, measure: Callable[[Tensor], Tensor]) -> Tensor:
    """What `measure` makes of the filters of an axis [N], or [factors, N] where it has several factors.

    `measure` gives one number for each row among all rows of a layer: a head is one row among heads.
    """
    if axis.units.ndim == 1:
        return measure(filters_NF)
    scores = widened(filters_NF.new_zeros(axis.units.shape))
    for factor, channels in factor_layers(graph, axis):
        places = torch.from_numpy(channels).to(filters_NF.device)
        scores[factor, places] = measure(filters_NF[places].flatten(1))[:, None]
    return scores


def weights_of(graph: Graph) -> dict[str, Tensor]:
    """Every parameter and buffer by canonical name, detached, sharing memory with the model's.

    A complex tensor is seen as a real one with a last axis of two.
    """
    return {
        name: torch.view_as_real(tensor.detach()) if tensor.is_complex() else tensor.detach()
        for name, tensor in named_tensors(graph.model).items()
    }


def unblocked(tensor: Tensor, axis: Axis) -> Tensor:
    """The tensor with its blocks of rows side by side along the axis, which then has `axis.size`.

    The weight [O, I/g, …] of a convolution with g groups becomes [O/g, I, …], so that input channel
    i of the convolution is index i along axis 1. Without blocks, the tensor itself.
    """
    if axis.blocks == 1:
        return tensor
    blocks = tensor.reshape(axis.blocks, -1, *tensor.shape[1:])
    return blocks.movedim(0, axis.axis).flatten(axis.axis, axis.axis + 1)


def channel_slices(tensor: Tensor, axis: Axis) -> Tensor:
    """One row for each channel of the axis, holding its slice of the tensor: [axis.size, rest]."""
    return unblocked(tensor, axis).movedim(axis.axis, 0).reshape(axis.size, -1)


def channel_sums(tensor: Tensor, axis: Axis) -> Tensor:
    """The sum of each channel's slice [axis.size]: `channel_slices(…).sum(1)` without the copy."""
    if axis.axis > 0:
        # Rows first: summing whole rows into one another reads memory in order.
        blocks = tensor.reshape(axis.blocks, -1, *tensor.shape[1:])
        tensor = blocks.sum(dim=tuple(range(1, axis.axis + 1)))
    return tensor.reshape(axis.size, -1).sum(dim=1)
