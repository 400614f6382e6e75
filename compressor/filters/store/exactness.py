"""Kernels as a store keeps them: finite, and not changed by a narrower dtype unless that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.filters.store.arrow import Rows

__all__ = ["Exactness"]

log = logging.getLogger(__name__)

_KINDS: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}


@dataclass(frozen=True)
class Exactness:
    """The dtype of a store, and whether values may be rounded to it."""

    dtype: torch.dtype = torch.float32
    allow_rounding: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in _KINDS:
            raise InputError(f"a store holds torch.float32 or torch.float64, got dtype={self.dtype}")

    @property
    def numpy(self) -> np.dtype[Any]:
        """The dtype of the stored arrays."""
        return _KINDS[self.dtype]

    def rows(self, values: object, kernel_size: Sequence[int], named: str) -> Rows:
        """Kernels [n, *kernel_size] or [n, K] as rows [n, K] of the store's dtype.

        Raises InputError, naming `named`, for another shape or kind, values that are not finite, and values
        that the dtype does not hold exactly unless that is allowed; then their number is logged.
        """
        given = values if isinstance(values, Tensor) else _tensor(values, named)
        width = int(np.prod(kernel_size))
        flat = given.detach().flatten(1) if given.ndim > 1 else given
        if flat.ndim != 2 or flat.shape[1] != width or not flat.is_floating_point():
            raise InputError(
                f"{named}: kernels are a floating [n, {width}] or [n, {', '.join(map(str, kernel_size))}], "
                f"got {given.dtype} {list(given.shape)}"
            )
        stored = flat.to(self.dtype)
        require_finite(flat, named)
        if torch.finfo(flat.dtype).bits > torch.finfo(self.dtype).bits:
            self._check(flat, stored, named)
        return stored.cpu().contiguous().numpy()

    def _check(self, given: Tensor, stored: Tensor, named: str) -> None:
        changed = int((stored.to(given.dtype) != given).sum())
        if not changed:
            return
        kind = str(self.dtype).removeprefix("torch.")
        require_finite(stored, f"{named}, rounded to {kind},")
        said = f"{named}: {changed} of {given.numel()} values are not exactly {kind}"
        if not self.allow_rounding:
            raise InputError(f"{said}; dtype=torch.float64 keeps them, allow_rounding=True rounds them")
        log.warning("%s; they are rounded", said)


def _tensor(values: object, named: str) -> Tensor:
    array = np.ascontiguousarray(values)
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise InputError(f"{named}: kernels are a floating array or tensor, got {array.dtype}") from error
