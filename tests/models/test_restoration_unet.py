"""The U-Net: its size by hand count, its shapes, and that all of it can be pruned."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import compressor as cp
from compressor.errors import InputError
from compressor.models import create
from compressor.models.restoration_unet import time_features


def by_hand(width: int, levels: int, channels: int, time_width: int | None) -> int:
    """3x3 convolutions 9ab + b, 2x2 ones 4ab + b, linear maps ab + b."""
    total = 9 * channels * width + width + 9 * width * channels + channels  # first and last
    if time_width is not None:
        total += 9 * time_width + time_width
    for level in range(levels):
        w = width * 2**level
        block = 2 * (9 * w * w + w) + (0 if time_width is None else time_width * 2 * w + 2 * w)
        total += 2 * block
        if level:
            total += (4 * w * w // 2 + w) + (4 * w * w // 2 + w // 2)  # down to this level, and up from it
    return total


@pytest.mark.parametrize(
    ("width", "levels", "time_width"), [(8, 3, None), (16, 3, 64), (4, 1, 8), (32, 4, None)]
)
def test_parameters_by_hand_count(width: int, levels: int, time_width: int | None) -> None:
    net = create("restoration_unet", width=width, levels=levels, time_width=time_width)
    assert sum(p.numel() for p in net.parameters()) == by_hand(width, levels, 3, time_width)


def test_an_untrained_network_returns_its_input_or_zero() -> None:
    x = torch.rand(2, 3, 8, 12)
    assert torch.equal(create("restoration_unet", width=4, input_skip=True)(x), x)
    velocity = create("restoration_unet", in_channels=4, width=4, time_width=8)
    assert not velocity(torch.rand(2, 4, 8, 12), torch.rand(2)).any()


def test_time_features_are_one_number_and_four_octaves() -> None:
    t = 0.3
    expected = [
        t,
        *(math.sin(math.pi * t * 2**k) for k in range(4)),
        *(math.cos(math.pi * t * 2**k) for k in range(4)),
    ]
    assert time_features(torch.tensor([t])).tolist()[0] == pytest.approx(expected, abs=1e-6)


def test_the_time_changes_every_block() -> None:
    net = create("restoration_unet", width=4, time_width=8)
    nn.init.ones_(net.head.weight)  # type: ignore[union-attr, arg-type]
    x = torch.rand(1, 3, 8, 8)
    net(x, torch.tensor([0.3])).sum().backward()
    films = [p for name, p in net.named_parameters() if "film.weight" in name]
    assert len(films) == 6 and all(p.grad is not None and p.grad.abs().sum() > 0 for p in films)


@pytest.mark.parametrize("time_width", [None, 16])
def test_half_the_macs_go_and_the_cut_is_proved(time_width: int | None) -> None:
    net = create("restoration_unet", width=8, time_width=time_width, input_skip=True).eval()
    nn.init.normal_(net.head.weight)  # type: ignore[union-attr, arg-type]
    example = (torch.rand(2, 3, 8, 8),) if time_width is None else (torch.rand(2, 3, 8, 8), torch.rand(2))
    graph = cp.capture(net, *example)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm(p=2)), cp.budget.Macs(0.4))
    small = cp.apply(net, plan)
    cp.verify(net, small, plan, *example)
    assert cp.profile(small, *example).macs < 0.41 * cp.profile(net, *example).macs
    cut = {name for name, p in small.named_parameters() if p.shape != net.get_parameter(name).shape}
    whole = {name for name, _ in net.named_parameters()} - cut
    assert whole == {"head.bias"}  # everything else, the time's hidden layer included, lost channels


def test_bad_input_is_named() -> None:
    net = create("restoration_unet", width=4)
    with pytest.raises(InputError, match=r"multiples of 4, got \[1, 3, 10, 8\]; pad or crop"):
        net(torch.zeros(1, 3, 10, 8))
    with pytest.raises(InputError, match=r"expected \[N, 3, H, W\]"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(InputError, match="built without time_width"):
        net(torch.zeros(1, 3, 8, 8), torch.zeros(1))
    with pytest.raises(InputError, match=r"expected as the time t \[N\]"):
        create("restoration_unet", width=4, time_width=8)(torch.zeros(1, 3, 8, 8))
    with pytest.raises(InputError, match="input_skip adds 3 channels of an input that has 1"):
        create("restoration_unet", in_channels=1, input_skip=True)
    with pytest.raises(InputError, match="width must be an integer of at least 1"):
        create("restoration_unet", width=0)
