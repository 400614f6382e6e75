from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.errors import InputError
from compressor.models import SwinIR, create
from compressor.models.swinir_layers import DropPath, WindowAttention, mask_of_shifted
from tests.models.sine_fill import sine_bias, sine_input, sine_weight

SMALL: dict[str, Any] = {
    "width": 8,
    "depths": (2, 1),
    "heads": 2,
    "window": 4,
    "unshuffle": 2,
    "features": 6,
}


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("swinir_m", 4_741_007), ("swinir_l", 15_792_587), ("swinir_tiny", 243_635)],
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    with torch.device("meta"):
        assert count(create(name)) == parameters


def test_parts_of_the_middle_one_have_the_published_sizes() -> None:
    with torch.device("meta"):
        net: Any = create("swinir_m")
    assert count(net.conv_first) == 207_480
    assert count(net.patch_embed) == count(net.norm) == 240
    assert count(net.layers) == 4_184_700
    assert count(net.conv_after_body) == 129_720
    assert count(net.conv_before_upsample) == 69_184
    for layer in (net.conv_up1, net.conv_up2, net.conv_up3, net.conv_hr):
        assert count(layer) == 36_928
    assert count(net.conv_last) == 1_731


@pytest.mark.parametrize(("name", "size", "gmacs"), [("swinir_m", 256, 10.79), ("swinir_l", 512, 90.74)])
def test_macs_are_the_published_ones(name: str, size: int, gmacs: float) -> None:
    with torch.device("meta"):
        net, x = create(name).eval(), torch.empty(1, 3, size, size)
    with FlopCounterMode(display=False) as counter:
        net(x)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, abs=0.005)


def test_the_output_is_that_of_the_original() -> None:
    net = create("swinir_tiny").eval()
    with torch.no_grad():
        for number, (name, parameter) in enumerate(net.named_parameters()):
            if parameter.dim() >= 2:
                parameter.copy_(sine_weight(parameter.shape, number))
            elif name.endswith(".bias"):
                parameter.copy_(sine_bias(len(parameter), number))
            else:
                parameter.fill_(1)
        out = net(sine_input(1, 3, 128, 128))
    found = torch.stack([out.mean(), out.std(), *out.flatten()[:4]])
    expected = torch.tensor([0.449144, 0.525732, 0.390850, 0.680743, 0.849586, 0.960711])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


BOTH = ("weight", "bias")
PARTS_OF_A_BLOCK = """
norm1.weight norm1.bias attn.relative_position_bias_table attn.qkv.weight attn.qkv.bias attn.proj.weight
attn.proj.bias norm2.weight norm2.bias mlp.fc1.weight mlp.fc1.bias mlp.fc2.weight mlp.fc2.bias
"""
TAIL = "norm conv_after_body conv_before_upsample.0 conv_up1 conv_up2 conv_up3 conv_hr conv_last"


def test_names_and_order_are_those_of_the_published_files() -> None:
    expected = [f"{layer}.{part}" for layer in ("conv_first.1", "patch_embed.norm") for part in BOTH]
    for group in range(2):
        for block in range(2):
            path = f"layers.{group}.residual_group.blocks.{block}"
            expected += [f"{path}.{part}" for part in PARTS_OF_A_BLOCK.split()]
        expected += [f"layers.{group}.conv.{part}" for part in BOTH]
    expected += [f"{layer}.{part}" for layer in TAIL.split() for part in BOTH]
    net = create("swinir_tiny")
    assert [name for name, _ in net.named_parameters()] == expected
    assert list(net.state_dict()) == expected  # no buffer that a file would have to hold


# -- attention -------------------------------------------------------------------------------------------


