"""The filters of one convolution, and where in its network it stands."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters.kernel_sizes import size_words

__all__ = ["FilterBank", "checked_weight", "kernel_matrix", "require_finite"]


@dataclass(frozen=True, repr=False, eq=False)
class FilterBank:
    """The weight of one convolution; whatever measures filters takes these.

    A *kernel* is the slice of one output and one input channel, a *filter* all kernels of one output
    channel. `weight` is [O, I / groups, *kernel_size], kept as it is given, with its device and dtype.

    `layer_id` counts the banks of a model in the order of its graph, `conv_depth` is the rank of its
    depth among the depths of all its convolutions, `conv_depth_norm` the same in [0, 1].

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331.*
    Departure: there a kernel is called a filter.

    Raises InputError, with the name of the layer, where the weight is no floating tensor of at least three
    dimensions, is empty, or holds NaN or infinite values.

    >>> bank = FilterBank(torch.randn(8, 4, 3, 3), "layer1.conv", conv_depth=2)
    >>> bank
    FilterBank(layer1.conv: 8 x 4 kernels of 3 x 3)
    >>> bank.kernels.shape
    torch.Size([32, 9])
    """

    weight: Tensor
    name: str
    _: KW_ONLY
    model: str = ""
    layer_id: int | None = None
    conv_depth: int | None = None
    conv_depth_norm: float | None = None
    groups: int = 1
    transposed: bool = False
    """Whether the layer is a transposed convolution, its weight turned to [O, I / groups, *k]."""
    folded: bool = False
    """Whether the scale of the batch norm behind the layer is in the weight."""

    def __post_init__(self) -> None:
        where = f"{self.model}: {self.name}" if self.model else self.name
        object.__setattr__(self, "weight", checked_weight(self.weight, f"the weight of {where}"))
        if self.groups < 1 or len(self.weight) % self.groups:
            raise InputError(
                f"{where}: {len(self.weight)} filters do not make {self.groups} groups: "
                "groups divide the number of output channels"
            )

    def __repr__(self) -> str:
        filters, kernels = self.weight.shape[:2]
        size = size_words(self.kernel_size)
        return f"FilterBank({self.name}: {filters} x {kernels} kernels of {size})"

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The sizes of a kernel, [*k]."""
        return tuple(self.weight.shape[2:])

    @property
    def kernels(self) -> Tensor:
        """Every kernel as a row [N, K], N = O * I / groups and K the product of the kernel's sizes."""
        return self.weight.flatten(0, 1).flatten(1)

    @property
    def count(self) -> int:
        """How many kernels there are, N."""
        return self.weight.shape[0] * self.weight.shape[1]


def kernel_matrix(weight: Tensor) -> Tensor:
    """Every kernel of a weight [O, I, *k] as a row [O * I, K]; the same checks as a `FilterBank`'s.

    >>> kernel_matrix(torch.randn(8, 4, 5)).shape
    torch.Size([32, 5])
    """
    return checked_weight(weight, "the weight").flatten(0, 1).flatten(1)


def require_finite(values: Tensor, named: str) -> None:
    """Raise InputError where a value is NaN or infinite: how many there are, and where the first is.

    >>> require_finite(torch.tensor([1.0, math.nan]), "the weight of conv1")
    Traceback (most recent call last):
    compressor.errors.InputError: the weight of conv1 holds 1 value that is NaN or infinite, first at [1]...
    """
    # The sum is finite only if all are, up to overflow: one pass without a mask in the usual case.
    if math.isfinite(values.sum(dtype=torch.float64).item()):
        return
    bad = ~torch.isfinite(values)
    count = int(bad.sum())
    if count:
        first = torch.nonzero(bad)[0].tolist()
        values_are = "value that is" if count == 1 else "values that are"
        raise InputError(
            f"{named} holds {count} {values_are} NaN or infinite, first at {first}: "
            "nothing can be said of such filters; look at the training that made them"
        )


def checked_weight(weight: Tensor, named: str) -> Tensor:
    """The weight [O, I, *k], detached; raises InputError, with what it is `named`, as `FilterBank` does."""
    if not isinstance(weight, Tensor):
        raise InputError(f"{named} is a tensor [O, I, *kernel], got {type(weight).__name__}")
    weight = weight.detach()
    if weight.ndim < 3 or not weight.is_floating_point():
        raise InputError(
            f"{named} is a floating tensor [O, I, *kernel] of three dimensions or more, "
            f"got {weight.dtype} {list(weight.shape)}"
        )
    if weight.is_meta:
        raise InputError(f"{named} is on the meta device, without values: load the model's weights first")
    if not weight.numel():
        raise InputError(f"{named} is empty: {list(weight.shape)}")
    require_finite(weight, named)
    return weight
