"""Degradations by their statistics: what a clipped normal has in closed form, what is left untouched."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.data.images import Colourless, Degradation, LowResolution, MissingPixels, Noisy
from compressor.errors import InputError


def clipped_moments(mean: float, sigma: float) -> tuple[float, float]:
    """Mean and variance of clip(N(mean, sigma²), 0, 1), by integration."""
    normal = NormalDist(mean, sigma)
    grid = [(index + 0.5) / 20_000 for index in range(20_000)]
    inside = [normal.pdf(value) / 20_000 for value in grid]
    above = 1 - normal.cdf(1)
    first = sum(p * v for p, v in zip(inside, grid, strict=True)) + above
    second = sum(p * v * v for p, v in zip(inside, grid, strict=True)) + above
    return first, second - first**2


def constant(value: float, channels: int = 3, side: int = 256) -> Tensor:
    return torch.full((2, channels, side, side), value)


def assert_moments(y: Tensor, mean: float, variance: float) -> None:
    spread = math.sqrt(variance / y.numel())
    assert float(y.mean()) == pytest.approx(mean, abs=6 * spread)
    assert float(y.var()) == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_noise_has_the_moments_of_a_clipped_normal(value: float) -> None:
    y, x = Noisy()(constant(value))
    assert torch.equal(x, constant(value))
    assert_moments(y, *clipped_moments(value, 0.35))


def test_colour_goes_before_the_noise_comes() -> None:
    x = torch.tensor([0.1, 0.5, 0.9]).view(1, 3, 1, 1).expand(2, 3, 256, 256)
    y, _ = Colourless()(x)
    assert y.shape == (2, 1, 256, 256)
    assert_moments(y, *clipped_moments(0.5, 0.25))


def test_missing_pixels_are_missing_in_every_channel() -> None:
    y, _ = MissingPixels(noise=0.0)(torch.rand(4, 3, 128, 128) * 0.9 + 0.1)
    seen = y > 0
    assert torch.equal(seen[:, 0], seen[:, 1]) and torch.equal(seen[:, 0], seen[:, 2])
    assert not torch.equal(seen[0], seen[1])  # every image has its own
    count = seen[:, 0].numel()
    assert int(seen[:, 0].sum()) == pytest.approx(0.1 * count, abs=6 * math.sqrt(count * 0.09))


def test_there_is_noise_on_missing_pixels_too() -> None:
    y, _ = MissingPixels(missing=0.9)(constant(0.5, side=512))
    dark, seen = clipped_moments(0.0, 0.1), clipped_moments(0.5, 0.1)
    assert float(y.mean()) == pytest.approx(0.9 * dark[0] + 0.1 * seen[0], abs=2e-3)


def test_few_pixels_are_repeated_and_their_noise_is_drawn_before() -> None:
    y, _ = LowResolution()(constant(0.5))
    blocks = y.unfold(2, 8, 8).unfold(3, 8, 8)
    assert torch.equal(blocks, blocks[..., :1, :1].expand_as(blocks))
    assert_moments(y[:, :, ::8, ::8], 0.5, 0.05**2)


def test_the_downsampling_is_bicubic_and_antialiased() -> None:
    from PIL import Image

    x = torch.rand(1, 1, 32, 32)
    y, _ = LowResolution(noise=0.0)(x)
    picture = Image.fromarray(x[0, 0].numpy())  # floats
    expected = torch.from_numpy(np.array(picture.resize((4, 4), Image.Resampling.BICUBIC)))
    assert torch.allclose(y[0, 0, ::8, ::8], expected.clamp(0, 1), atol=1e-5)


ALL = [Noisy(), LowResolution(), MissingPixels(), Colourless()]


@pytest.mark.parametrize("degradation", ALL, ids=repr)
def test_a_generator_decides_and_two_calls_differ(degradation: Degradation) -> None:
    x = torch.rand(1, 3, 16, 16)
    drawn = [degradation(x, generator=torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    torch.manual_seed(0)
    first = degradation(x)[0]
    torch.manual_seed(0)
    assert torch.equal(first, degradation(x)[0])
    assert not torch.equal(first, degradation(x)[0])
    assert degradation(x.double())[0].dtype == torch.float64


@pytest.mark.parametrize("degradation", ALL, ids=repr)
def test_what_is_no_image_is_named(degradation: Degradation) -> None:
    for wrong, message in [
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), r"expected floats \[N, C, H, W\], got torch.uint8"),
        (torch.zeros(3, 8, 8), r"got torch.float32 \[3, 8, 8\]"),
        (torch.full((1, 3, 8, 8), 255.0), "got 255 to 255; divide 8-bit images by 255"),
        (torch.full((1, 3, 8, 8), -0.1), "got -0.1 to -0.1"),
        (torch.full((1, 3, 8, 8), math.nan), "got nan to nan"),
        (torch.zeros(0, 3, 8, 8), r"\[0, 3, 8, 8\]"),
    ]:
        with pytest.raises(InputError, match=f"{type(degradation).__name__}: .*{message}"):
            degradation(wrong)


def test_numbers_that_make_no_sense_are_named() -> None:
    with pytest.raises(InputError, match="Noisy: noise must be at least 0 and finite, got -1"):
        Noisy(noise=-1)
    with pytest.raises(InputError, match="MissingPixels: missing must be a fraction from 0, below 1, got 1"):
        MissingPixels(missing=1)
    with pytest.raises(InputError, match=r"scale must be an integer of at least 1, got 2\.5"):
        LowResolution(scale=2.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="images of 30x32 do not divide by scale 8; crop them"):
        LowResolution()(torch.zeros(1, 3, 30, 32))
