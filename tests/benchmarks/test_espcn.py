"""ESPCN against the paper's sizes and values computed elsewhere."""

from __future__ import annotations

import math

import pytest
import torch

import compressor as cp
from benchmarks.espcn import espcn


@pytest.mark.parametrize(("scale", "params", "macs"), [(2, 21_284, 21_184), (3, 22_729, 22_624)])
def test_parameters_and_macs_for_each_pixel_are_those_of_the_paper(
    scale: int, params: int, macs: int
) -> None:
    found = cp.profile(espcn(scale), torch.zeros(1, 1, 8, 8))
    assert (found.params, found.macs) == (params, 64 * macs)


def test_outputs_on_sine_weights_are_those_of_another_implementation() -> None:
    net = espcn(3)
    with torch.no_grad():
        for number, layer in enumerate(net[::2][:3]):
            weight = layer.weight
            j = torch.arange(weight.numel(), dtype=torch.float64)
            fan_in = weight.numel() / len(weight)
            weight.copy_((math.sqrt(1.5 / fan_in) * torch.sin(0.7 * j + number)).view_as(weight))
            j = torch.arange(len(weight), dtype=torch.float64)
            layer.bias.copy_(0.01 * torch.cos(j + number))
        x = 0.5 + 0.5 * torch.sin(0.3 * torch.arange(64, dtype=torch.float64))
        y = net(x.float().view(1, 1, 8, 8))
    assert y.shape == (1, 1, 24, 24)
    assert y.mean().item() == pytest.approx(-0.002282, abs=1e-5)
    assert y.std(correction=0).item() == pytest.approx(0.026308, abs=1e-4)
    expected = [-0.034848, -0.034788, -0.018592, -0.039341]
    assert y[0, 0, 0, :4].tolist() == pytest.approx(expected, abs=1e-4)
