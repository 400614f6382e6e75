"""The exponential average, against its recursion written out."""

from __future__ import annotations

import torch
from torch import nn

from compressor.training.averaging import averaged_copy, warm_decay


def test_weights_and_statistics_are_averaged_and_counters_copied() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).double()
    average = averaged_copy(net, 0.9)
    names = ("0.weight", "1.running_mean")
    expected: dict[str, torch.Tensor] = {}
    for step in range(40):
        with torch.no_grad():
            net[0].weight.add_(torch.randn(3, 3))
        net(torch.randn(5, 3).double())
        average.update_parameters(net)
        for name in names:
            now = net.state_dict()[name].clone()
            decay = min(0.9, (1 + step) / (10 + step))
            expected[name] = now if step == 0 else decay * expected[name] + (1 - decay) * now
    for name in names:
        torch.testing.assert_close(average.module.state_dict()[name], expected[name])
    assert average.module.state_dict()["1.num_batches_tracked"] == 40


def test_an_average_of_equals_is_themselves() -> None:
    net = nn.Linear(2, 2)
    average = averaged_copy(net, 0.999)
    for _ in range(3):
        average.update_parameters(net)
    torch.testing.assert_close(average.module.weight, net.weight)


def test_the_decay_warms_up() -> None:
    assert warm_decay(0.5, 0) == 0.1 and warm_decay(0.5, 8) == 0.5 and warm_decay(0.5, 1000) == 0.5
