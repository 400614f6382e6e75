"""One row of a latency table as modules to time: the layer where its neighbours have put it, and without it.

A convolution alone would be charged for bringing images into the runtime's own layout, which whole models
do once. So a narrow convolution stands before it, one that looks at a single pixel behind it, and the time of
these two without it is taken off. A change of layout that a width asks for is charged to the layer that
writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.profiling.latency_table.layers import Layer

__all__ = ["Row", "base_of", "example_of", "module_of"]

_STEM = 4
_Makes = Mapping[int, Callable[..., nn.Module]]
_CONV: _Makes = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: _Makes = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_FAR = 1 << 16


@dataclass(frozen=True)
class Row:
    """A layer that reads `entering` channels and writes `leaving`; 0 written: what stands around it."""

    layer: Layer
    entering: int
    leaving: int

    def __str__(self) -> str:
        return f"{self.layer}: {self.entering} -> {self.leaving}"


def base_of(row: Row) -> Row:
    """The row of what stands around the layer of `row`."""
    plain = Layer("Linear" if row.layer.kind == "Linear" else "Conv", row.layer.batch, row.layer.extent)
    return Row(plain, row.entering, 0)


def example_of(row: Row) -> Tensor:
    """Inputs for `module_of(row)`."""
    generator = torch.Generator().manual_seed(0)
    channels = row.entering if row.layer.kind == "Linear" else _STEM
    return torch.randn(row.layer.batch, channels, *row.layer.extent, generator=generator)


def module_of(row: Row) -> nn.Sequential:
    """The stack of layers to time; weights are random, as no kernel looks at them.

    >>> row = Row(Layer("Conv", 1, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)), 16, 32)
    >>> module_of(row)(example_of(row)).shape
    torch.Size([1, 4, 1, 1])
    """
    layer, entering, leaving = row.layer, row.entering, row.leaving
    if layer.kind == "Linear":
        return nn.Sequential(nn.Linear(entering, leaving) if leaving else nn.Identity())
    rank = len(layer.extent)
    if rank not in _CONV:
        raise InputError(f"{layer}: a convolution over 1 to 3 axes is expected")
    modules: list[nn.Module] = [_CONV[rank](_STEM, entering, 1), nn.ReLU()]
    if leaving:
        modules += [_convolution(layer, entering, leaving), nn.ReLU()]
    return nn.Sequential(*modules, _CONV[rank](leaving or entering, _STEM, 1, stride=_FAR))


def _convolution(layer: Layer, entering: int, leaving: int) -> nn.Module:
    options: dict[str, object] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups or entering,
    }
    make = _CONV
    if layer.kind == "ConvTranspose":
        make, options["output_padding"] = _TRANSPOSED, layer.output_padding
    return make[len(layer.extent)](entering, leaving, layer.kernel, **options)
