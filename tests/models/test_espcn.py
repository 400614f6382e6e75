"""ESPCN against the paper's sizes, values computed elsewhere, and what pruning may take of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.errors import InputError
from compressor.models import ESPCN, create, espcn, espcn_pytorch_examples
from tests.models.sine_fill import sine_fill_, sine_input


def convolutions(net: nn.Module) -> list[nn.Conv2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("scale", "params", "macs"),
    [(2, 21_284, 21_184), (3, 22_729, 22_624), (4, 24_752, 24_640), (8, 38_624, 38_464)],
)
def test_parameters_and_macs_for_each_pixel_are_those_of_the_paper(
    scale: int, params: int, macs: int
) -> None:
    found = cp.profile(create("espcn", scale=scale), torch.zeros(1, 1, 8, 10))
    assert (found.params, found.macs) == (params, 80 * macs)


@pytest.mark.parametrize(("scale", "giga"), [(2, 10.98), (3, 5.21), (4, 3.19), (8, 1.25)])
def test_macs_of_a_full_hd_frame(scale: int, giga: float) -> None:
    x = torch.zeros(1, 1, 1080 // scale // 8, 1920 // scale // 8)
    macs = cp.profile(espcn(scale=scale), x).macs / (x.shape[2] * x.shape[3])
    assert macs * 1080 * 1920 / scale**2 / 1e9 == pytest.approx(giga, abs=0.006)


def test_outputs_on_sine_weights_are_those_of_another_implementation() -> None:
    net = espcn(scale=3)
    sine_fill_(convolutions(net))
    with torch.no_grad():
        y = net(sine_input(1, 1, 8, 8))
    assert y.shape == (1, 1, 24, 24)
    assert y.mean().item() == pytest.approx(-0.002282, abs=1e-5)
    assert y.std(correction=0).item() == pytest.approx(0.026308, abs=1e-4)
    expected = [-0.034848, -0.034788, -0.018592, -0.039341]
    assert y[0, 0, 0, :4].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (3, 2), (4, 3)])
def test_maps_are_the_pixels_of_each_channel_row_by_row(scale: int, channels: int) -> None:
    net = espcn(scale=scale, channels=channels)
    with torch.no_grad():
        net.sub_pixel.weight.zero_()
        net.sub_pixel.bias.copy_(torch.arange(channels * scale**2))
        y = net(torch.rand(1, channels, 3, 4))
    assert y.shape == (1, channels, 3 * scale, 4 * scale)
    for channel in range(channels):
        for row in range(scale):
            for column in range(scale):
                expected = channel * scale**2 + row * scale + column
                assert (y[0, channel, row::scale, column::scale] == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_variants_are_counted_by_hand(channels: int) -> None:
    net = create("espcn", scale=2, channels=channels, activation=nn.ReLU)
    expected = 25 * channels * 64 + 64 + 9 * 64 * 32 + 32 + 289 * channels * 4
    assert sum(p.numel() for p in net.parameters()) == expected
    assert [type(layer) for layer in net.features[1::2]] == [nn.ReLU, nn.ReLU]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_network_of_pytorch_s_examples_has_its_size_and_orthogonal_filters(scale: int) -> None:
    net = espcn_pytorch_examples(scale=scale)
    assert sum(p.numel() for p in net.parameters()) == 57_056 + 289 * scale**2
    for layer, gain in zip(convolutions(net), (2, 2, 2, 1), strict=True):
        rows = layer.weight.detach().flatten(1)
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        torch.testing.assert_close(rows @ rows.T, gain * torch.eye(len(rows)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("options", [{"scale": 0}, {"scale": 1.5}, {"channels": 0}, {"scale": True}])
def test_sizes_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"espcn: .* must be an integer of at least 1"):
        create("espcn", **options)


# -- pruning ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scale", "channels"), [(2, 1), (3, 1), (4, 1), (8, 1), (3, 3)])
def test_hidden_filters_can_go_and_the_pixels_of_the_output_cannot(scale: int, channels: int) -> None:
    net, x = espcn(scale=scale, channels=channels).eval(), torch.rand(1, channels, 6, 7)
    graph = cp.capture(net, x)
    assert graph.n_units == 64 + 32
    scores = cp.score(graph, cp.scoring.Norm())
    small = cp.apply(net, plan := cp.plan(scores, cp.budget.Uniform(0.75)))
    cp.verify(net, small, plan, x)
    widths = [layer.out_channels for layer in convolutions(small)]
    assert widths == [16, 8, channels * scale**2]
    assert small(x).shape == (1, channels, 6 * scale, 7 * scale)


@pytest.mark.parametrize(("scale", "channels"), [(2, 2), (3, 4), (4, 3)])
def test_behind_a_shuffle_a_channel_is_scale_squared_filters(scale: int, channels: int) -> None:
    """A sub-pixel layer in mid-network: consumer channel c takes filters c * r² .. c * r² + r² - 1 along."""
    first = ESPCN([(3, 5)], last=3, scale=scale, channels=channels, activation=nn.Tanh)
    net = nn.Sequential(first, nn.Conv2d(channels, 2, 3)).eval()
    x = torch.rand(1, channels, 6, 6)
    graph = cp.capture(net, x)
    assert graph.n_units == 5 + channels
    for channel in range(channels):
        plan = graph.plan(one_unit(graph, "0.sub_pixel.weight", channel))
        cuts = {cut.tensor: cut for cut in plan.cuts}
        filters = tuple(range(channel * scale**2, (channel + 1) * scale**2))
        assert cuts["0.sub_pixel.weight"].removed == filters == cuts["0.sub_pixel.bias"].removed
        assert cuts["1.weight"].removed == (channel,) and cuts["1.weight"].axis == 1
        cp.verify(net, cp.apply(net, plan), plan, x)


def test_removed_constants_are_folded_exactly_but_for_borders() -> None:
    """A filter without weights emits tanh(bias); what it adds to the next layer goes into that one's bias."""
    net, x = espcn(scale=2).eval(), torch.rand(2, 1, 12, 12)
    graph = cp.capture(net, x)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    with torch.no_grad():
        for name in ("features.0", "features.2"):
            (cut,) = (cut for cut in plan.cuts if cut.tensor == f"{name}.weight" and cut.role == "writer")
            net.get_submodule(name).weight[list(cut.removed)] = 0
            net.get_submodule(name).bias[list(cut.removed)] = 0.3
        removal = cp.recovery.remove_silenced(plan, graph, [x])
        inner, whole = (difference(removal.model, net, x, border) for border in (8, 0))
    assert [layer.out_channels for layer in convolutions(removal.model)] == [32, 16, 4]
    assert inner < 1e-5 < 1e-3 < whole and removal.border > 0


