"""Cuts against oracles that know nothing of `verify`: masks on activations, and slices written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph, Mask
from compressor.core.surgery import apply
from tests.core.driver import masks, plan_without
from tests.core.operators.nets import (
    Auxiliary,
    DenseBlock,
    Residual,
    UNet,
    bottleneck_of_groups,
    conv,
    inception,
    inverted_residual,
)

READERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


def silence_inputs(net: nn.Module, graph: Graph, removed: Mask) -> list[Any]:
    """Hooks that multiply by zero whatever a convolution or linear layer reads of a removed channel."""
    gone = np.append(removed, False)
    axes = {(axis.tensor, axis.axis): axis.units for axis in graph.axes}
    hooks = []
    for path, module in net.named_modules():
        if isinstance(module, READERS) and getattr(module, "groups", 1) != getattr(module, "in_channels", 0):
            units = axes[f"{path}.weight", 0 if isinstance(module, nn.ConvTranspose2d) else 1]
            mask = torch.from_numpy(~gone[units]).double()

            def hook(_module: nn.Module, args: tuple[Tensor], mask: Tensor = mask) -> Tensor:
                return args[0] * mask.view(1, -1, *(1,) * (args[0].dim() - 2))

            hooks.append(module.register_forward_pre_hook(hook))
    return hooks


@pytest.mark.parametrize(
    "make",
    [
        Residual,
        DenseBlock,
        Auxiliary,
        inverted_residual,
        bottleneck_of_groups,
        inception,
        lambda: UNet(nn.ConvTranspose2d(8, 6, 2, stride=2)),
    ],
    ids=["residual", "dense", "auxiliary", "inverted", "groups", "inception", "unet"],
)
def test_a_cut_equals_masks_on_what_the_layers_read(make: Callable[[], nn.Module]) -> None:
    net = make().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph, whole = capture(net, x), net(x)
    for removed in masks(graph):
        hooks = silence_inputs(net, graph, removed)
        expected = net(x)
        for hook in hooks:
            hook.remove()
        assert not torch.allclose(expected, whole)  # the masks do something
        found = apply(net, graph.plan(removed))(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 * float(whole.abs().max()))


def test_a_cut_equals_slicing_by_hand() -> None:
    """Two convolutions and a batch norm cut by indexing."""
    net = nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4, 3)).double().eval()
    nn.init.normal_(net[1].running_mean)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    plan = plan_without(capture(net, x), "0.weight", 0, [1, 4, 5])
    keep = [0, 2, 3, 6, 7]
    y = F.conv2d(x, net[0].weight[keep], net[0].bias[keep], padding=1)
    norm = net[1]
    y = F.batch_norm(y, norm.running_mean[keep], norm.running_var[keep], norm.weight[keep], norm.bias[keep])
    expected = F.conv2d(torch.relu(y), net[3].weight[:, keep], net[3].bias, padding=1)
    torch.testing.assert_close(apply(net, plan)(x), expected, rtol=0, atol=1e-13)


def test_each_group_of_a_convolution_keeps_its_own_channels() -> None:
    """Groups of 4: the first keeps inputs 0 and 3, the second 1 and 2 of its own."""
    net = nn.Sequential(conv(3, 8), nn.Conv2d(8, 6, 3, groups=2), nn.Sigmoid(), conv(6, 2)).double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    plan = plan_without(capture(net, x), "0.weight", 0, [1, 2, 4, 7])
    y = F.conv2d(x, net[0].weight, net[0].bias)
    w = net[1].weight
    halves = F.conv2d(y[:, [0, 3]], w[:3][:, [0, 3]]), F.conv2d(y[:, [5, 6]], w[3:][:, [1, 2]])
    y = torch.sigmoid(torch.cat(halves, 1) + net[1].bias.view(1, -1, 1, 1))
    small = apply(net, plan)
    torch.testing.assert_close(small(x), net[3](y), rtol=0, atol=1e-13)
    assert (small[1].groups, small[1].in_channels, small[0].out_channels) == (2, 4, 4)


def test_flattened_channels_take_their_whole_plane_along() -> None:
    """Channel-major: 4 columns of the linear layer for each channel; channel-minor: every 8th column."""
    x = torch.randn(3, 3, 2, 2, dtype=torch.float64)
    keep = [0, 2, 3, 4, 7]
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        net = nn.Sequential(conv(3, 8), Permute(order), nn.Flatten(), nn.Linear(32, 2)).double()
        plan = plan_without(capture(net, x), "0.weight", 0, [1, 5, 6])
        weight = (
            net[3].weight.view(2, 8, 4)[:, keep] if order[1] == 1 else net[3].weight.view(2, 4, 8)[..., keep]
        )
        y = net[0](x)[:, keep].permute(order).flatten(1)
        expected = F.linear(y, weight.flatten(1), net[3].bias)
        torch.testing.assert_close(apply(net, plan)(x), expected, rtol=0, atol=1e-13)


class Permute(nn.Module):
    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)
