"""DCT against SciPy, Gabor against its formula written out pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from compressor.design import DCT, Gabor, cosines, dct_kernels, each, equal, gabor_kernel, initialise_
from compressor.errors import InputError


@pytest.mark.parametrize("size", [(8,), (3, 3), (5, 5), (3, 7), (4, 1), (2, 3, 4)])
def test_kernels_are_scipys_inverse_transform_of_unit_spectra(size: tuple[int, ...]) -> None:
    spectra = np.eye(math.prod(size)).reshape(-1, *size)
    theirs = np.stack([scipy.fft.idctn(one, norm="ortho") for one in spectra])
    order = np.argsort(np.indices(size).sum(axis=0).ravel(), kind="stable")
    np.testing.assert_allclose(dct_kernels(size).numpy(), theirs[order], atol=1e-14)


@pytest.mark.parametrize("size", [(5,), (3, 3), (6, 4), (2, 3, 4)])
def test_kernels_are_orthonormal(size: tuple[int, ...]) -> None:
    rows = dct_kernels(size).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_mixes_are_orthonormal(channels: int) -> None:
    for mixes in (cosines, each):
        rows = mixes(channels)
        torch.testing.assert_close(
            rows @ rows.T, torch.eye(channels, dtype=torch.float64), atol=1e-14, rtol=0
        )
    assert float(equal(channels).norm()) == pytest.approx(1)
    torch.testing.assert_close(equal(channels)[0], cosines(channels)[0])


def test_all_dct_filters_are_an_orthonormal_basis() -> None:
    conv = nn.Conv2d(3, 27, 3).double()
    initialise_(conv, DCT(1.0))
    rows = conv.weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(27, dtype=torch.float64), atol=1e-12, rtol=0)


def test_dct_filters_read_brightness_first_then_colours() -> None:
    conv = nn.Conv2d(3, 12, 3)
    initialise_(conv, DCT())
    by_channel = conv.weight.detach().sum(dim=1).flatten(1).norm(dim=1)
    assert bool((by_channel[:9] > 1).all()) and float(by_channel[9:].max()) < 1e-6
    assert torch.allclose(conv.weight[0], conv.weight[0, 0, 0, 0].expand(3, 3, 3))


def test_dct_on_each_channel_and_on_a_mask() -> None:
    conv = nn.Conv2d(2, 20, 3)
    before = conv.weight.detach().clone()
    flags = torch.arange(20) < 12
    initialise_(conv, DCT(1.0, channels=each), filters=flags)
    torch.testing.assert_close(conv.weight[:9, 0].detach().double(), dct_kernels((3, 3)))
    assert not conv.weight[:9, 1].any() and not conv.weight[9:12, 0].any()
    assert torch.equal(conv.weight[12:], before[12:])


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 6, 8),
        nn.Conv3d(1, 8, 3),
        nn.Linear(6, 6),
        nn.Conv2d(4, 4, 1),
        nn.ConvTranspose2d(2, 6, 4),
    ],
)
def test_dct_takes_any_kernel(layer: nn.Module) -> None:
    initialise_(layer, DCT(1.0))
    weight = layer.weight.detach()
    rows = (weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_more_dct_filters_than_there_are_raise() -> None:
    with pytest.raises(
        InputError, match="takes 28 filters, and there are 27: 9 kernels on 3 mixes of 3 channels"
    ):
        initialise_(nn.Conv2d(3, 28, 3), DCT())
    with pytest.raises(InputError, match="there are 9"):
        initialise_(nn.Conv2d(3, 10, 3), DCT(channels=equal))


def test_groups_get_the_same_bank() -> None:
    conv = nn.Conv2d(4, 8, 3, groups=4)
    initialise_(conv, DCT())
    for group in range(1, 4):
        assert torch.equal(conv.weight[2 * group : 2 * group + 2], conv.weight[:2])


@pytest.mark.parametrize("size", [(5, 5), (4, 7)])
def test_a_gabor_kernel_is_its_formula(size: tuple[int, int]) -> None:
    wave, theta, phase, sigma, aspect = 3.5, 0.7, 0.4, 1.3, 0.6
    kernel = gabor_kernel(
        size, wavelength_px=wave, orientation_rad=theta, phase_rad=phase, sigma_px=sigma, aspect=aspect
    )
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = column - (size[1] - 1) / 2, row - (size[0] - 1) / 2
            xr = x * math.cos(theta) + y * math.sin(theta)
            yr = -x * math.sin(theta) + y * math.cos(theta)
            expected = math.exp(-(xr**2 + aspect**2 * yr**2) / (2 * sigma**2)) * math.cos(
                2 * math.pi * xr / wave + phase
            )
            assert float(kernel[row, column]) == pytest.approx(expected, abs=1e-14)


def test_the_default_width_is_one_octave() -> None:
    """Half of the amplitude of the spectrum at frequencies one octave apart."""
    wave = 16.0
    kernel = gabor_kernel((513,), wavelength_px=wave, phase_rad=0.0)
    spectrum = torch.fft.rfft(kernel).abs()
    above = (spectrum >= spectrum.max() / 2).nonzero()[:, 0]
    assert math.log2(float(above[-1]) / float(above[0])) == pytest.approx(1, abs=0.1)


def test_gabor_filters_are_of_one_norm_without_mean_in_even_orientations() -> None:
    conv = nn.Conv2d(3, 16, 7)
    initialise_(conv, Gabor(1.0))
    weight = conv.weight.detach()
    torch.testing.assert_close(weight.flatten(1).norm(dim=1), torch.ones(16))
    assert float(weight.sum(dim=(2, 3)).abs().max()) < 1e-6
    torch.testing.assert_close(weight[:, 0], weight[:, 2])  # brightness
    # 2 wavelengths x 2 phases x 4 orientations; the first and third are a quarter turn apart.
    torch.testing.assert_close(weight[2, 0], weight[0, 0].rot90(1, (0, 1)), atol=1e-5, rtol=0)
    # Even filters are symmetric through the middle, odd ones change sign.
    torch.testing.assert_close(weight[:4].flip(2, 3), weight[:4], atol=1e-5, rtol=0)
    torch.testing.assert_close(weight[4:8].flip(2, 3), -weight[4:8], atol=1e-5, rtol=0)


def test_gabor_filters_are_all_different() -> None:
    conv = nn.Conv2d(1, 30, 5)
    initialise_(conv, Gabor(1.0))
    rows = conv.weight.detach().flatten(1)
    alike = (rows @ rows.T - torch.eye(30)).max()
    assert float(alike) < 0.999


def test_gabor_waves_of_one_dimension() -> None:
    conv = nn.Conv1d(2, 4, 9)
    initialise_(conv, Gabor(1.0))
    torch.testing.assert_close(conv.weight[0, 0], conv.weight[0, 0].flip(0))
    with pytest.raises(InputError, match="takes 5 filters, and there are 4"):
        initialise_(nn.Conv1d(2, 5, 9), Gabor())


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, (1, 3)), nn.Conv3d(3, 4, 3), nn.Linear(3, 4)]
)
def test_gabor_needs_kernels_with_an_extent(layer: nn.Module) -> None:
    with pytest.raises(InputError, match="expected one or two axes of 3 or more"):
        initialise_(layer, Gabor())


def test_bad_gabor_options_are_refused() -> None:
    with pytest.raises(InputError, match="waves are 2 pixels long or longer"):
        Gabor(wavelengths_px=(1.5,))
    with pytest.raises(InputError, match="orientations"):
        Gabor(orientations=0)
    with pytest.raises(InputError, match="takes 16 filters, and there are 8"):
        initialise_(nn.Conv2d(3, 16, 3), Gabor(orientations=4))
    with pytest.raises(InputError, match="one or two dimensions, got 3"):
        gabor_kernel((3, 3, 3), wavelength_px=3.0)
