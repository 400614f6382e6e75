"""What a convolution can be replaced by: one with smaller kernels, or one on a few shared kernels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from compressor.design.kernel_basis import kernel_basis
from compressor.design.rings import centre, cropped_size, energy_outside, n_rings
from compressor.errors import InputError

__all__ = ["KernelChange", "SharedBasis", "SmallerKernel"]


class KernelChange(ABC):
    """A way of computing about the same as a convolution with fewer multiplications."""

    @abstractmethod
    def of(self, conv: _ConvNd) -> nn.Module:
        """The new module; `conv` stays as it is. Raises InputError where `hindrance` is not None."""

    @abstractmethod
    def hindrance(self, conv: _ConvNd) -> str | None:
        """Why this convolution cannot be changed so, or None."""

    @abstractmethod
    def macs_at(self, conv: _ConvNd) -> int:
        """Multiply-accumulates of the new module for each place of the output."""

    @abstractmethod
    def energy_lost(self, conv: _ConvNd) -> float:
        """The share of Σ w² that the new module does not have."""

    def check(self, conv: _ConvNd) -> None:
        """Raise InputError where `hindrance` is not None."""
        why = self.hindrance(conv)
        if why:
            raise InputError(f"{self!r} of {conv}: {why}")


@dataclass(frozen=True)
class SmallerKernel(KernelChange):
    """The same convolution without the `rings` outer rings of its kernels: 5x5 to 3x3, 3x3 to 1x1.

    Padding shrinks with the kernel, so that every output keeps its place whatever the stride and dilation,
    and at borders sees what it saw, whatever the padding mode. Even sides stay even (4 to 2). Exact where
    the outer rings are zero.

    >>> SmallerKernel(1).of(nn.Conv2d(4, 8, 5, padding=2, stride=2))
    Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    """

    rings: int = 1

    def hindrance(self, conv: _ConvNd) -> str | None:
        """Kernels that have not as many rings, or a padding that cannot shrink with them."""
        if not 1 <= self.rings <= n_rings(conv.kernel_size):
            return f"its kernels have {n_rings(conv.kernel_size)} outer rings"
        if conv.padding == "same":
            return None
        less = self._less(conv)
        padding = [0] * len(less) if isinstance(conv.padding, str) else list(conv.padding)
        if any(have < by for have, by in zip(padding, less, strict=True)):
            return (
                f"padding would have to shrink by {' x '.join(map(str, less))} with the kernel, and is "
                f"{' x '.join(map(str, padding))}: outputs would move"
            )
        return None

    def of(self, conv: _ConvNd) -> nn.Module:
        """The smaller convolution, with parameters of its own."""
        self.check(conv)
        size = cropped_size(conv.kernel_size, self.rings)
        padding = conv.padding
        if not isinstance(padding, str):
            padding = tuple(have - less for have, less in zip(padding, self._less(conv), strict=True))
        new = _like(conv, conv.in_channels, conv.out_channels, size, padding=padding, groups=conv.groups)
        return _filled(new, conv, centre(conv.weight.detach(), self.rings), conv.bias)

    def macs_at(self, conv: _ConvNd) -> int:
        """O · I / groups · K'."""
        taps = math.prod(cropped_size(conv.kernel_size, self.rings))
        return conv.weight.shape[0] * conv.weight.shape[1] * taps

    def energy_lost(self, conv: _ConvNd) -> float:
        """The share in the outer rings."""
        return energy_outside(conv.weight.detach(), self.rings)

    def _less(self, conv: _ConvNd) -> tuple[int, ...]:
        """By how much padding has to shrink on either side."""
        size = cropped_size(conv.kernel_size, self.rings)
        return tuple(
            (k - n) // 2 * dilation
            for k, n, dilation in zip(conv.kernel_size, size, conv.dilation, strict=True)
        )


@dataclass(frozen=True)
class SharedBasis(KernelChange):
    """`size` kernels k for all of a layer: a depthwise convolution, k channels for each input, and a 1x1 one.

    Of the MACs k / K + k / O are left (K places of a kernel, O outputs of a group). The kernels are those of
    `kernel_basis`; exact where all kernels of the layer are mixtures of as few. In an `nn.Sequential` with
    the parts `depthwise` and `pointwise`.

    >>> SharedBasis(2).of(nn.Conv2d(4, 8, 3, padding=1))
    Sequential(
      (depthwise): Conv2d(4, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), groups=4, bias=False)
      (pointwise): Conv2d(8, 8, kernel_size=(1, 1), stride=(1, 1))
    )
    """

    size: int

    def hindrance(self, conv: _ConvNd) -> str | None:
        """Kernels of one place, depthwise layers, and sizes that no basis has."""
        if math.prod(conv.kernel_size) == 1:
            return "its kernels have one place only"
        if conv.groups > 1 and conv.in_channels == conv.groups:
            return "it is depthwise: there is nothing to mix"
        size, most = self.size, math.prod(conv.kernel_size)
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
            return f"a basis has 1 to {most} kernels"
        return None

    def of(self, conv: _ConvNd) -> nn.Module:
        """The two convolutions, with parameters of their own."""
        self.check(conv)
        basis = kernel_basis(conv.weight.detach(), self.size)
        between = conv.in_channels * self.size
        depthwise = _like(
            conv, conv.in_channels, between, conv.kernel_size, groups=conv.in_channels, bias=False
        )
        kernels = basis.kernels.unsqueeze(1).repeat(conv.in_channels, *[1] * (basis.kernels.ndim))
        ones = (1,) * len(conv.kernel_size)
        plain = {"stride": 1, "padding": 0, "dilation": 1, "padding_mode": "zeros"}
        pointwise = _like(conv, between, conv.out_channels, ones, groups=conv.groups, **plain)
        mixing = basis.mixing.flatten(1).reshape(conv.out_channels, -1, *ones)
        parts: OrderedDict[str, nn.Module] = OrderedDict(
            depthwise=_filled(depthwise, conv, kernels, None),
            pointwise=_filled(pointwise, conv, mixing, conv.bias),
        )
        return nn.Sequential(parts).train(conv.training)

    def macs_at(self, conv: _ConvNd) -> int:
        """I · k · K + O · I / groups · k."""
        depthwise = conv.in_channels * math.prod(conv.kernel_size)
        return self.size * (depthwise + conv.weight.shape[0] * conv.weight.shape[1])

    def energy_lost(self, conv: _ConvNd) -> float:
        """The share that no mixture of the basis has."""
        return kernel_basis(conv.weight.detach(), self.size).energy_lost


def _like(conv: _ConvNd, inputs: int, outputs: int, size: tuple[int, ...], **changed: object) -> _ConvNd:
    """A convolution of the same kind and geometry, on the same device."""
    options = {
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "padding_mode": conv.padding_mode,
        "bias": conv.bias is not None,
        **changed,
    }
    kind: Callable[..., _ConvNd] = type(conv)
    return kind(inputs, outputs, size, **options)


def _filled(new: _ConvNd, old: _ConvNd, weight: Tensor, bias: Tensor | None) -> _ConvNd:
    """The new convolution with these values, as the old one is: dtype, device, mode, and what is trained."""
    new.to(device=old.weight.device, dtype=old.weight.dtype).train(old.training)
    with torch.no_grad():
        new.weight.copy_(weight)
        new.weight.requires_grad_(old.weight.requires_grad)
        if bias is not None and new.bias is not None:
            new.bias.copy_(bias)
            new.bias.requires_grad_(bias.requires_grad)
    return new
