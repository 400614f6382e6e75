from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import compressor as cp
from compressor.errors import InputError
from compressor.models import (
    Everywhere,
    HDiT,
    Neighborhood,
    ShiftedWindow,
    create,
    hdit_imagenet256_sp4,
    hdit_small,
    hdit_xl2,
)
from compressor.models.hdit_layers import AxialRoPE, FourierFeatures, Level, _turned
from tests.models.sine_fill import sine_input, sine_weight


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return create(name, **options)


@torch.no_grad()
def scrambled(net: HDiT, spread: float = 0.1) -> HDiT:
    """No weight stays zero."""
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) * spread)
    return net.eval()


# -- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "in_channels", "parameters"),
    [
        ("hdit_xl2", 3, 121_544_221),
        ("hdit_xl2", 4, 121_550_365),
        ("hdit_xl2", 6, 121_562_653),
        ("hdit_imagenet256_sp4", 3, 160_460_210),
        ("hdit_imagenet256_sp4", 6, 160_472_498),
        ("hdit_small", 3, 878_541),
    ],
)
def test_the_parameters_are_as_many_as_the_originals(name: str, in_channels: int, parameters: int) -> None:
    assert count(on_meta(name, in_channels=in_channels)) == parameters


@pytest.mark.parametrize("reach", [Everywhere(), ShiftedWindow(8), Neighborhood(7, tile=1)], ids=str)
def test_the_reach_of_attention_costs_no_parameters(reach: object) -> None:
    assert count(on_meta("hdit_small", reach=reach)) == 878_541


def test_the_parts_of_the_large_network_are_as_large_as_the_originals() -> None:
    net = on_meta("hdit_xl2")
    sizes = {name: count(part) for name, part in net.named_children()}
    assert sizes == {
        "patch_in": 18_432,
        "time_emb": 0,
        "time_in_proj": 589_824,
        "aug_emb": 0,
        "aug_in_proj": 589_824,
        "mapping": 10_619_904,
        "down_levels": 5_013_516,
        "up_levels": 5_013_516,
        "mid_level": 97_321_092,
        "merges": 1_179_648,
        "splits": 1_179_649,
        "out_norm": 384,
        "patch_out": 18_432,
    }


@pytest.mark.parametrize("name", ["hdit_xl2", "hdit_imagenet256_sp4"])
def test_a_layer_of_width_d_has_13_d_squared_and_1536_d_and_its_heads(name: str) -> None:
    net = on_meta(name)
    layers = [m for n, m in net.named_modules() if n.count(".") == (1 if n.startswith("mid") else 2)]
    layers = [m for m in layers if hasattr(m, "self_attn")]
    assert len(layers) == {"hdit_xl2": 15, "hdit_imagenet256_sp4": 16}[name]
    for layer in layers:
        d = layer.get_submodule("self_attn.out_proj").out_features
        assert count(layer) == 13 * d * d + 1536 * d + d // 64


@pytest.mark.parametrize(
    ("name", "pixels", "giga"),
    [
        ("hdit_xl2", 256, 138.70),
        ("hdit_xl2", 512, 767.3),
        ("hdit_imagenet256_sp4", 256, 59.80),
        ("hdit_imagenet256_sp4", 512, 252.01),
    ],
)
def test_without_tiles_the_macs_are_the_papers(name: str, pixels: int, giga: float) -> None:
    with torch.device("meta"):
        net, x, t = create(name, tile=1), torch.empty(1, 3, pixels, pixels), torch.empty(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t)
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga, abs=0.05 if giga > 300 else 0.005)


def test_the_profile_counts_the_macs_of_the_paper() -> None:
    with torch.device("meta"):
        net, x, t = hdit_xl2(tile=1), torch.empty(1, 3, 256, 256), torch.empty(1)
    assert cp.profile(net, x, t).macs == pytest.approx(138.70e9, abs=0.005e9)


# -- what it computes ----------------------------------------------------------------------------


@torch.no_grad()
def golden() -> HDiT:
    net = hdit_small().eval()
    for number, parameter in enumerate(net.parameters()):
        if parameter.ndim >= 2:
            parameter.copy_(sine_weight(parameter.shape, number))
    for buffer in (net.time_emb.weight, net.aug_emb.weight):
        waves = torch.sin(1.3 * torch.arange(buffer.numel(), dtype=torch.float64))
        buffer.copy_(waves.float().reshape(buffer.shape))
    return net


def test_with_sines_as_weights_it_gives_what_the_original_gives() -> None:
    with torch.no_grad():
        y = golden()(sine_input(1, 3, 32, 32), torch.tensor([0.25]))
    assert y.mean().item() == pytest.approx(-0.011126, abs=1e-4)
    assert y.std().item() == pytest.approx(0.199690, abs=1e-4)
    expected = torch.tensor([0.228450, -0.286630, 0.356953, -0.357606])
    torch.testing.assert_close(y.flatten()[:4], expected, rtol=0, atol=1e-4)