def attention_by_hand(attn: WindowAttention, image: Tensor, window: int, shift: int) -> Tensor:
    """Every pixel with those of its window, one pair after the other; windows are shifted, not the image.

    The windows begin at `shift` and go around the image's ends. Pixels that a window holds from both ends
    of the image do not see each other.
    """
    height, width, channels = image.shape
    dim = channels // attn.num_heads
    out = torch.zeros_like(image)

    def place(row: int, column: int) -> tuple[int, int, int, int]:
        return (
            (row - shift) % height // window,
            (column - shift) % width // window,
            (row - shift) % height % window,
            (column - shift) % width % window,
        )

    pixels = list(product(range(height), range(width)))
    packed = image @ attn.qkv.weight.T + attn.qkv.bias
    for head in range(attn.num_heads):
        begins = [part * channels + head * dim for part in range(3)]
        q, k, v = (packed[..., begin : begin + dim] for begin in begins)
        for one in pixels:
            mine = place(*one)
            logits, values = [], []
            for other in pixels:
                theirs = place(*other)
                # Neighbours through the ends: the order in the image is not that in the window.
                torn = any((one[i] - other[i]) != (mine[2 + i] - theirs[2 + i]) for i in range(2))
                if theirs[:2] != mine[:2] or torn:
                    continue
                offset = (
                    (mine[2] - theirs[2] + window - 1) * (2 * window - 1) + mine[3] - theirs[3] + window - 1
                )
                bias = attn.relative_position_bias_table[offset, head]
                logits.append(q[one] @ k[other] * dim**-0.5 + bias)
                values.append(v[other])
            weights = torch.stack(logits).softmax(0)
            out[one][head * dim : (head + 1) * dim] = weights @ torch.stack(values)
    return out @ attn.proj.weight.T + attn.proj.bias


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("size", [(8, 4), (4, 8)])
def test_windows_are_those_of_a_loop_over_pixels(index: int, size: tuple[int, int]) -> None:
    net: Any = SwinIR(**SMALL, drop_path=0).double().eval()
    block = net.layers[0].residual_group.blocks[index]
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(1, *size, 8, dtype=torch.float64)
    seen: list[Tensor] = []
    block.mlp.register_forward_hook(lambda *_: torch.zeros_like(x))
    block.norm1.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        found = block(x, mask_of_shifted(*size, 4, x)) - x
        expected = attention_by_hand(block.attn, seen[0][0], 4, shift=2 * index)
    torch.testing.assert_close(found[0], expected)


def test_only_every_second_block_is_shifted() -> None:
    net: Any = create("swinir_tiny")
    assert [block.shift for group in net.layers for block in group.residual_group.blocks] == [0, 4, 0, 4]


# -- images ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(70, 90), (64, 64), (33, 128)])
def test_other_sizes_are_reflected_and_cropped(size: tuple[int, int]) -> None:
    net = create("swinir_tiny").eval()
    x = torch.rand(1, 3, *size)
    ends = [(0, 0), (0, 0), *((0, -length % 64) for length in size)]
    with torch.no_grad():
        expected = net(torch.from_numpy(np.pad(x.numpy(), ends, mode="reflect")))[..., : size[0], : size[1]]
        torch.testing.assert_close(net(x), expected)


def test_a_grey_image_is_one_of_three_equal_channels() -> None:
    net, x = SwinIR(**SMALL).eval(), torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(net(x), net(x.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_the_output_is_as_large_as_the_input(unshuffle: int) -> None:
    net = SwinIR(**{**SMALL, "unshuffle": unshuffle}).eval()
    assert net(torch.rand(1, 3, 20, 17)).shape == (1, 3, 20, 17)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            (1, 3, 32, 64),
            "32x64 is too small to be reflected up to a multiple of 64: its height",
        ),
        ((1, 3, 64, 20), "its width must be more than 32"),
        ((1, 2, 64, 64), r"expected images \[N, 3, H, W\]"),
        ((3, 64, 64), r"expected images \[N, 3, H, W\]"),
    ],
)
def test_images_that_do_not_fit_are_named(shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        create("swinir_tiny")(torch.zeros(shape))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 10, "heads": 3}, "width=10 must be a multiple of heads=3"),
        ({"unshuffle": 6}, "unshuffle must be a power of two, got 6"),
        ({"depths": (2, 0)}, r"depths\[1\]"),
        ({"depths": ()}, "groups must be"),
        ({"drop_path": 1.0}, "drop_path must be"),
    ],
)
def test_options_without_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        SwinIR(**options)


# -- stochastic depth ------------------------------------------------------------------------------------


def test_later_blocks_are_left_out_more_often() -> None:
    with torch.device("meta"):
        net: Any = create("swinir_m")
    rates = [block.drop_path.rate for group in net.layers for block in group.residual_group.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 30))


def test_a_branch_is_left_out_as_a_whole_and_kept_on_the_mean() -> None:
    drop, x = DropPath(0.25), torch.ones(4000, 2, 3)
    out = drop(x)
    per_image = out.flatten(1)
    assert bool((per_image == per_image[:, :1]).all())
    assert per_image[:, 0].unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(per_image[:, 0].mean()) == pytest.approx(1, abs=0.04)
    assert torch.equal(drop.eval()(x), x)
