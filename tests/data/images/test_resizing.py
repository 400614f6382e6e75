from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from compressor.data.images import Bicubic, GaussianSubsampling, read_image, rescale, resize
from compressor.errors import InputError


def naive(row: list[float], size: int, factor: float, *, antialias: bool = True) -> list[float]:
    """One row, pixel by pixel, from the definition."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.5 * x**3 - 2.5 * x**2 + 1
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0

    stretch = min(factor, 1.0) if antialias else 1.0
    found = []
    for n in range(size):
        centre = (n + 0.5) / factor - 0.5
        total = weights = 0.0
        for place in range(math.floor(centre - 2 / stretch) - 2, math.ceil(centre + 2 / stretch) + 3):
            weight = kernel(stretch * (centre - place))
            inside = place % (2 * len(row))
            value = row[inside] if inside < len(row) else row[2 * len(row) - 1 - inside]
            total, weights = total + weight * value, weights + weight
        found.append(total / weights)
    return found


@pytest.mark.parametrize("size", [1, 3, 4, 7, 10, 13, 31])
@pytest.mark.parametrize("antialias", [True, False])
def test_rows_are_those_of_the_definition(size: int, antialias: bool) -> None:
    row = torch.rand(10, dtype=torch.float64)
    found = resize(row.view(1, 1, 10), (1, size), antialias=antialias)
    expected = naive(row.tolist(), size, size / 10, antialias=antialias)
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("size", [(20, 20), (39, 55), (80, 141), (100, 61)])
def test_away_from_borders_it_is_torch_s_antialiased_interpolation(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, 40, 47, dtype=torch.float64)
    ours = resize(image, size)
    theirs = torch.nn.functional.interpolate(image, size=size, mode="bicubic", antialias=True)
    edges = [math.ceil(2 * max(new / old, 1)) + 1 for new, old in zip(size, image.shape[-2:], strict=True)]
    inner = (..., *(slice(edge, -edge) for edge in edges))
    torch.testing.assert_close(ours[inner], theirs[inner], rtol=0, atol=1e-9)
    assert (ours - theirs).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_small_images_of_set5_are_reproduced_to_the_bit(shared: Path, scale: int) -> None:
    for name in ("baby", "bird", "butterfly", "head", "woman"):
        low = read_image(shared / f"data/sr_set5/LR_x{scale}/{name}x{scale}.png")
        high = read_image(shared / f"data/sr_set5/HR/{name}.png")
        high = high[:, : low.shape[1] * scale, : low.shape[2] * scale]
        assert torch.equal(Bicubic(scale)(high), low), name


def test_bytes_stay_bytes_and_are_clipped() -> None:
    step = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(1, 6, 6)
    found = resize(step, (12, 12))
    assert found.dtype == torch.uint8 and found.min() == 0 and found.max() == 255


def test_images_of_any_leading_axes_and_floats_of_any_width_keep_their_kind() -> None:
    image = torch.rand(2, 1, 3, 9, 7)
    found = resize(image, (4, 5))
    assert found.shape == (2, 1, 3, 4, 5)
    torch.testing.assert_close(found[1, 0, 2], resize(image[1, 0, 2], (4, 5)))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert resize(image.to(dtype), (3, 3)).dtype == dtype


def test_gradients_are_those_of_a_linear_map() -> None:
    image = torch.rand(1, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: rescale(x, 0.4), image)


def test_a_factor_says_the_size_as_matlab_does() -> None:
    assert rescale(torch.zeros(1, 30, 31), 1 / 3).shape == (1, 10, 11)
    assert rescale(torch.zeros(1, 7, 5), 2.5).shape == (1, 18, 13)


@pytest.mark.parametrize("call", [
    lambda: resize(torch.zeros(1, 4, 4), (0, 4)),
    lambda: resize(torch.zeros(1, 4, 4), (2.0, 4)),  # type: ignore[arg-type]
    lambda: resize(torch.zeros(1, 0, 4), (2, 2)),
    lambda: resize(torch.zeros(1, 4, 4, dtype=torch.int64), (2, 2)),
    lambda: rescale(torch.zeros(1, 4, 4), 0),
    lambda: rescale(torch.zeros(1, 4, 4), math.nan),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("scale", [2, 3])
def test_gaussian_subsampling_blurs_about_the_middle_of_each_block(scale: int) -> None:
    """A linear ramp stays one, through the middles of blocks; of noise it is the sum written out."""
    ramp = torch.arange(20.0 * scale, dtype=torch.float64).expand(1, 20 * scale, -1)
    middles = torch.arange(20, dtype=torch.float64) * scale + (scale - 1) / 2
    found = GaussianSubsampling(scale)(ramp)
    torch.testing.assert_close(found[0, 9, 5:15], middles[5:15])
    noise = torch.rand(1, 20 * scale, 20 * scale, dtype=torch.float64)
    places = torch.arange(20 * scale, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((places - middles[10]) / 0.8) ** 2)
    weights = torch.where((places - middles[10]).abs() < 3.2, weights, 0.0)
    weights /= weights.sum()
    found = GaussianSubsampling(scale, sigma=0.8)(noise)
    torch.testing.assert_close(found[0, 10, 10], weights @ noise[0] @ weights)


def test_sides_that_the_scale_does_not_divide_are_named_with_the_fix() -> None:
    for downscaling in (Bicubic(3), GaussianSubsampling(3)):
        with pytest.raises(InputError, match=r"multiples of 3, got 10x9; crop it with cropped_to_multiple"):
            downscaling(torch.zeros(1, 10, 9))
    with pytest.raises(InputError, match="scale must be an integer"):
        Bicubic(0)
    with pytest.raises(InputError, match="sigma must be positive"):
        GaussianSubsampling(2, sigma=0.0)
