from __future__ import annotations

import pytest
import torch

from compressor.data.images import luminance, rgb_to_ycbcr, ycbcr_to_rgb
from compressor.errors import InputError


@pytest.mark.parametrize(
    ("rgb", "ycbcr"),
    [  # the 100 % colour bars of BT.601, 8 bits
        ((255, 255, 255), (235, 128, 128)),
        ((255, 255, 0), (210, 16, 146)),
        ((0, 255, 255), (170, 166, 16)),
        ((0, 255, 0), (145, 54, 34)),
        ((255, 0, 255), (106, 202, 222)),
        ((255, 0, 0), (81, 90, 240)),
        ((0, 0, 255), (41, 240, 110)),
        ((0, 0, 0), (16, 128, 128)),
    ],
)
def test_colour_bars_have_the_levels_of_the_standard(
    rgb: tuple[int, int, int], ycbcr: tuple[int, int, int]
) -> None:
    pixel = torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1)
    found = rgb_to_ycbcr(pixel)
    assert found.dtype == torch.uint8 and tuple(found.flatten().tolist()) == ycbcr
    back = ycbcr_to_rgb(found).flatten().int()
    assert (back - torch.tensor(rgb)).abs().max() <= 2


def test_luminance_is_the_formula_rounded_half_up() -> None:
    image = torch.randint(256, (2, 3, 9, 8), dtype=torch.uint8)
    for pixel, found in zip(
        image.permute(0, 2, 3, 1).reshape(-1, 3).tolist(), luminance(image).flatten().tolist(), strict=True
    ):
        red, green, blue = pixel
        assert found == int(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 0.5)


def test_floats_go_there_and_back_exactly_with_gradients() -> None:
    image = torch.rand(3, 5, 6, dtype=torch.float64, requires_grad=True)
    back = ycbcr_to_rgb(rgb_to_ycbcr(image))
    assert back.dtype == torch.float64
    torch.testing.assert_close(back, image, rtol=0, atol=1e-12)
    back.sum().backward()
    assert image.grad is not None and bool(torch.isfinite(image.grad).all())


def test_grey_images_are_their_own_luminance() -> None:
    image = torch.tensor([[[0, 255]]], dtype=torch.uint8)
    assert torch.equal(luminance(image), image)


@pytest.mark.parametrize(
    "image", [torch.zeros(4, 2, 2), torch.zeros(3, 2), torch.zeros(3, 2, 2, dtype=torch.int32)]
)
def test_other_tensors_are_refused(image: torch.Tensor) -> None:
    for function in (rgb_to_ycbcr, ycbcr_to_rgb, luminance):
        with pytest.raises(InputError, match="expected uint8 or floats"):
            function(image)
