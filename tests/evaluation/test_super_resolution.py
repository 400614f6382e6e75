from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compressor.data.images import (
    Bicubic,
    cropped_to_multiple,
    luminance,
    luminance_pairs,
    read_folder,
    rescale,
)
from compressor.errors import EvaluationError, InputError
from compressor.evaluation import psnr, super_resolution

# Bicubic interpolation as papers print it: Set5, Set14.
PRINTED = {2: (33.66, 30.23), 3: (30.39, 27.54), 4: (28.42, 26.00)}


def bicubic(scale: int) -> Callable[[Tensor], Tensor]:
    return lambda y: rescale(y, float(scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_interpolation_has_the_numbers_of_the_literature_on_set5(shared: Path, scale: int) -> None:
    images = read_folder(shared / "data/sr_set5/HR", keep_grey=True)
    found = super_resolution(bicubic(scale), luminance_pairs(images, Bicubic(scale)), ssim=scale == 3)
    assert found.scale == scale and found.images[0].name == "baby.png"
    assert found.psnr == pytest.approx(PRINTED[scale][0], abs=0.02)
    if scale == 3:
        assert found.ssim == pytest.approx(0.8682, abs=0.001)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_interpolation_has_the_numbers_of_the_literature_on_set14(shared: Path, scale: int) -> None:
    """Its originals here are cropped for a scale of 3; one of them is grey and taken as it is."""
    images = read_folder(shared / "data/sr_set14/HR_mod3", keep_grey=True)
    assert sum(len(image) == 1 for image in images.images) == 1
    found = super_resolution(bicubic(scale), luminance_pairs(images, Bicubic(scale)))
    assert found.psnr == pytest.approx(PRINTED[scale][1], abs=0.02)


class VDSR(nn.Module):
    """Kim et al. 2016, arXiv 1511.04587: twenty convolutions, what they add to a bicubic enlargement."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        names = ["input.weight", *(f"residual_layer.{n}.conv.weight" for n in range(18)), "output.weight"]
        self.filters = nn.ParameterList(weights[name] for name in names)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for number, weight in enumerate(self.filters):
            y = nn.functional.conv2d(y if number < 1 else y.relu(), weight, padding=1)
        return x + y


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "stated"), [(2, 37.61), (3, 33.76), (4, 31.44)])
def test_a_published_network_reaches_what_its_authors_state(shared: Path, scale: int, stated: float) -> None:
    """Their small images are floats that were never rounded; with bytes it is about 0.1 dB less."""
    weights = torch.load(shared / "data/ckpt_vdsr/vdsr_epoch50_statedict.pth", weights_only=True)
    net = VDSR(weights).eval()
    images = read_folder(shared / "data/sr_set5/HR")
    unrounded, of_bytes = [], []
    for name, image in images:
        high = cropped_to_multiple(luminance(image.double() / 255), scale)
        with torch.no_grad():
            output = net(rescale(rescale(high, 1 / scale), float(scale))[None].float())[0]
        inner = (..., slice(scale, -scale), slice(scale, -scale))
        levels = [(one.double().clamp(0, 1) * 255).round()[inner] for one in (output, high)]
        unrounded.append(psnr(*levels, peak=255))
        [pair] = luminance_pairs([(name, image)], Bicubic(scale))
        of_bytes.append(super_resolution(lambda y: net(rescale(y, float(scale))), [pair]).psnr)
    assert sum(unrounded) / 5 == pytest.approx(stated, abs=0.05)
    assert stated - 0.2 < sum(of_bytes) / 5 < stated


# -- by hand ----------------------------------------------------------------------------------------------


def flat_pair(scale: int = 2, error: int = 10) -> tuple[str, Tensor, Tensor]:
    low = torch.full((1, 8, 9), 100, dtype=torch.uint8)
    return "flat", low, torch.full((1, 8 * scale, 9 * scale), 100 + error, dtype=torch.uint8)


def test_the_psnr_is_that_of_the_bytes_away_from_the_border() -> None:
    name, low, high = flat_pair(error=10)
    high = nn.functional.pad(high[:, 2:-2, 2:-2], (2, 2, 2, 2), value=255)  # an error at the border only
    found = super_resolution(nn.Upsample(scale_factor=2), [(name, low, high)])
    assert found.psnr == pytest.approx(20 * math.log10(255 / 10))
    with_border = super_resolution(nn.Upsample(scale_factor=2), [(name, low, high)], shave=0)
    assert with_border.psnr < found.psnr
    half = super_resolution(lambda y: nn.functional.interpolate(y + 0.5 / 255, scale_factor=2), [flat_pair()])
    assert half.psnr == pytest.approx(20 * math.log10(255 / 9))  # 100.5 is rounded up


def test_outputs_beyond_the_range_are_clipped() -> None:
    pair = ("white", torch.full((1, 8, 8), 255).byte(), torch.full((1, 16, 16), 250).byte())
    found = super_resolution(lambda y: 3 * nn.functional.interpolate(y, scale_factor=2), [pair])
    assert found.psnr == pytest.approx(20 * math.log10(255 / 5))


def test_the_mean_is_over_images_and_the_table_names_them() -> None:
    pairs = [flat_pair(error=1), flat_pair(error=100)]
    found = super_resolution(nn.Upsample(scale_factor=2), pairs)
    each = [image.psnr for image in found.images]
    assert found.psnr == pytest.approx(sum(each) / 2) and found.ssim is None
    assert str(found).splitlines()[0] == "x2    flat  48.13 dB"


def test_a_module_runs_in_eval_mode_and_keeps_its_mode() -> None:
    net = nn.Sequential(nn.Upsample(scale_factor=2), nn.Dropout(0.9))
    super_resolution(net, [flat_pair()])
    assert all(module.training for module in net.modules())
    values = [super_resolution(net, [flat_pair()]).psnr for _ in range(3)]
    assert all(a == b for a, b in pairwise(values))


def test_faults_name_the_image() -> None:
    twice = nn.Upsample(scale_factor=2)
    with pytest.raises(InputError, match="no pairs of images"):
        super_resolution(twice, [])
    with pytest.raises(EvaluationError, match=r"image flat became \[1, 1, 8, 9\], expected \[1, 1, 16, 18\]"):
        super_resolution(nn.Identity(), [flat_pair()])
    with pytest.raises(EvaluationError, match="image flat became NaN"):
        super_resolution(lambda y: twice(y) * float("nan"), [flat_pair()])
    with pytest.raises(InputError, match="image flat has the scale 3, those before 2"):
        super_resolution(twice, [flat_pair(), flat_pair(3)])
    name, low, high = flat_pair()
    for wrong in ((name, low.float(), high), (name, low, high[:, 1:]), (name, low[0], high[0])):
        with pytest.raises(InputError, match=r"image flat is .* expected the luminance as uint8"):
            super_resolution(twice, [wrong])
    with pytest.raises(InputError, match="nothing is left of image flat"):
        super_resolution(twice, [flat_pair()], shave=8)


def test_colour_and_images_too_small_for_a_window_are_refused() -> None:
    twice = nn.Upsample(scale_factor=2)
    colour = ("red", torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(3, 16, 16, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"image red is .* expected the luminance"):
        super_resolution(twice, [colour])
    small = ("dot", torch.zeros(1, 4, 4, dtype=torch.uint8), torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"image dot: ssim: .* sides of at least 11"):
        super_resolution(twice, [small], ssim=True)
