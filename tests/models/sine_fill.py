"""Weights and inputs that are sines of their index, to hold one implementation against another."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def sine_weight(shape: Sequence[int], number: int) -> Tensor:
    """Weight tensor `number` of a golden value: sqrt(1.5 / fan_in) · sin(0.7 j + number), in float32."""
    count = math.prod(shape)
    index = torch.arange(count, dtype=torch.float64)
    scale = math.sqrt(1.5 * shape[0] / count)
    return (scale * torch.sin(0.7 * index + number)).float().reshape(shape)


def sine_bias(size: int, number: int) -> Tensor:
    """The bias of weight tensor `number`: 0.01 · cos(j + number), in float32."""
    return (0.01 * torch.cos(torch.arange(size, dtype=torch.float64) + number)).float()


@torch.no_grad()
def sine_fill_(layers: Iterable[nn.Module]) -> None:
    """Give the n-th of these layers its sines, weight and bias."""
    for number, layer in enumerate(layers):
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor) and isinstance(bias, Tensor)
        weight.copy_(sine_weight(weight.shape, number))
        bias.copy_(sine_bias(len(bias), number))


def sine_input(*shape: int) -> Tensor:
    """0.5 + 0.5 · sin(0.3 j)."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.3 * index)).float().reshape(shape)
