from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import compressor as cp
from compressor.errors import InputError
from compressor.models import ClutterFilter, create
from compressor.models.clutter_filter import AttentionGate
from tests.models.sine_fill import sine_fill_, sine_input

CONVS = (nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def statistics(model: nn.Module) -> int:
    """Running means and variances, which Keras counts among the parameters (as non-trainable ones)."""
    return sum(2 * m.num_features for m in model.modules() if isinstance(m, NORMS))


# The authors' Keras model, layer by layer (convolutions with bias, in the order they are made in).
PUBLISHED = {
    "encoder.0.0": 448,
    "encoder.0.4": 13_856,
    "encoder.1.0": 27_680,
    "encoder.1.4": 55_360,
    "encoder.2.0": 110_656,
    "encoder.2.4": 221_312,
    "encoder.3.0": 442_496,
    "encoder.3.4": 884_992,
    "decoder.0.up.conv": 524_544,
    "decoder.0.gate.theta": 221_248,
    "decoder.0.gate.phi": 16_448,
    "decoder.0.gate.psi": 65,
    "decoder.0.block.0": 1_327_232,
    "decoder.0.block.4": 442_496,
    "decoder.1.up.conv": 131_200,
    "decoder.1.gate.theta": 55_328,
    "decoder.1.gate.phi": 4_128,
    "decoder.1.gate.psi": 33,
    "decoder.1.block.0": 331_840,
    "decoder.1.block.4": 110_656,
    "decoder.2.up.conv": 32_832,
    "decoder.2.gate.theta": 13_840,
    "decoder.2.gate.phi": 1_040,
    "decoder.2.gate.psi": 17,
    "decoder.2.block.0": 82_976,
    "decoder.2.block.4": 27_680,
    "final.0": 33,
}
PUBLISHED_NORMS = [64, 128, 128, 256, 256, 512, 512, 1024, 512, 512, 256, 256, 128, 128, 4]


def test_layers_have_the_published_sizes() -> None:
    net = create("clutter_filter")
    assert {name: count(m) for name, m in net.named_modules() if isinstance(m, CONVS)} == PUBLISHED
    norms = [4 * m.num_features for m in net.modules() if isinstance(m, NORMS)]
    assert norms == PUBLISHED_NORMS


@pytest.mark.parametrize(
    ("name", "options", "trainable", "keras_total"),
    [
        ("clutter_filter", {}, 5_082_774, 5_085_112),
        ("clutter_filter", {"gates": False}, 4_770_627, 4_772_965),
        ("clutter_filter", {"in_skip": False}, 5_082_774, 5_085_112),
        ("clutter_filter_2d", {}, 1_826_166, 1_828_504),
        ("clutter_filter", {"width": 8}, 1_271_886, None),
        ("clutter_filter", {"width": 8, "levels": 3}, 306_093, None),
        ("clutter_filter", {"width": 4}, 318_570, None),
        ("clutter_filter_small", {}, 76_825, None),
    ],
)
def test_parameter_counts(
    name: str, options: dict[str, Any], trainable: int, keras_total: int | None
) -> None:
    net = create(name, **options)
    assert count(net) == trainable
    if keras_total is not None:
        assert statistics(net) == 2338
        assert count(net) + statistics(net) == keras_total


def test_the_2d_twin_by_hand() -> None:
    """Nine instead of 27 weights in a filter, 4 instead of 8 when up-sampling; the rest is the same."""

    def conv(kernel: int, before: int, after: int) -> int:
        return kernel * before * after + after

    total = 2 * sum(PUBLISHED_NORMS) // 4 + conv(1, 32, 1)
    for before, after in ((1, 32), (32, 64), (64, 128), (128, 256)):
        total += conv(9, before, after // 2) + conv(9, after // 2, after)
    for own in (128, 64, 32):
        total += conv(4, 2 * own, 2 * own)
        total += conv(9, own, own // 2) + conv(1, 2 * own, own // 2) + conv(1, own // 2, 1)
        total += conv(9, 3 * own, own) + conv(9, own, own)
    assert count(create("clutter_filter_2d")) == total


def test_the_output_is_that_of_the_original() -> None:
    net = ClutterFilter().eval()
    sine_fill_(m for m in net.modules() if isinstance(m, CONVS))
    x = sine_input(1, 1, 16, 16, 4)
    with torch.no_grad():
        out = net(x)
    summary = torch.stack([out.mean(), out.std(), out.min(), out.max()])
    expected = torch.tensor([0.501697, 0.307298, -0.008641, 1.057507])
    torch.testing.assert_close(summary, expected, rtol=0, atol=1e-4)
    first = torch.tensor([0.467214, 0.581465, 0.694279, 0.826395])
    torch.testing.assert_close(out.flatten()[:4], first, rtol=0, atol=1e-4)
    residual = (out - x).flatten()
    first = torch.tensor([-0.032786, -0.066296, -0.088042, -0.065269, -0.045768, -0.047536])
    torch.testing.assert_close(residual[:6], first, rtol=0, atol=1e-4)
    spread = torch.stack([residual.std(), residual.abs().max()])
    torch.testing.assert_close(spread, torch.tensor([0.064392, 0.222198]), rtol=0, atol=1e-4)


def test_macs_are_those_of_the_paper() -> None:
    """Convolutions alone: 424.115 G on a volume of 128x128x50."""
    with torch.device("meta"):
        net, x = ClutterFilter().eval(), torch.empty(1, 1, 128, 128, 50)
    with FlopCounterMode(display=False) as counter:
        net(x)
    assert counter.get_total_flops() / 2e9 == pytest.approx(424.115, abs=5e-4)


def test_macs_of_the_small_one_are_counted_by_hand() -> None:
    net, x = create("clutter_filter_small").eval(), torch.zeros(1, 1, 64, 64, 8)
    pixels = 64 * 64 * 8
    weights = {name: m.weight.numel() for name, m in net.named_modules() if isinstance(m, CONVS)}
    total = 0
    for name, numbers in weights.items():
        kind, _, rest = name.partition(".")
        level = {"encoder": int(rest[0]), "decoder": 1 - int(rest[0]), "final": 0}[kind]
        coarse = any(part in name for part in ("theta", "phi", "psi"))
        total += numbers * pixels // 4 ** (level + coarse)
    assert cp.profile(net, x).macs == total
    assert total / 1e9 == pytest.approx(0.72, abs=0.005)


def same_padded(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """TensorFlow's "same": ceil(n / stride) outputs, the odd number of zeros behind."""
    ends: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        missing = max((-(-size // s) - 1) * s + k - size, 0)
        ends = [missing // 2, missing - missing // 2, *ends]
    return F.pad(x, ends)


@pytest.mark.parametrize("frames", [1, 5, 8])
def test_padding_is_same_as_tensorflow_defines_it(frames: int) -> None:
    net = ClutterFilter(width=2, levels=2)
    decoder: Any = net.decoder[0]
    up, gate = decoder.up, decoder.gate
    x, g = torch.randn(1, 4, 8, 12, frames), torch.randn(1, 8, 4, 6, frames)
    larger = F.interpolate(g, scale_factor=(2, 2, 1), mode="nearest")
    expected = F.conv3d(same_padded(larger, (2, 2, 2), (1, 1, 1)), up.conv.weight, up.conv.bias)
    assert torch.equal(up(g), expected)
    theta = gate.theta
    strided = F.conv3d(same_padded(x, (3, 3, 3), (2, 2, 1)), theta.weight, theta.bias, stride=(2, 2, 1))
    mask = torch.sigmoid(gate.psi(F.relu(gate.phi(g) + strided)))
    repeated = mask.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(gate(x, g), x * repeated)


def test_an_open_gate_lets_everything_through_and_a_shut_one_nothing() -> None:
    gate: Any = AttentionGate(3, 4, 2)
    x, g = torch.randn(2, 3, 4, 4, 3), torch.randn(2, 4, 2, 2, 3)
    nn.init.zeros_(gate.psi.weight)
    for bias, factor in ((100.0, 1.0), (-200.0, 0.0), (0.0, 0.5)):
        gate.psi.bias.data.fill_(bias)
        torch.testing.assert_close(gate(x, g), factor * x)


@pytest.mark.parametrize("dims", [2, 3])
def test_a_silent_network_is_the_identity(dims: int) -> None:
    net = ClutterFilter(width=2, levels=2, dims=dims, final_gamma=0.0).eval()
    x = torch.rand(2, 1, 4, 4, 3)[..., : 3 if dims == 3 else 1]
    x = x if dims == 3 else x[..., 0]
    assert torch.equal(net(x), x)
    nothing = ClutterFilter(width=2, levels=2, dims=dims, final_gamma=0.0, in_skip=False).eval()
    assert torch.equal(nothing(x), torch.zeros_like(x))


def test_the_activation_is_linear_unless_another_one_is_given() -> None:
    """One level has no pooling and no gate, and biases are zero at first."""
    x = torch.rand(1, 1, 4, 4, 3, dtype=torch.float64)
    linear = ClutterFilter(width=2, levels=1, in_skip=False).double().eval()
    torch.testing.assert_close(linear(2 * x), 2 * linear(x))
    bent = ClutterFilter(width=2, levels=1, in_skip=False, activation=nn.ReLU).double().eval()
    torch.testing.assert_close(bent(2 * x), 2 * bent(x))  # positively homogeneous
    assert not torch.allclose(bent(-x), -bent(x))


def test_the_2d_twin_sees_frames_alone() -> None:
    """A 3-D network whose filters have only their middle frame is its twin on each frame."""
    twin = ClutterFilter(width=2, levels=3, dims=2).eval()
    net = ClutterFilter(width=2, levels=3).eval()
    two: Any
    three: Any
    for two, three in zip(twin.modules(), net.modules(), strict=True):
        if isinstance(three, nn.Conv3d):
            nn.init.normal_(two.bias)
            nn.init.zeros_(three.weight)
            with torch.no_grad():
                three.weight[..., 1 if three.kernel_size[2] == 3 else 0] = two.weight
                three.bias.copy_(two.bias)  # type: ignore[union-attr]
    x = torch.rand(1, 1, 8, 12, 5)
    frames = torch.stack([twin(x[..., t]) for t in range(5)], dim=-1)
    torch.testing.assert_close(net(x), frames)


@pytest.mark.parametrize("shape", [(9, 14), (8, 5), (11, 8), (8, 8)])
@pytest.mark.parametrize("dims", [2, 3])
def test_odd_sizes_are_reflected_and_cropped(shape: tuple[int, int], dims: int) -> None:
    net = ClutterFilter(width=2, levels=3, dims=dims, reflect=True).eval()
    x = torch.rand(1, 1, *shape, 3)
    x = x if dims == 3 else x[..., 0]
    padded = x.numpy()
    ends = [(0, 0), (0, 0), *((0, -size % 4) for size in shape), *[(0, 0)] * (dims - 2)]
    padded = np.pad(padded, ends, mode="reflect")
    expected = net(torch.from_numpy(padded))[:, :, : shape[0], : shape[1]]
    assert torch.equal(net(x), expected)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ({}, (1, 1, 12, 16, 4), "multiples of 8 .* got 12x16"),
        ({"levels": 3, "width": 2}, (1, 1, 8, 10, 4), "multiples of 4 .* got 8x10"),
        ({"reflect": True}, (1, 1, 3, 16, 4), "3x16 is too small"),
        ({}, (1, 3, 16, 16, 4), "expected grey volumes"),
        ({}, (1, 1, 16, 16), r"expected grey volumes \[N, 1, H, W, T\]"),
        ({"dims": 2}, (1, 1, 16, 16, 4), r"expected grey frames \[N, 1, H, W\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    options: dict[str, Any], shape: tuple[int, ...], words: str
) -> None:
    net = ClutterFilter(**{"width": 2, **options})
    with pytest.raises(InputError, match=words):
        net(torch.zeros(shape))


@pytest.mark.parametrize("options", [{"dims": 4}, {"width": 0}, {"levels": 0}, {"levels": 2.5}])
def test_options_without_sense(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ClutterFilter(**options)


def test_the_first_residual_has_the_scale_that_was_asked_for() -> None:
    x = torch.rand(2, 1, 16, 16, 8)
    for gamma in (1.0, 0.1):
        net = ClutterFilter(width=2, levels=2, final_gamma=gamma, in_skip=False).train()
        assert float(net(x).std().detach()) == pytest.approx(gamma, rel=0.05)
