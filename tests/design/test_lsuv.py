"""Variances of what layers write, measured on real batches by a plain forward pass."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor, nn

from compressor.design import LSUV, He, KMeans, initialise_
from compressor.errors import InputError


def deep_net() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 12, 3, padding=1), nn.Tanh()]
    for _ in range(3):
        layers += [nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * 64, 6))


def variances(net: nn.Sequential, x: Tensor) -> list[float]:
    found = []
    with torch.no_grad():
        for layer in net:
            x = layer(x)
            if isinstance(layer, nn.Conv2d | nn.Linear):
                found.append(float(x.var()))
    return found


def test_every_layer_writes_variance_one() -> None:
    net, x = deep_net(), 5 * torch.randn(16, 3, 8, 8) + 2
    initialise_(net, LSUV([x]))
    # The second pass over the same batch divides by what rounding left.
    assert variances(net, x) == pytest.approx([1] * 5, abs=1e-4)


def test_other_batches_are_within_the_tolerance() -> None:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(64, 3, 8, 8, generator=generator) for _ in range(4)]
    net = deep_net()
    initialise_(net, LSUV(batches, tolerance=0.02))
    assert variances(net, torch.cat(batches)) == pytest.approx([1] * 5, abs=0.05)


def test_it_is_algorithm_1_by_hand() -> None:
    """Division by the deviation on one batch after the other, until it was within the tolerance."""
    batches = [torch.randn(4096, 4) * scale for scale in (3.0, 1.0, 1.01)]
    layer, by_hand = nn.Linear(4, 8), nn.Linear(4, 8)
    initialise_(layer, LSUV(batches, start=He()), seed=2)
    initialise_(by_hand, He(), seed=2)
    weight = by_hand.weight.detach()
    for _ in range(10):
        for x in batches:
            variance = float((x @ weight.T).var())
            weight = weight / variance**0.5
            if abs(variance - 1) < 0.05:
                break
        else:
            continue
        break
    torch.testing.assert_close(layer.weight.detach(), weight)


def test_only_chosen_filters_are_scaled_by_their_own_outputs() -> None:
    layer, x = nn.Conv2d(3, 8, 3), torch.randn(8, 3, 8, 8)
    before = layer.weight.detach().clone()
    flags = torch.arange(8) < 3
    initialise_(layer, LSUV([x]), filters=flags)
    assert torch.equal(layer.weight[~flags], before[~flags])
    assert float(layer(x)[:, :3].detach().var()) == pytest.approx(1, abs=1e-4)


def test_it_scales_what_any_other_draws() -> None:
    layer, x = nn.Conv2d(3, 8, 3), torch.rand(32, 3, 8, 8)
    plain = nn.Conv2d(3, 8, 3)
    initialise_(plain, KMeans([x]))
    initialise_(layer, LSUV([x], start=KMeans([x])))
    assert float(layer(x).detach().var()) == pytest.approx(1, abs=1e-4)
    ratio = layer.weight / plain.weight
    torch.testing.assert_close(ratio, ratio.flatten()[0].expand_as(ratio))


def test_labels_are_not_needed_and_not_looked_at() -> None:
    with_labels, without = deep_net(), deep_net()
    x = torch.randn(16, 3, 8, 8)
    initialise_(with_labels, LSUV([(x, torch.zeros(16))]))
    initialise_(without, LSUV([x]))
    assert torch.equal(with_labels[0].weight, without[0].weight)


def test_layers_go_in_the_order_of_the_forward_pass() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.second = nn.Linear(6, 4)
            self.first = nn.Linear(5, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).relu())

    net, x = Backwards(), 7 * torch.randn(64, 5)
    initialise_(net, LSUV([x]))
    with torch.no_grad():
        assert float(net.first(x).var()) == pytest.approx(1, abs=1e-4)
        assert float(net(x).var()) == pytest.approx(1, abs=1e-4)


def test_a_transposed_convolution_is_scaled_as_well() -> None:
    layer, x = nn.ConvTranspose2d(3, 4, 4, stride=2, groups=1), torch.randn(8, 3, 6, 6)
    initialise_(layer, LSUV([x]))
    assert float(layer(x).detach().var()) == pytest.approx(1, abs=1e-4)


def test_passes_that_do_not_suffice_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    batches = [torch.randn(32, 4), 9 * torch.randn(32, 4)]
    with caplog.at_level(logging.WARNING):
        initialise_(nn.Linear(4, 8), LSUV(batches, passes=4))
    assert "Linear: after 4 passes the variance was still" in caplog.text


@pytest.mark.parametrize(
    "x", [torch.zeros(8, 4), torch.full((8, 4), torch.nan), torch.full((8, 4), torch.inf)]
)
def test_outputs_without_a_variance_are_refused(x: Tensor) -> None:
    with pytest.raises(InputError, match="LSUV: what Linear writes has variance"):
        initialise_(nn.Linear(4, 8), LSUV([x]))


def test_no_batches_and_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="batches gave no batch"):
        initialise_(nn.Linear(4, 8), LSUV([]))
    with pytest.raises(InputError, match="LSUV: batches are a DataLoader or a list, got a tensor"):
        LSUV(torch.ones(3, 4))
    with pytest.raises(InputError, match="tolerance"):
        LSUV([], tolerance=0.0)
    with pytest.raises(InputError, match="passes"):
        LSUV([], passes=0)
