"""Variances in closed form, and torch's own initialisers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compressor.design import Glorot, He, Initialiser, LeCun, initialise_
from compressor.errors import InputError


@pytest.mark.parametrize(
    ("how", "theirs"),
    [
        (He(), lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g)),
        (He(uniform=True), lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g)),
        (
            He(fan="out"),
            lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g),
        ),
        (
            He(nn.init.calculate_gain("leaky_relu", 0.1)),
            lambda w, g: nn.init.kaiming_normal_(w, a=0.1, generator=g),
        ),
        (LeCun(), lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)),
        (Glorot(), lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        (Glorot(5 / 3, uniform=True), lambda w, g: nn.init.xavier_uniform_(w, gain=5 / 3, generator=g)),
    ],
)
@pytest.mark.parametrize(
    "layer", [nn.Conv2d(6, 8, 3), nn.Linear(7, 5), nn.Conv1d(4, 6, 5), nn.Conv3d(2, 4, 3)]
)
def test_ungrouped_layers_get_what_torch_draws(how: Initialiser, theirs, layer: nn.Module) -> None:  # type: ignore[no-untyped-def]
    initialise_(layer, how, seed=11)
    expected = torch.empty_like(layer.weight.detach())
    theirs(expected, torch.Generator().manual_seed(11))
    torch.testing.assert_close(layer.weight.detach(), expected)


# (layer, fan-in, fan-out): by hand.
WIDE = [
    (nn.Conv2d(64, 128, 3), 64 * 9, 128 * 9),
    (nn.Conv2d(64, 128, 3, groups=4), 16 * 9, 32 * 9),
    (nn.Conv2d(512, 2048, 5, groups=512), 25, 4 * 25),
    (nn.ConvTranspose2d(64, 96, 4, stride=2), 64 * 16 / 4, 96 * 16),
    (nn.ConvTranspose1d(64, 96, 4, stride=2, groups=2), 32 * 4 / 2, 48 * 4),
    (nn.Linear(256, 300), 256, 300),
]


@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), WIDE)
@pytest.mark.parametrize("uniform", [False, True])
def test_variances_are_those_of_the_actual_fans(
    layer: nn.Module, fan_in: float, fan_out: float, uniform: bool
) -> None:
    expected = {
        He(uniform=uniform): 2 / fan_in,
        He(fan="out", uniform=uniform): 2 / fan_out,
        LeCun(uniform=uniform): 1 / fan_in,
        Glorot(uniform=uniform): 2 / (fan_in + fan_out),
    }
    for how, variance in expected.items():
        initialise_(layer, how)
        # Of n normal numbers the variance has a relative deviation of sqrt(2 / n): n >= 16,384 here.
        assert float(layer.weight.detach().var()) == pytest.approx(variance, rel=6 * math.sqrt(2 / 16384)), (
            how
        )


@pytest.mark.parametrize("groups", [1, 2])
def test_outputs_of_a_transposed_convolution_keep_their_variance(groups: int) -> None:
    layer = nn.ConvTranspose2d(64, 64, 4, stride=2, groups=groups)
    initialise_(layer, LeCun())
    with torch.no_grad():
        y = layer(torch.randn(4, 64, 20, 20))[..., 4:-4, 4:-4]
    assert float(y.var()) == pytest.approx(1, rel=0.05)


def test_a_pruned_layer_has_its_own_fan_in() -> None:
    layer = nn.Conv2d(64, 64, 3)
    layer.weight = nn.Parameter(layer.weight[:, :16].contiguous())  # what a cut leaves
    layer.in_channels = 16
    initialise_(layer, He())
    assert float(layer.weight.detach().var()) == pytest.approx(2 / (16 * 9), rel=0.08)


def test_a_mask_takes_rows_of_the_same_draw() -> None:
    whole, some = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    flags = torch.arange(8) % 3 == 0
    initialise_(whole, He())
    initialise_(some, He(), filters=flags)
    assert torch.equal(whole.weight[flags], some.weight[flags])


@pytest.mark.parametrize("gain", [0, -1, math.inf, math.nan, True, "relu"])
def test_a_gain_is_a_positive_number(gain: object) -> None:
    for make in (He, Glorot):
        with pytest.raises(InputError, match="gain must be positive"):
            make(gain)  # type: ignore[arg-type]


def test_a_fan_is_in_or_out() -> None:
    with pytest.raises(InputError, match="'in' or 'out'"):
        He(fan="fan_in")  # type: ignore[arg-type]