def test_it_begins_as_zero_and_every_weight_learns_once_none_is_zero() -> None:
    x, t = torch.rand(2, 3, 32, 32), torch.tensor([0.2, 0.9])
    assert not hdit_small()(x, t).any()
    net = scrambled(hdit_small())
    net(x, t).square().mean().backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_images_do_not_see_each_other_and_each_has_its_time() -> None:
    torch.manual_seed(0)
    net = scrambled(hdit_small())
    x, t = torch.rand(3, 3, 32, 48), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        together = net(x, t)
        for i in range(3):
            torch.testing.assert_close(
                together[i : i + 1], net(x[i : i + 1], t[i : i + 1]), rtol=0, atol=1e-5
            )
        assert (net(x, t.flip(0))[1] - together[1]).abs().max() < 1e-5
        assert (net(x, t.flip(0))[0] - together[0]).abs().max() > 1e-3


def test_without_time_ones_take_the_place_of_its_features() -> None:
    net = scrambled(hdit_small())
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        found = net(x)
        net.time_emb.weight.zero_()  # cos 0 = 1
        net.time_in_proj.weight[:, :64] = net.time_in_proj.weight.sum(1, keepdim=True) / 64
        torch.testing.assert_close(net(x, torch.rand(2)), found, rtol=0, atol=1e-5)


def test_extra_channels_are_read() -> None:
    net = scrambled(create("hdit_small", in_channels=4))  # type: ignore[arg-type]
    x = torch.rand(1, 4, 32, 32)
    other = x.clone()
    other[:, 3] = 1 - other[:, 3]
    t = torch.tensor([0.5])
    assert net(x, t).shape == (1, 3, 32, 32)
    assert (net(x, t) - net(other, t)).abs().max() > 1e-3


def test_turned_queries_and_keys_see_the_offset_between_positions_only() -> None:
    torch.manual_seed(0)
    q, k, rope = torch.randn(1, 16).double(), torch.randn(1, 16).double(), AxialRoPE(1, 16).double()

    def product(at: list[float], other: list[float]) -> float:
        angles = rope(torch.tensor([at, other], dtype=torch.float64))[:, 0]
        one, two = (_turned(x, a.cos(), a.sin()) for x, a in ((q, angles[:1]), (k, angles[1:])))
        return float((one * two).sum())

    assert product([0.1, 0.3], [0.4, -0.2]) == pytest.approx(product([0.3, 0.1], [0.6, -0.4]), abs=1e-12)
    assert product([0.1, 0.3], [0.4, -0.2]) != pytest.approx(product([0.1, 0.3], [0.4, 0.2]), abs=1e-3)


def test_frequencies_run_from_pi_to_ten_pi_over_all_heads() -> None:
    freqs = AxialRoPE(6, 64).freqs
    assert freqs.shape == (6, 8)
    steps = torch.tensor([math.pi * 10 ** (i / 48) for i in range(48)])
    torch.testing.assert_close(freqs.T.flatten(), steps, rtol=1e-5, atol=0)


