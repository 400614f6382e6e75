"""One layer's kernels, read in any chunks: everything a sketch holds is counted here."""

from __future__ import annotations

from typing import NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.filters.moments import Moments
from compressor.filters.quality.sparsity import Comparison
from compressor.filters.sketching.channels import ChannelTally
from compressor.filters.sketching.setting import SketchSetting, threshold
from compressor.filters.sketching.sketch import Sketch

__all__ = ["Peak", "Tally"]

# Legend of shape suffixes: N kernels, K elements of a kernel.

_Block = npt.NDArray[np.floating]
_AT_ONCE = 9 << 13  # values: what is computed of so many fits a core's cache


class Peak:
    """The largest absolute weight of a layer, over its chunks; the first pass over a layer.

    >>> peak = Peak("conv1")
    >>> peak.add(torch.tensor([[1.0, -3.0], [0.0, 2.0]]))
    >>> peak.value
    tensor(3.)
    """

    def __init__(self, named: str) -> None:
        self._named = named
        self._value: Tensor | None = None

    def add(self, kernels_NK: Tensor) -> None:
        """Take a chunk in; raises InputError where it is no matrix of finite numbers."""
        values = _as_given(kernels_NK, self._named)
        if not values.numel():
            return
        low, high = torch.aminmax(values)
        peak = torch.maximum(-low, high)
        if not bool(peak.isfinite()):
            require_finite(values, f"the kernels of {self._named}")
        if self._value is not None and self._value.dtype != peak.dtype:
            raise InputError(
                f"{self._named}: chunks of {self._value.dtype} and of {peak.dtype}; a layer has one type"
            )
        self._value = peak if self._value is None else torch.maximum(self._value, peak)

    @property
    def value(self) -> Tensor:
        """The peak [], in the kernels' type; float16 and bfloat16 widened to float32."""
        if self._value is None:
            raise InputError(f"{self._named} has no kernels: an empty layer has no sketch")
        return self._value


