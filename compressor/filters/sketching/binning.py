"""Which bin each coefficient of a kernel falls into: counted in float32, decided in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Binning"]

# Legend of shape suffixes: N kernels, K elements of a kernel, C components, B bins.

_UNIT = float(np.finfo(np.float32).eps) / 2


class Binning:
    """Counts the coefficients (f − μ) · v of scaled kernels f in equal bins over −limit … limit.

    The bin of a coefficient is decided by its value in float64, summed in the order of the elements, and by
    the edges of `numpy.linspace`: so says `numpy.histogram`, too. Only such a rule gives the same counts
    however the kernels are cut into chunks: a matrix product rounds differently from shape to shape, and the
    last bit decides for a value at an edge. Following it to the letter is slow. So a product in float32 finds
    the bins first, and what lies within the product's rounding error of an edge (about one kernel in a
    thousand) is computed again by the rule: a filtered predicate.

    *Source: J. R. Shewchuk, 1997, Adaptive precision floating-point arithmetic and fast robust geometric
    predicates, section 1 (filters).*
    """

    def __init__(self, mean_K: torch.Tensor, components_CK: torch.Tensor, *, limit: float, bins: int) -> None:
        # Copies: whoever moves the tensors' memory would pull it away from here.
        self._mean = mean_K.detach().double().cpu().numpy().copy(order="C")
        self._components = components_CK.detach().double().cpu().numpy().copy(order="C")
        self._edges: npt.NDArray[np.float64] = np.linspace(-limit, limit, bins + 1)
        self._bins = bins
        count, width = self._components.shape
        per_unit = bins / (2 * limit)
        at_zero = (limit - self._components @ self._mean) * per_unit
        matrix = self._components * per_unit
        self._matrix = matrix.astype(np.float32)
        # Rounding of the factors, width + 1 sums, the shift by the slack itself; doubled to be on the safe
        # side.
        size = np.abs(matrix).sum(axis=1).max() + np.abs(at_zero).max()
        self._slack = np.float32(2 * _UNIT * ((width + 4) * size + 2 * bins))
        self._low = at_zero.astype(np.float32)[:, None] - self._slack
        self._room: _Room | None = None
        self._offsets = (np.arange(count, dtype=np.int32) * bins)[:, None]

    def counts(self, scaled_KN: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """How many coefficients of these kernels fall into each bin [C, B]; elements lie within ±1."""
        room = self._room_for(scaled_KN.shape[1])
        # NumPy's product, as torch may be set to do its own in less than float32.
        np.matmul(self._matrix, scaled_KN.astype(np.float32, copy=False), out=room.place)
        room.place += self._low
        np.copyto(room.bins, room.place, casting="unsafe")
        room.place += 2 * self._slack
        np.copyto(room.bins_above, room.place, casting="unsafe")
        np.not_equal(room.bins, room.bins_above, out=room.unsure)
        room.bins += self._offsets
        count = len(self._components) * self._bins
        counts = torch.bincount(torch.from_numpy(room.bins).view(-1), minlength=count).numpy()
        columns = np.flatnonzero(np.logical_or.reduce(room.unsure, axis=0))
        if len(columns):
            right = self.decided(scaled_KN[:, columns]) + self._offsets
            counts -= np.bincount(room.bins[:, columns].ravel(), minlength=count)
            counts += np.bincount(right.ravel(), minlength=count)
        return counts.reshape(-1, self._bins)

    def _room_for(self, kernels: int) -> _Room:
        if self._room is None or self._room.place.shape[1] != kernels:
            self._room = _Room(len(self._components), kernels)
        return self._room

    def decided(self, scaled_KN: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """The bins of the coefficients [C, N] by the rule alone, slowly."""
        total = np.zeros((len(self._components), scaled_KN.shape[1]))
        for element, values in enumerate(scaled_KN):
            # Not a matrix product and not einsum: one rounding per product and per sum, in this order.
            total += (values.astype(np.float64) - self._mean[element]) * self._components[:, element, None]
        found = np.searchsorted(self._edges, total, side="right") - 1
        return np.minimum(found, self._bins - 1).astype(np.int64)


class _Room:
    """Arrays that are written again for each block: new ones would cost as much as the arithmetic."""

    def __init__(self, components: int, kernels: int) -> None:
        shape = (components, kernels)
        self.place = np.empty(shape, dtype=np.float32)
        self.bins = np.empty(shape, dtype=np.int32)
        self.bins_above = np.empty(shape, dtype=np.int32)
        self.unsure = np.empty(shape, dtype=bool)