def test_fourier_features_are_cosines_then_sines_of_whole_turns() -> None:
    layer = FourierFeatures(1, 4)
    layer.weight.copy_(torch.tensor([[1.0], [0.5]]))
    found = layer(torch.tensor([[0.25], [1.0]]))
    expected = torch.tensor([[0, math.sqrt(0.5), 1, math.sqrt(0.5)], [1.0, -1, 0, 0]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_under_autocast_it_computes_nearly_the_same() -> None:
    net = scrambled(hdit_small(), 0.05)
    x, t = torch.rand(2, 3, 32, 32), torch.tensor([0.2, 0.9])
    with torch.no_grad():
        plain = net(x, t)
        with torch.autocast("cpu", torch.bfloat16):
            low = net(x, t)
    assert (low - plain).norm() < 0.05 * plain.norm()


def test_it_computes_in_float64_and_the_positions_are_not_rounded() -> None:
    net = scrambled(hdit_small()).double()
    x, t = torch.rand(1, 3, 24, 32, dtype=torch.float64), torch.tensor([0.3])
    y = net(x, t)
    assert y.dtype == torch.float64
    assert (net.float()(x.float(), t) - y).abs().max() < 1e-4


# -- checkpoints ---------------------------------------------------------------------------------

LAYER = (
    "self_attn.scale",
    "self_attn.norm.linear.weight",
    "self_attn.qkv_proj.weight",
    "self_attn.pos_emb.freqs",
    "self_attn.out_proj.weight",
    "ff.norm.linear.weight",
    "ff.up_proj.weight",
    "ff.down_proj.weight",
)


def test_tensors_have_the_names_of_the_published_checkpoints() -> None:
    mapping = ("norm.scale", "up_proj.weight", "down_proj.weight")
    expected = [
        "patch_in.proj.weight",
        "time_emb.weight",
        "time_in_proj.weight",
        "aug_emb.weight",
        "aug_in_proj.weight",
        "mapping.in_norm.scale",
        *(f"mapping.blocks.{i}.{name}" for i in range(2) for name in mapping),
        "mapping.out_norm.scale",
        *(f"down_levels.0.{i}.{name}" for i in range(2) for name in LAYER),
        *(f"up_levels.0.{i}.{name}" for i in range(2) for name in LAYER),
        *(f"mid_level.{i}.{name}" for i in range(11) for name in LAYER),
        "merges.0.proj.weight",
        "splits.0.fac",
        "splits.0.proj.weight",
        "out_norm.scale",
        "patch_out.proj.weight",
    ]
    shapes = {name: tuple(t.shape) for name, t in on_meta("hdit_xl2").state_dict().items()}
    assert list(shapes) == expected
    assert shapes["time_emb.weight"] == (384, 1) and shapes["aug_emb.weight"] == (384, 9)
    assert shapes["mid_level.0.self_attn.pos_emb.freqs"] == (12, 8)
    assert shapes["splits.0.proj.weight"] == (4 * 384, 768)


def test_a_network_is_its_state_dict() -> None:
    torch.manual_seed(0)
    first, second = scrambled(hdit_small()), hdit_small().eval()
    x, t = torch.rand(1, 3, 32, 32), torch.tensor([0.7])
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(x, t), second(x, t))
    second.time_emb.weight.normal_()  # drawn anew, it would be another network
    assert not torch.allclose(first(x, t), second(x, t), atol=1e-3)


# -- what is refused -----------------------------------------------------------------------------


def test_sizes_that_do_not_fit_name_the_multiple() -> None:
    net, t = hdit_small(), torch.zeros(1)
    fits = r"must be multiples of 4 \(patches, merges and windows\) and at least 14, got "
    for height, width in ((33, 32), (32, 34), (12, 32)):
        with pytest.raises(InputError, match=f"{fits}{height} x {width}; pad the images"):
            net(torch.zeros(1, 3, height, width), t)
    assert net(torch.zeros(1, 3, 16, 20), t).shape == (1, 3, 16, 20)
    assert (hdit_small(reach=ShiftedWindow(8)).multiple, hdit_small(reach=Everywhere()).least) == (16, 4)
    large = on_meta("hdit_imagenet256_sp4")
    assert (large.multiple, large.least) == (16, 56)


def test_inputs_of_other_shapes_are_refused() -> None:
    net = hdit_small()
    with pytest.raises(
        InputError, match=r"x must be B x 3 x H x W \(in_channels=3\) of floats, got \(1, 4, 32, 32\)"
    ):
        net(torch.zeros(1, 4, 32, 32), torch.zeros(1))
    with pytest.raises(InputError, match=r"B x 3 x H x W .*, got \(3, 32, 32\)"):
        net(torch.zeros(3, 32, 32), torch.zeros(1))
    with pytest.raises(InputError, match=r"of floats, got \(1, 3, 32, 32\) of torch.uint8"):
        net(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(1))
    with pytest.raises(InputError, match=r"t must be a tensor with one time for each image, got 0\.5"):
        net(torch.zeros(1, 3, 32, 32), 0.5)
    for wrong in (torch.zeros(1), torch.zeros(2, 1), torch.tensor(0.5)):
        with pytest.raises(InputError, match=r"one time for each image, shape \(2,\), got"):
            net(torch.zeros(2, 3, 32, 32), wrong)


def test_configurations_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match=r"width must be a multiple of head_dim, .* width=100, head_dim=64"):
        Level(100, 2, Everywhere())
    with pytest.raises(InputError, match=r"reach must be a Reach such as Neighborhood\(7\), got 'global'"):
        hdit_small(reach="global")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="mapping_width must be even"):
        HDiT((Level(64, 1, Everywhere()),), mapping_width=33)
    with pytest.raises(InputError, match="levels must hold at least one Level"):
        HDiT(())
    for builder in (hdit_small, hdit_imagenet256_sp4):
        with pytest.raises(InputError, match="HDiT: in_channels must be an integer of at least 1, got 0"):
            builder(in_channels=0)


def test_sizes_of_one_level_are_computed_without_merges() -> None:
    net = scrambled(HDiT((Level(32, 2, Everywhere(), head_dim=16),), patch=2, mapping_width=16))
    y: Tensor = net(torch.rand(1, 3, 6, 4), torch.tensor([0.5]))
    assert y.shape == (1, 3, 6, 4) and y.abs().max() > 0