class Tally:
    """The counters and sums of one layer; the second pass over its chunks.

    Counts do not depend on how the layer is cut into chunks, not by a single kernel; moments do so in the
    last bits. Memory is the same for a thousand kernels and for a billion.
    """

    def __init__(
        self,
        setting: SketchSetting,
        peak: Tensor,
        *,
        named: str,
        shape: tuple[int, int] | None = None,
        groups: int = 1,
    ) -> None:
        self._setting, self._peak, self._named = setting, peak, named
        self._limits = list(setting.thresholds(peak).values())
        self._clean_from = threshold(peak, setting.epsilon, setting.comparison)
        self._sparse = np.zeros((len(Comparison), len(setting.epsilons)), dtype=np.int64)
        self._counts = np.zeros((setting.width, setting.bins), dtype=np.int64)
        self._clean, self._few = _Population(setting.width), _Population(setting.width)
        self._channels = ChannelTally(shape, groups) if shape is not None else None
        self._zeros = 0
        self._found = np.zeros_like(peak.numpy())
        self._room: _Room | None = None
        self._at_once = max(1 << 10, _AT_ONCE // setting.width)

    def add(self, kernels_NK: Tensor) -> None:
        """Take the next chunk [N, K] in."""
        values = _as_given(kernels_NK, self._named)
        if values.dtype != self._peak.dtype or values.shape[1] != self._setting.width:
            raise InputError(
                f"{self._named}: expected kernels [N, {self._setting.width}] of {self._peak.dtype}, got "
                f"{list(values.shape)} of {values.dtype}"
            )
        for part_NK in values.split(self._at_once) if len(values) else ():
            room = self._room_for(part_NK)
            np.copyto(room.raw, part_NK.numpy().T)
            self._add(room)

    def _room_for(self, part_NK: Tensor) -> _Room:
        if self._room is None or self._room.raw.shape[1] != len(part_NK):
            self._room = _Room(part_NK)
        return self._room

    def _add(self, room: _Room) -> None:
        raw_KN = room.raw
        peaks_N = np.abs(raw_KN, out=room.scaled).max(axis=0)
        self._found = np.maximum(self._found, peaks_N.max())
        if not self._found <= self._peak.numpy():  # so written that NaN is found, too
            self._refuse_peak()
        zeros = len(peaks_N) - int(np.count_nonzero(peaks_N))
        self._zeros += zeros
        for how, limits in enumerate(self._limits):
            for place, limit in enumerate(limits):
                self._sparse[how, place] += np.count_nonzero(
                    _is_sparse(peaks_N, limit, tuple(Comparison)[how])
                )
        scaled_KN = np.divide(
            raw_KN, np.where(peaks_N == 0, 1, peaks_N) if zeros else peaks_N, out=room.scaled
        )
        self._counts += self._setting.binning.counts(scaled_KN)
        sparse_N = _is_sparse(peaks_N, self._clean_from, self._setting.comparison)
        if self._channels is not None:
            self._channels.add(sparse_N)
        for population, chosen_N in ((self._clean, ~sparse_N), (self._few, sparse_N)):
            if chosen_N.all():
                population.add(raw_KN, scaled_KN, room.apart)
            elif chosen_N.any():
                population.add(raw_KN.compress(chosen_N, axis=1), scaled_KN.compress(chosen_N, axis=1), None)

    def sketch(self) -> Sketch:
        """The sketch of all chunks together; raises InputError where their peak is another than announced."""
        if self._found != self._peak.numpy():
            self._refuse_peak()
        clean, few = self._clean.raw.moments(), self._few.raw.moments()
        scaled_clean, scaled_few = self._clean.scaled.moments(), self._few.scaled.moments()
        channels = self._channels.dead(self._named) if self._channels is not None else {}
        return Sketch(
            self._setting,
            layers=1,
            peak=float(self._peak),
            zeros=self._zeros,
            sparse_2E=torch.from_numpy(self._sparse.copy()),
            raw=clean.merge(few),
            clean=clean,
            scaled=scaled_clean.merge(scaled_few),
            scaled_clean=scaled_clean,
            counts_KB=torch.from_numpy(self._counts.copy()),
            **channels,
        )

    def _refuse_peak(self) -> NoReturn:
        raise InputError(
            f"{self._named}: its largest |weight| was said to be {float(self._peak)!r} and is "
            f"{float(self._found)!r}: the kernels changed, are cut short, or hold NaN"
        )


class _Room:
    """Arrays that are written again for each block: new ones would cost as much as the arithmetic."""

    def __init__(self, part_NK: Tensor) -> None:
        kind = part_NK.numpy().dtype
        shape = (part_NK.shape[1], len(part_NK))
        self.raw: _Block = np.empty(shape, dtype=kind)
        self.scaled: _Block = np.empty(shape, dtype=kind)
        self.apart = np.empty(shape, dtype=np.float64)


class _Sums:
    """Moments about the first row: equal rows have no variance at all, and no chunk depends on another."""

    def __init__(self, width: int) -> None:
        self._origin: npt.NDArray[np.float64] | None = None
        self._count = 0
        self._sum = np.zeros(width)
        self._products = np.zeros((width, width))

    def add(self, rows_KN: _Block, room: npt.NDArray[np.float64] | None) -> None:
        if self._origin is None:
            self._origin = rows_KN[:, :1].astype(np.float64)
        apart = np.subtract(rows_KN, self._origin, out=room)
        self._count += apart.shape[1]
        self._sum += apart.sum(axis=1)
        # NumPy's, which knows that the product is symmetric: half the time of torch's.
        self._products += apart @ apart.T

    def moments(self) -> Moments:
        if self._origin is None:
            return Moments.none(len(self._sum))
        mean = self._sum / self._count
        scatter = self._products - np.outer(self._sum, self._sum) / self._count
        return Moments(self._count, torch.from_numpy(self._origin[:, 0] + mean), torch.from_numpy(scatter))


class _Population:
    """Raw and scaled moments of some of a layer's kernels."""

    def __init__(self, width: int) -> None:
        self.raw, self.scaled = _Sums(width), _Sums(width)

    def add(self, raw_KN: _Block, scaled_KN: _Block, room: npt.NDArray[np.float64] | None) -> None:
        self.raw.add(raw_KN, room)
        self.scaled.add(scaled_KN, room)


def _is_sparse(peaks_N: _Block, limit: float, comparison: Comparison) -> npt.NDArray[np.bool_]:
    bound = peaks_N.dtype.type(limit)
    return peaks_N <= bound if comparison is Comparison.AT_MOST else peaks_N < bound


def _as_given(kernels_NK: Tensor, named: str) -> Tensor:
    if kernels_NK.ndim != 2 or not kernels_NK.is_floating_point():
        raise InputError(
            f"{named}: expected kernels [N, K] of a floating type, got {kernels_NK.dtype} "
            f"{list(kernels_NK.shape)}; kernel_matrix(weight) makes them of a weight"
        )
    wide = torch.float64 if kernels_NK.dtype == torch.float64 else torch.float32
    return kernels_NK.detach().to(device="cpu", dtype=wide)
