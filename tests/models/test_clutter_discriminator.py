from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.models import ClutterDiscriminator, create
from compressor.models.clutter_discriminator import ResidualModule


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def keras(model: nn.Module) -> int:
    """As Keras counts: running statistics are parameters, too."""
    norms = [m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    return count(model) + 2 * sum(norms)


def conv(kernel: int, before: int, after: int) -> int:
    return kernel * before * after + after


def module_by_hand(before: int, width: int, depth: int) -> int:
    """Keras' count of a stage: four numbers of a batch norm for each channel."""
    total = conv(1, before, 2 * width) + 4 * 2 * width  # the shortcut
    total += conv(27, before, width) + (depth - 1) * conv(27, width, width) + depth * 4 * width
    return total + conv(1, width, 2 * width) + 4 * 2 * width


def test_layers_have_the_published_sizes() -> None:
    net = ClutterDiscriminator()
    assert keras(net.stem) == conv(27, 1, 16) + 4 * 16
    stages = [m for m in net.stages if isinstance(m, ResidualModule)]
    widths = ((16, 16, 3), (32, 32, 4), (64, 64, 6), (128, 128, 3))
    assert [keras(stage) for stage in stages] == [module_by_hand(*width) for width in widths]
    assert count(net.over_time) == conv(3, 256, 128)
    assert count(net.over_space) == conv(64, 128, 32)
    assert count(net.head) + count(net.logit) == sum(
        before * after + after for before, after in ((32, 64), (64, 32), (32, 16), (16, 1))
    )


def test_the_count_is_the_published_one() -> None:
    net = create("clutter_discriminator")
    assert keras(net) == 2_584_401
    assert count(net) == 2_580_561


def test_frames_are_halved_and_rounded_down() -> None:
    lengths: list[int] = []
    with torch.device("meta"):
        net = ClutterDiscriminator().eval()
        for module in net.stages:
            if isinstance(module, nn.MaxPool3d):
                module.register_forward_hook(lambda _, __, out: lengths.append(out.shape[-1]))
        assert net(torch.empty(2, 1, 128, 128, 50)).shape == (2, 1)
    assert lengths == [25, 12, 6, 3]
    assert net.over_time.kernel_size == (1, 1, 3)
    assert net.over_space.kernel_size == (8, 8, 1)


@pytest.mark.parametrize("size", [(32, 32, 8), (17, 40, 9), (8, 8, 8)])
def test_other_sizes_end_in_one_number_for_each_volume(size: tuple[int, int, int]) -> None:
    net = ClutterDiscriminator(size=size, width=2, depths=(1, 2, 1)).eval()
    x = torch.rand(3, 1, *size)
    together = net(x)
    assert together.shape == (3, 1)
    torch.testing.assert_close(together[1:2], net(x[1:2]))


def test_a_module_with_a_silent_body_is_its_shortcut() -> None:
    module = ResidualModule(3, 4, depth=2).eval()
    last: Any = module.body[-1]  # a batch norm
    nn.init.zeros_(last.weight)
    x = torch.randn(2, 3, 4, 4, 2)
    assert torch.equal(module(x), module.shortcut(x).relu())


def test_the_small_one_takes_the_small_filters_volumes() -> None:
    net, x = create("clutter_discriminator_small").eval(), torch.rand(2, 1, 64, 64, 8)
    assert net(create("clutter_filter_small").eval()(x)).shape == (2, 1)


def test_volumes_of_another_size_are_named() -> None:
    net = ClutterDiscriminator(size=(16, 16, 4), width=2, depths=(1, 1))
    with pytest.raises(InputError, match=r"expected volumes \[N, 1, 16, 16, 4\], got \[1, 1, 16, 16, 5\]"):
        net(torch.zeros(1, 1, 16, 16, 5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (128, 128, 8)}, "4 stages halve H, W and T"),
        ({"size": (128, 128)}, "4 stages halve H, W and T"),
        ({"depths": ()}, "stages must be an integer of at least 1"),
        ({"depths": (1, 0)}, r"depths\[1\] must be an integer of at least 1"),
    ],
)
def test_options_without_sense(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ClutterDiscriminator(**options)
