"""A layer's weights as the matrix of a regression, and back.

Shapes: G groups, K inputs (channels times taps) and O outputs of a group.
"""

from __future__ import annotations

from torch import Tensor

from compressor.observing import LayerCall

__all__ = ["as_matrix", "as_weight"]


def as_matrix(call: LayerCall) -> Tensor:
    """What the call multiplies by, as [G, K, O]."""
    filters, groups = call.filters.detach(), call.groups
    if call.kind == "conv_transpose":  # [in, out/groups, *kernel]
        parts: Tensor = filters.flatten(2).unflatten(0, (groups, -1))
        return parts.transpose(2, 3).flatten(1, 2)
    rows: Tensor = filters.flatten(1).unflatten(0, (groups, -1))
    return rows.mT


def as_weight(matrix_GKO: Tensor, call: LayerCall) -> Tensor:
    """The matrix in the shape of the parameter behind `call.filters`."""
    filters = call.filters
    if call.kind == "conv_transpose":
        taps = filters[0, 0].numel()
        parts: Tensor = matrix_GKO.unflatten(1, (-1, taps)).transpose(2, 3)
        return parts.flatten(0, 1).reshape(filters.shape)
    weight = matrix_GKO.mT.flatten(0, 1).reshape(filters.shape)
    return weight.t() if (call.writer_axis, call.reader_axis) == (1, 0) else weight
