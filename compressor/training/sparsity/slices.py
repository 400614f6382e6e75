"""The channels of one parameter as rows of numbers, read and written in place."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from compressor.core.graph import Axis, Mask, UnitArray

__all__ = ["Slices", "slices_of"]


@dataclass(frozen=True, eq=False)
class Slices:
    """`channels` [K] of an axis of the tensor `name`, each a row of N numbers; see `Axis` for `blocks`.

    `units` [K] is a unit that takes each of them away. Nothing but these rows is ever read or written:
    what stays is not multiplied by one or added zero to.
    """

    name: str
    axis: int
    blocks: int
    size: int
    channels: UnitArray
    units: UnitArray
    _indices: dict[torch.device, Tensor] = field(default_factory=dict, repr=False)

    def rows(self, tensor: Tensor) -> Tensor:
        """A copy of the rows [K, N] of a tensor of the parameter's shape."""
        if self.blocks == 1:
            taken = tensor.index_select(self.axis, self._index(tensor.device))
            return taken.movedim(self.axis, 0).reshape(len(self.channels), -1)
        view, place = self._in_blocks(tensor)
        return view[place].reshape(len(self.channels), -1)

    def put_(self, tensor: Tensor, rows_KN: Tensor) -> None:
        """Write the rows [K, N] into the tensor."""
        if self.blocks == 1:
            rest = [*tensor.shape[: self.axis], *tensor.shape[self.axis + 1 :]]
            shaped = rows_KN.reshape(len(self.channels), *rest).movedim(0, self.axis)
            tensor.index_copy_(self.axis, self._index(tensor.device), shaped.to(tensor.dtype))
            return
        view, place = self._in_blocks(tensor)
        view[place] = rows_KN.reshape(view[place].shape).to(tensor.dtype)

    def _index(self, device: torch.device) -> Tensor:
        if device not in self._indices:
            self._indices[device] = torch.from_numpy(self.channels).to(device)
        return self._indices[device]

    def _in_blocks(self, tensor: Tensor) -> tuple[Tensor, tuple[Tensor | slice, ...]]:
        """A view [blocks, rows, …] and where the channels are in it; the channels' axis comes first there."""
        width = self.size // self.blocks
        index = self._index(tensor.device)
        between = (slice(None),) * self.axis
        return tensor.unflatten(0, (self.blocks, -1)), (index // width, *between, index % width)


def slices_of(axis: Axis, removed: Mask) -> Slices:
    """The channels of an axis that go when the `removed` [n_units] units do.

    >>> axis = Axis("w", 0, np.array([0, 1, 2]), "writer")
    >>> slices_of(axis, np.array([True, False, True])).rows(torch.tensor([[1.0], [2.0], [3.0]]))
    tensor([[1.],
            [3.]])
    """
    channels = np.flatnonzero(axis.gone(removed))
    padded = np.append(removed, False)
    held = np.atleast_2d(axis.units)[:, channels]
    first = padded[held].argmax(axis=0)
    return Slices(
        axis.tensor, axis.axis, axis.blocks, axis.size, channels, held[first, np.arange(len(channels))]
    )