def difference(small: nn.Module, net: nn.Module, x: Tensor, border: int) -> float:
    gap = (small(x) - net(x)).abs()
    return float(gap[..., border : gap.shape[-2] - border, border : gap.shape[-1] - border].max())


def test_counts_shrink_by_the_formulas() -> None:
    """One of the 64 filters saves 26 + 288 parameters, one of the 32 saves 577 + 9 r²."""
    net, x = espcn(scale=4), torch.rand(1, 1, 5, 5)
    graph = cp.capture(net, x)
    for name, saved in (("features.0.weight", 26 + 288), ("features.2.weight", 577 + 9 * 16)):
        small = cp.apply(net, graph.plan(one_unit(graph, name, 3)))
        before, after = (sum(p.numel() for p in one.parameters()) for one in (net, small))
        assert before - after == saved


def one_unit(graph: cp.Graph, name: str, number: int) -> np.ndarray:
    """A mask of one unit of the group with that name."""
    removed = np.zeros(graph.n_units, dtype=bool)
    group = next(group for group in graph.groups if group.name == name)
    removed[group.cells[0][number]] = True
    return removed


def test_images_of_other_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected images \[N, 1, H, W\], got \[1, 3, 8, 8\]; of a colour"):
        espcn()(torch.rand(1, 3, 8, 8))
