"""What an initialiser is told about a layer: its filters, which of them are to be drawn, what it reads.

Shapes: O filters, I input channels of a group, *k the kernel's sizes. A matrix is a layer without k.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.parameter import is_lazy

from compressor.errors import InputError, ModelError

__all__ = ["Layer", "Part", "WeightLayer", "layers_in", "turned"]

WeightLayer = _ConvNd | nn.Linear


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or matrix of `model`, of which the filters `chosen` (flags [O]) are to be drawn.

    `model` is a copy that the initialiser may run and write to; the layers drawn before are new in it.
    `tensor` is the name of the weight in it, `device` and `dtype` are those that filters are drawn in.
    """

    name: str
    tensor: str
    model: nn.Module
    module: WeightLayer
    chosen: Tensor
    device: torch.device
    read: dict[Hashable, Tensor] = field(default_factory=dict, repr=False)
    """What was read of its inputs, kept for the groups to come."""

    @property
    def dtype(self) -> torch.dtype:
        """At least single precision."""
        return torch.promote_types(self.module.weight.dtype, torch.float32)

    @property
    def groups(self) -> int:
        """In how many groups the convolution falls."""
        return self.module.groups if isinstance(self.module, _ConvNd) else 1

    @property
    def stride(self) -> int:
        """How many positions an input of a transposed convolution is spread over; 1 for all others."""
        return math.prod(self.module.stride) if isinstance(self.module, _ConvTransposeNd) else 1

    @property
    def filters(self) -> Tensor:
        """The filters as they are in `model` [O, I, *k], also those of a transposed convolution."""
        return turned(self.module, self.module.weight.detach())

    def write_(self, filters: Tensor) -> None:
        """Give `model` the chosen filters [n, I, *k], with a bias of zero."""
        weight, bias, at = self.module.weight, self.module.bias, self.chosen.nonzero()[:, 0]
        with torch.no_grad():
            new = self.filters.clone()
            new[at.to(new.device)] = filters.to(new)
            weight.copy_(turned(self.module, new))
            if bias is not None:
                bias[at.to(bias.device)] = 0

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """Its groups, each a convolution of its own."""
        filters = self.filters.to(device=self.device, dtype=self.dtype).chunk(self.groups)
        flags = self.chosen.chunk(self.groups)
        return tuple(Part(self, g, *pair) for g, pair in enumerate(zip(filters, flags, strict=True)))


@dataclass(frozen=True, eq=False)
class Part:
    """One group of a layer: `filters` [O, I, *k] as they are, and flags [O] of those that are to be drawn."""

    layer: Layer
    group: int
    filters: Tensor
    chosen: Tensor

    @property
    def count(self) -> int:
        """How many filters are to be drawn, n."""
        return int(self.chosen.sum())

    @property
    def channels(self) -> int:
        """How many input channels a filter has, I."""
        return self.filters.shape[1]

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """The sizes of a kernel; () for a matrix."""
        return tuple(self.filters.shape[2:])

    @property
    def size(self) -> int:
        """How many weights a filter has, I times those of a kernel."""
        return self.filters[0].numel()

    @property
    def kept(self) -> Tensor:
        """The filters that stay as they are [O - n, I, *k]."""
        return self.filters[~self.chosen.to(self.filters.device)]

    @property
    def fan_in(self) -> float:
        """How many inputs an output is a sum of, padding aside: those of its group, as they are now.

        Where a transposed convolution has a stride, an output sees only one of so many weights (on average).
        """
        return self.size / self.layer.stride

    @property
    def fan_out(self) -> float:
        """How many outputs an input takes part in, strides of convolutions aside."""
        return float(self.filters[:, 0].numel())

    def to_gain(self, filters: Tensor, gain: float) -> Tensor:
        """The filters [n, I, *k], each multiplied to the mean square that He's initialisation has.

        That is gain² / fan-in, so an output of white inputs has gain² times their variance. Raises InputError
        for a filter of zeros.
        """
        norms = filters.flatten(1).norm(dim=1)
        if not bool((norms > 0).all()):
            raise InputError(
                f"{self.layer.name}: filter {int((norms > 0).int().argmin())} of the {len(norms)} drawn is "
                "zero and cannot be scaled; draw fewer, or in another way"
            )
        factor = gain * math.sqrt(self.layer.stride) / norms
        scaled: Tensor = filters * factor.reshape(-1, *[1] * (filters.dim() - 1))
        return scaled

    def __repr__(self) -> str:
        return f"Part({self.layer.name}, group {self.group}: {self.count} of {len(self.filters)} filters)"


def turned(module: WeightLayer, weight: Tensor) -> Tensor:
    """The weight of a transposed convolution [in, out/groups, *k] as filters [O, I, *k], and back.

    >>> turned(nn.ConvTranspose2d(6, 4, 3, groups=2), torch.ones(6, 2, 3, 3)).shape
    torch.Size([4, 3, 3, 3])
    """
    if not isinstance(module, _ConvTransposeNd):
        return weight
    groups: Tensor = weight.unflatten(0, (module.groups, -1))
    return groups.transpose(1, 2).flatten(0, 1)


def layers_in(model: nn.Module) -> Iterator[tuple[str, WeightLayer]]:
    """The convolutions and matrices of a model by path, the first of those that share a weight.

    Raises InputError for what is no module or has none, ModelError for weights that do not exist yet.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"filters are those of a torch.nn.Module, got {type(model).__name__}")
    seen: set[int] = set()
    for path, module in model.named_modules():
        if not isinstance(module, WeightLayer):
            continue
        if is_lazy(module.weight):
            raise ModelError(
                f"{path or type(module).__name__} is lazy and has no weights yet: run the model once on an "
                "example before its filters are drawn"
            )
        if id(module.weight) not in seen:
            seen.add(id(module.weight))
            yield path, module
    if not seen:
        raise InputError(
            f"{type(model).__name__} has no convolution or matrix (Conv, ConvTranspose, Linear), so there "
            "are no filters to draw"
        )
