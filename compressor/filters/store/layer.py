"""One layer of a store: where its kernels are, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["COLUMNS", "Layer", "Plain"]

Plain = str | int | float | bool | None
"""What a value of a user's meta data may be."""


@dataclass(frozen=True, repr=False)
class Layer:
    """A row of the table of layers.

    `key` is its running number in the store, `layer_id` that in its model. `in_channels` are those of one
    group, so that the weight is [out_channels, in_channels, *kernel_size]; both are None where only the
    kernels are known. `peak` is the largest absolute value. The kernels lie in the row groups `row_group` to
    `row_group + row_groups - 1` of the file of the part. `source_sha256` is the digest of the file that the
    model was read from. `metadata` are the user's values, each a column of the table.

    >>> Layer(key=4, model="resnet20", layer_name="conv1", count=48, out_channels=16, in_channels=3)
    Layer(4, resnet20: conv1, 48 kernels)
    """

    key: int
    model: str
    layer_name: str
    count: int
    layer_id: int | None = None
    conv_depth: int | None = None
    conv_depth_norm: float | None = None
    out_channels: int | None = None
    in_channels: int | None = None
    groups: int = 1
    kernel_size: tuple[int, ...] = (3, 3)
    transposed: bool = False
    folded: bool = False
    peak: float = 0.0
    part: int = 0
    row_group: int = 0
    row_groups: int = 1
    source: str | None = None
    source_sha256: str | None = None
    metadata: Mapping[str, Plain] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"Layer({self.key}, {self.model}: {self.layer_name}, {self.count} kernels)"

    def __str__(self) -> str:
        return f"{self.model}: {self.layer_name}" if self.model else self.layer_name


COLUMNS = tuple(name for name in Layer.__dataclass_fields__ if name != "metadata")
"""The columns of the table of layers that are not the user's, in order."""
