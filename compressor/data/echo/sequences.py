"""Image sequences of echocardiography: grey volumes with their names and vendors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["Sequences"]


@dataclass(frozen=True, eq=False, repr=False)
class Sequences:
    """B-mode sequences of one size, with the name and the vendor of each.

    `frames` is [N, 1, H, W, T], uint8 (0 to 255) or floating-point (0 to 1); time is the last axis, as the
    clutter filter reads it. `names` and `vendors` have N entries; a vendor may be "".

    Raises InputError for another layout, and, with the name of the sequence, for values that are not
    finite or out of range.

    >>> sequences = Sequences(torch.zeros(2, 1, 8, 8, 5), ("a", "b"), ("GE", "Philips"))
    >>> sequences, sequences.of("Philips").names
    (Sequences(2 of 8x8, 5 frames, GE, Philips), ('b',))
    """

    frames: Tensor
    names: tuple[str, ...]
    vendors: tuple[str, ...]

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, Tensor) or frames.dim() != 5 or frames.shape[1] != 1 or not frames.numel():
            found = list(frames.shape) if isinstance(frames, Tensor) else type(frames).__name__
            raise InputError(f"Sequences: frames must be a tensor [N, 1, H, W, T], none empty, got {found}")
        if not len(self.names) == len(self.vendors) == len(frames):
            raise InputError(
                f"Sequences: {len(frames)} sequences need as many names and vendors, got "
                f"{len(self.names)} and {len(self.vendors)}"
            )
        if frames.dtype != torch.uint8:
            self._check_range()

    def _check_range(self) -> None:
        if not self.frames.is_floating_point():
            raise InputError(
                f"Sequences: frames must be uint8 (0..255) or floating-point (0..1), got {self.frames.dtype}"
            )
        for name, one in zip(self.names, self.frames, strict=True):
            low, high = float(one.min()), float(one.max())
            if not bool(torch.isfinite(one).all()):
                raise InputError(f"sequence {name!r} holds values that are not finite (NaN or infinity)")
            if low < 0 or high > 1:
                raise InputError(
                    f"sequence {name!r} must lie in 0..1, got {low:.4g}..{high:.4g}; grey levels 0..255 are "
                    f"divided by 255, or given as uint8"
                )

    def __len__(self) -> int:
        return len(self.frames)

    def __repr__(self) -> str:
        height, width, count = self.frames.shape[2:]
        vendors = ", ".join(dict.fromkeys(vendor for vendor in self.vendors if vendor))
        return f"Sequences({len(self)} of {height}x{width}, {count} frames{vendors and ', ' + vendors})"

    def unit(self) -> Tensor:
        """The frames as floating-point numbers from 0 to 1 (float32 where they were uint8)."""
        return self.frames.float() / 255 if self.frames.dtype == torch.uint8 else self.frames

    def pick(self, indices: Sequence[int]) -> Sequences:
        """The sequences at these places, in this order; raises InputError where there are none."""
        if not indices:
            raise InputError(f"no sequence was picked of {self!r}")
        return Sequences(
            self.frames[list(indices)],
            tuple(self.names[index] for index in indices),
            tuple(self.vendors[index] for index in indices),
        )

    def of(self, *vendors: str) -> Sequences:
        """The sequences of these vendors; raises InputError for one that has none."""
        self._check_vendors(vendors)
        return self.pick([index for index, vendor in enumerate(self.vendors) if vendor in vendors])

    def without(self, *vendors: str) -> Sequences:
        """The sequences of all other vendors; raises InputError for one that has none, or if none is left."""
        self._check_vendors(vendors)
        return self.pick([index for index, vendor in enumerate(self.vendors) if vendor not in vendors])

    def _check_vendors(self, vendors: Iterable[str]) -> None:
        known = dict.fromkeys(self.vendors)
        for vendor in vendors:
            if vendor not in known:
                raise InputError(f"no sequence of vendor {vendor!r}; there are {', '.join(known)}")

    def halved(self) -> Sequences:
        """The sequences at half the height and width, means over 2x2 pixels, as floats from 0 to 1.

        Raises InputError for odd sizes.

        >>> Sequences(torch.ones(1, 1, 4, 6, 3), ("a",), ("",)).halved()
        Sequences(1 of 2x3, 3 frames)
        """
        height, width = self.frames.shape[2:4]
        if height % 2 or width % 2:
            raise InputError(
                f"halving needs an even height and width, got {height}x{width}; crop the frames, "
                f"say frames[:, :, :{height - height % 2}, :{width - width % 2}]"
            )
        means = self.unit().unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean(dim=(3, 5))
        return Sequences(means, self.names, self.vendors)
