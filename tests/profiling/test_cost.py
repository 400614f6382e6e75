"""Costs against hand counts, and against the captured pruned model, to the unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor import models
from compressor.core.capture import capture
from compressor.core.plan import Cut, Plan
from compressor.core.surgery import apply
from compressor.errors import InputError, PlanMismatchError
from compressor.profiling import (
    activation_bytes,
    costs,
    macs,
    params,
    peak_activation_bytes,
    removed_by,
    weight_bytes,
)
from tests.core.driver import random_removal


class Dense(nn.Module):
    """Concatenation, a residual sum, and a convolution in groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(16)
        self.fuse = nn.Conv2d(16, 12, 3, stride=2)
        self.head = nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.norm(torch.cat([self.left(x) + x, self.right(x)], 1)).relu()
        return self.head(self.fuse(x).relu().mean((2, 3)))


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 3, groups=8),
        nn.ReLU6(),
        nn.Conv2d(16, 6, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def upwards() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.GELU(),
        nn.ConvTranspose2d(8, 12, 2, stride=2, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 4, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 2, 1),
    )


def wide_flatten() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4))


image = (2, 3, 16, 16)
NETS = {
    "dense with groups": (Dense, image),
    "depthwise": (depthwise, image),
    "transposed with groups": (upwards, image),
    "flatten into linear": (wide_flatten, image),
    "mobilenet": (lambda: models.create("mobilenet_v2_cifar"), (1, 3, 32, 32)),
    "resnet": (lambda: models.create("resnet20_cifar"), (2, 3, 32, 32)),
    "vgg": (lambda: models.create("vgg16_bn_cifar"), (1, 3, 32, 32)),
}


@pytest.mark.parametrize("name", NETS)
def test_costs_equal_those_of_the_captured_pruned_model(name: str) -> None:
    build, shape = NETS[name]
    model, x = build().eval(), torch.randn(shape)
    graph = capture(model, x)
    assert graph.groups
    for seed in range(3):
        plan = graph.plan(random_removal(graph, seed))
        assert plan.cuts
        assert costs(graph, plan) == costs(capture(apply(model, plan), x))


def test_a_small_network_costs_what_a_hand_count_says() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1, groups=2))
    graph = capture(net, torch.zeros(2, 3, 5, 5))
    positions = 2 * 5 * 5
    assert macs(graph).by_module() == {
        "0": positions * 8 * 3 * 9,
        "2": positions * 4 * (8 // 2) * 9,
    }
    assert params(graph).by_module() == {"0": 8 * 3 * 9 + 8, "2": 4 * 4 * 9 + 4}
    assert weight_bytes(graph).total() == 4 * params(graph).total()
    # Both convolutions and the ReLU compute a tensor each.
    assert activation_bytes(graph).total() == positions * (8 + 8 + 4) * 4


def test_removing_channels_costs_what_a_hand_count_says() -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = capture(net, torch.zeros(3, 4))
    removed = np.arange(graph.n_units) < 5
    found = costs(graph, removed)
    assert found.macs == 3 * (4 * 3 + 3 * 2)
    assert found.params == 4 * 3 + 3 + 3 * 2 + 2
    assert found.weight_bytes == 4 * found.params
    assert found.activation_bytes == 3 * (3 + 3 + 2) * 4


def test_tied_parameters_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(11, 6)
            self.mix = nn.Linear(6, 6)
            self.head = nn.Linear(6, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.mix(self.embed(tokens)))

    graph = capture(Tied(), torch.zeros(1, 4, dtype=torch.long))
    assert params(graph).total() == 11 * 6 + 6 * 6 + 6
    assert weight_bytes(graph).total() == 4 * (11 * 6 + 6 * 6 + 6)


def test_weight_bytes_are_those_of_the_saved_tensors() -> None:
    class Buffered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1).half()
            self.norm = nn.BatchNorm2d(4)
            self.register_buffer("scratch", torch.zeros(1000), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.conv(x.half()).float())

    model = Buffered()
    graph = capture(model, torch.zeros(1, 3, 2, 2))
    saved = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    assert weight_bytes(graph).total() == saved == (12 + 4) * 2 + 4 * 4 * 4 + 8
    assert params(graph).total() == 12 + 4 + 4 + 4


def test_parameters_that_no_operator_uses_are_counted() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(3, 2), nn.Linear(7, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    assert params(capture(Spare(), torch.zeros(1, 3))).by_module()["spare"] == 7 * 5 + 5


def test_a_plan_and_its_units_say_the_same() -> None:
    graph = capture(Dense(), torch.zeros(image))
    removed = random_removal(graph, 0)
    plan = graph.plan(removed)
    assert (removed_by(graph, plan) == removed).all()
    assert costs(graph, plan) == costs(graph, removed)


def test_a_plan_of_another_model_is_refused() -> None:
    one = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    other = capture(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2)), torch.zeros(1, 4))
    with pytest.raises(PlanMismatchError, match=r"0\.weight.*\[6, 4\].*\[8, 4\]"):
        costs(other, one.plan(np.arange(8) < 2))


def test_a_plan_that_cuts_only_one_side_of_a_coupling_is_refused() -> None:
    graph = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    half = Plan((Cut("0.weight", 0, 8, (0, 1, 2), "writer"),), (), graph.signature)
    with pytest.raises(PlanMismatchError, match=r"coupled with \[3, 4, 5, 6, 7\]"):
        removed_by(graph, half)
    pinned = Plan((Cut("1.weight", 0, 2, (0,), "writer"),), (), graph.signature)
    with pytest.raises(PlanMismatchError, match="cannot be removed"):
        removed_by(graph, pinned)


@pytest.mark.parametrize("mask", [np.zeros(3, dtype=bool), np.zeros(8, dtype=int)])
def test_a_removal_of_the_wrong_kind_is_refused(mask: np.ndarray) -> None:
    graph = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    with pytest.raises(InputError, match="one flag for each of the 8 units"):
        macs(graph).total(mask)


@pytest.mark.parametrize("cost", [macs, params, weight_bytes, activation_bytes, costs, peak_activation_bytes])
def test_a_model_in_place_of_a_graph_is_named(cost: Callable[[Any], object]) -> None:
    with pytest.raises(
        InputError, match=rf"{cost.__name__} needs a captured graph, got Linear: give it capture"
    ):
        cost(nn.Linear(2, 2))
