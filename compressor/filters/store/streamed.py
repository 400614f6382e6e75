"""A layer whose kernels come in parts, as it is given to a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from compressor.errors import InputError
from compressor.filters.bank import FilterBank
from compressor.filters.store.layer import Plain

__all__ = ["StreamedLayer"]


@dataclass(frozen=True)
class StreamedLayer:
    """A layer whose kernels come in parts, for those that memory should not hold whole.

    `parts` are arrays or tensors [n, K] or [n, *kernel_size] of any n, `count` kernels in all. The rest is
    that of a `Layer`; `out_channels` and `in_channels` are None where only the kernels are known.
    """

    name: str
    count: int
    parts: Iterable[Any]
    out_channels: int | None = None
    in_channels: int | None = None
    layer_id: int | None = None
    conv_depth: int | None = None
    conv_depth_norm: float | None = None
    groups: int = 1
    transposed: bool = False
    folded: bool = False
    metadata: Mapping[str, Plain] = field(default_factory=dict)

    @classmethod
    def of(cls, bank: FilterBank, *, metadata: Mapping[str, Plain] | None = None) -> StreamedLayer:
        """A bank as it is, with meta data of its own."""
        out, into = bank.weight.shape[:2]
        return cls(
            name=bank.name,
            count=bank.count,
            parts=(bank.weight.flatten(0, 1),),
            out_channels=out,
            in_channels=into,
            layer_id=bank.layer_id,
            conv_depth=bank.conv_depth,
            conv_depth_norm=bank.conv_depth_norm,
            groups=bank.groups,
            transposed=bank.transposed,
            folded=bank.folded,
            metadata=metadata or {},
        )

    def check_count(self, count: int, where: str) -> None:
        """Raise InputError unless `count` kernels, those that came, are what was announced."""
        if count != self.count or not count:
            raise InputError(f"{where}: {self.count} kernels were announced and {count} came")
        if (self.out_channels is None) != (self.in_channels is None):
            raise InputError(f"{where}: output and input channels are both known, or neither is")
        if self.out_channels is not None and self.in_channels is not None:
            product = self.out_channels * self.in_channels
            if product != count:
                raise InputError(
                    f"{where}: {self.out_channels} filters of {self.in_channels} kernels are {product}, "
                    f"got {count}"
                )
