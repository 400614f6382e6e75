"""The blind-face pipeline step by step: kernels in closed form, JPEG, what y and x share."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from compressor.data.images import BlindFace
from compressor.data.images.blind_face import gaussian_kernel, jpeg
from compressor.errors import InputError

# Every step off: no blur to speak of, the same size, no noise, the best JPEG.
PLAIN = {
    "kernel": 1,
    "sigma": (0.1, 0.1),
    "scale": (1.0, 1.0),
    "noise": (0.0, 0.0),
    "quality": (100.0, 100.0),
    "flipped": 0.0,
    "grey": 0.0,
}


def smooth(side: int = 64) -> Tensor:
    axis = torch.linspace(0, 1, side)
    return torch.stack((axis[:, None].expand(side, side), axis.expand(side, side), axis.outer(axis)))[None]


def second_moments(kernel: Tensor) -> Tensor:
    axis = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    weights = kernel.double()
    return torch.stack([(weights * a * b).sum() for a, b in ((x, x), (y, y), (x, y))])


@pytest.mark.parametrize("turn", [0.0, 0.6, -1.2])
def test_a_kernel_has_the_covariance_of_its_ellipse(turn: float) -> None:
    kernel = gaussian_kernel(41, sigmas=(4.0, 1.5), turn=turn)
    c, s = math.cos(turn), math.sin(turn)
    expected = torch.tensor(
        [c * c * 16 + s * s * 2.25, s * s * 16 + c * c * 2.25, c * s * (16 - 2.25)], dtype=torch.float64
    )
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert torch.allclose(second_moments(kernel), expected, atol=2e-2)


def test_with_every_step_off_only_jpeg_and_rounding_are_left() -> None:
    x = smooth()
    y, clean = BlindFace(**PLAIN)(x)  # type: ignore[arg-type]
    assert torch.equal(clean, x)
    assert float((y - x).abs().max()) < 4 / 255
    assert torch.equal((y * 255).round(), (y * 255).round().clamp(0, 255))


def test_noise_survives_in_the_size_it_was_drawn() -> None:
    options = PLAIN | {"noise": (20.0, 20.0)}
    y, x = BlindFace(**options)(torch.full((1, 1, 256, 256), 0.5))  # type: ignore[arg-type]
    assert float((y - x).std()) == pytest.approx(20 / 255, rel=0.03)


def test_blur_is_the_mean_of_a_neighbourhood() -> None:
    options = PLAIN | {"kernel": 9, "sigma": (1.0, 1.0), "isotropic": 1.0}
    x = torch.zeros(1, 1, 33, 33)
    x[0, 0, 16, 16] = 1.0
    y, _ = BlindFace(**options)(x)  # type: ignore[arg-type]
    assert float(y[0, 0, 16, 16]) == pytest.approx(float(gaussian_kernel(9, sigmas=(1, 1))[4, 4]), abs=0.02)


def test_fewer_pixels_lose_detail() -> None:
    x = torch.rand(1, 1, 64, 64)
    y, _ = BlindFace(**(PLAIN | {"scale": (8.0, 8.0)}))(x)  # type: ignore[arg-type]
    assert y.shape == x.shape
    steps = (y[..., 1:] - y[..., :-1]).abs().mean() / (x[..., 1:] - x[..., :-1]).abs().mean()
    assert float(steps) < 0.3


def test_flips_and_grey_go_to_both_images() -> None:
    x = smooth()
    y, clean = BlindFace(**(PLAIN | {"flipped": 1.0}))(x)  # type: ignore[arg-type]
    assert torch.equal(clean, x.flip(3)) and float((y - clean).abs().max()) < 4 / 255
    y, clean = BlindFace(**(PLAIN | {"grey": 1.0}))(x)  # type: ignore[arg-type]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    assert torch.allclose(clean, (weights * x).sum(1, keepdim=True).expand_as(x), atol=1e-6)
    assert float((y - clean).abs().max()) < 4 / 255
    assert torch.equal(y[:, 0], y[:, 2])


def test_probabilities_are_kept() -> None:
    x = smooth(16).expand(400, -1, -1, -1)
    _, clean = BlindFace(**(PLAIN | {"flipped": 0.5, "grey": 0.25}))(x)  # type: ignore[arg-type]
    grey = (clean[:, 0] == clean[:, 1]).flatten(1).all(1)
    flipped = clean[:, 1, 0, 0] > clean[:, 1, 0, -1]
    assert int(grey.sum()) == pytest.approx(100, abs=6 * math.sqrt(75))
    assert int((flipped & ~grey).sum()) == pytest.approx(150, abs=6 * math.sqrt(94))


def test_jpeg_of_low_quality_is_further_off() -> None:
    torch.manual_seed(0)
    x = torch.rand(3, 32, 32)
    errors = [float((jpeg(x, quality=quality) - x).square().mean()) for quality in (30, 60, 95)]
    assert errors[0] > errors[1] > errors[2] > 0
    grey = torch.rand(1, 16, 16)
    assert jpeg(grey, quality=100).shape == grey.shape


def test_a_generator_decides() -> None:
    x = torch.rand(2, 3, 48, 48)
    drawn = [BlindFace()(x, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][0], drawn[2][0])


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match="sides of more than 20 pixels"):
        BlindFace()(torch.zeros(1, 3, 16, 16))
    with pytest.raises(InputError, match="1 or 3 channels"):
        BlindFace(kernel=3)(torch.zeros(1, 4, 16, 16))
    with pytest.raises(InputError, match="odd number of pixels, got 40"):
        BlindFace(kernel=40)
    with pytest.raises(InputError, match="quality must be a range"):
        BlindFace(quality=(30, 101))
    with pytest.raises(InputError, match="sigma must be a range"):
        BlindFace(sigma=(2, 1))
    with pytest.raises(InputError, match="grey must be a probability"):
        BlindFace(grey=1.5)
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        BlindFace(kernel=3)(torch.full((1, 3, 16, 16), 2.0))
