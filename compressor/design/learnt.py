"""What initialisers that learn from windows of a layer's inputs have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from compressor.design.initialiser import Initialiser
from compressor.design.layer import Part
from compressor.design.noise import GAIN_OF_RELU, check_gain
from compressor.design.reading import check_batches, windows_read
from compressor.errors import InputError

__all__ = ["Learnt"]


@dataclass(frozen=True)
class Learnt(Initialiser):
    """Reads up to `windows` windows of what a layer reads, `per_example` of each example of `batches`."""

    batches: Iterable[object] = field(repr=False)
    _: KW_ONLY
    gain: float = GAIN_OF_RELU
    windows: int = 10_000
    per_example: int = 16

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_gain(name, self.gain)
        check_batches(name, self.batches)
        for option in ("windows", "per_example"):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}: {option} must be a whole number, at least 1, got {value!r}")

    def read(self, part: Part, generator: torch.Generator, *, times: int = 1) -> Tensor:
        """The windows of the part's group [M, I, *(times * k)]."""
        key = (id(self.batches), self.windows, self.per_example, times)
        known = part.layer.read.get(key)
        if known is None:
            known = part.layer.read[key] = windows_read(
                part.layer,
                self.batches,
                count=self.windows,
                per_example=self.per_example,
                times=times,
                generator=generator,
            )
        return known[part.group]

    def filters(self, part: Part, rows_NK: Tensor) -> Tensor:
        """The rows [n, I * k] as filters, scaled to the gain."""
        shaped = rows_NK.to(part.filters).reshape(-1, part.channels, *part.kernel_size)
        return part.to_gain(shaped, self.gain)
