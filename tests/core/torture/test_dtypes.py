"""Types of numbers: complex spectra, halves, integers and masks beside the channels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply
from tests.core.driver import Case, Net, assert_case, assert_prunes_exactly, case, masks

IMAGE = (2, 3, 6, 8)


def filtered(body: Any, **parts: Any) -> Any:
    """Features of 8 channels through a filter between two convolutions."""
    return lambda: Net(
        lambda m, x: m.head(body(m, torch.relu(m.stem(x)))),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
        **{name: make() for name, make in parts.items()},
    )


def global_filter(m: Any, y: Tensor) -> Tensor:
    """GFNet: a learned filter of complex numbers, held as pairs of real ones."""
    spectrum = torch.fft.rfft2(y, norm="ortho") * torch.view_as_complex(m.filter)
    return torch.fft.irfft2(spectrum, s=y.shape[2:], norm="ortho")


def fourier_unit(m: Any, y: Tensor) -> Tensor:
    """Fast Fourier convolution: real and imaginary parts side by side among the channels."""
    f = torch.fft.rfftn(y, dim=(-2, -1), norm="ortho")
    f = torch.cat([f.real, f.imag], 1)
    real, imaginary = torch.relu(m.mix(f)).chunk(2, 1)
    return torch.fft.irfftn(torch.complex(real, imaginary), s=y.shape[2:], dim=(-2, -1), norm="ortho")


def stacked_parts(m: Any, y: Tensor) -> Tensor:
    """The same with parts in an axis of their own, folded into the channels."""
    h, w = y.shape[2:]
    f = torch.view_as_real(torch.fft.rfft2(y)).permute(0, 1, 4, 2, 3).contiguous()
    f = torch.relu(m.mix(f.flatten(1, 2))).unflatten(1, (-1, 2))
    return torch.fft.irfft2(torch.view_as_complex(f.permute(0, 1, 3, 4, 2).contiguous()), s=(h, w))


def mixing_tokens(m: Any, y: Tensor) -> Tensor:
    """FNet, along positions only."""
    return y + torch.fft.fft(y.flatten(2), dim=-1).real.view(y.shape)


def spectrum_over_channels(m: Any, y: Tensor) -> Tensor:
    return y + torch.fft.fft(y, dim=1).real


def complex_weight(m: Any, y: Tensor) -> Tensor:
    """A spectral convolution (Li et al. 2020): modes mixed by a complex tensor."""
    f = torch.fft.rfft2(y)
    out = torch.zeros(f.shape[0], m.modes.shape[1], *f.shape[2:], dtype=f.dtype)
    out[:, :, :3, :2] = torch.einsum("bixy,ioxy->boxy", f[:, :, :3, :2], m.modes)
    return torch.fft.irfft2(out, s=y.shape[2:])


def rotated(m: Any, y: Tensor) -> Tensor:
    """Every channel turned by an angle of its own."""
    turn = torch.polar(torch.ones_like(m.angle), m.angle)
    return (torch.complex(y, y) * turn[:, None, None]).real


def magnitude(m: Any, y: Tensor) -> Tensor:
    f = torch.fft.fftshift(torch.fft.fft2(y), dim=(-2, -1))
    return torch.log1p(f.abs()) + f.angle()


def conjugated(m: Any, y: Tensor) -> Tensor:
    f = torch.fft.rfft(y)
    return torch.fft.irfft(f * f.conj(), n=y.shape[-1])


def hermitian(m: Any, y: Tensor) -> Tensor:
    return torch.fft.hfft(torch.fft.ihfft(y), n=y.shape[-1])


def spectrogram(m: Any, x: Tensor) -> Tensor:
    """Audio: a short-time Fourier transform of the input."""
    f = torch.stft(x, 8, 4, window=torch.hann_window(8, dtype=x.dtype), return_complex=True)
    return m.head(torch.relu(m.stem(f.abs())))


CASES = [
    case(
        "global filter",
        filtered(global_filter, filter=lambda: nn.Parameter(torch.randn(8, 6, 5, 2))),
        IMAGE,
        free=8,
    ),
    # real and imaginary parts of 8 channels among the 16
    case("Fourier unit", filtered(fourier_unit, mix=lambda: nn.Conv2d(16, 16, 1)), IMAGE, free=16),
    case(
        "parts in an axis of their own",
        filtered(stacked_parts, mix=lambda: nn.Conv2d(16, 16, 1)),
        IMAGE,
        free=16,
    ),
    case("mixing tokens", filtered(mixing_tokens), IMAGE, free=8),
    case(
        "spectral convolution",
        filtered(complex_weight, modes=lambda: nn.Parameter(torch.randn(8, 8, 3, 2, dtype=torch.cfloat))),
        IMAGE,
        free=16,
    ),
    case("channels turned", filtered(rotated, angle=lambda: nn.Parameter(torch.randn(8))), IMAGE, free=8),
    case("magnitude and phase", filtered(magnitude), IMAGE, free=8),
    case("power", filtered(conjugated), IMAGE, free=8),
    case("hermitian", filtered(hermitian), IMAGE, free=8),
    case(
        "spectrogram",
        lambda: Net(spectrogram, stem=nn.Conv1d(5, 8, 1), head=nn.Conv1d(8, 2, 1)),
        (2, 32),
        free=8,
    ),
    case(
        "complex layers",
        lambda: nn.Sequential(nn.Linear(5, 8, dtype=torch.cfloat), nn.Linear(8, 2, dtype=torch.cfloat)),
        torch.randn(3, 5, dtype=torch.cfloat),
        free=8,
        second_batch=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)


def test_a_spectrum_over_the_channels_pins_them() -> None:
    graph = capture(filtered(spectrum_over_channels)(), torch.randn(IMAGE))
    assert graph.n_units == 0
    assert "a Fourier transform" in graph.explain("stem.weight")


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(48, 2)
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_halves_and_doubles(dtype: torch.dtype) -> None:
    model = network().to(dtype)
    graph = assert_prunes_exactly(model, torch.randn(IMAGE).to(dtype), free=14, second_batch=False)
    assert {p.dtype for p in apply(model, graph.plan(next(masks(graph)))).parameters()} == {dtype}


def test_types_that_change_on_the_way() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = m.stem(x).to(torch.bfloat16).relu()
        y = F.softmax(m.body(y.to(m.body.weight.dtype)), dim=-1, dtype=torch.float32)
        return m.head(y.type_as(m.head.weight))

    parts = {"stem": nn.Conv2d(3, 8, 1), "body": nn.Conv2d(8, 6, 1), "head": nn.Conv2d(6, 2, 1)}
    assert_prunes_exactly(Net(forward, **parts), torch.randn(IMAGE), free=14, second_batch=False)


def test_under_autocast() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            y = m.body(torch.relu(m.stem(x)))
        return m.head(y.float())

    model = Net(forward, stem=nn.Conv2d(3, 8, 1), body=nn.Conv2d(8, 6, 1), head=nn.Conv2d(6, 2, 1))
    graph = capture(model, torch.randn(IMAGE))
    assert graph.n_units == 14


def test_a_capture_under_autocast_is_the_same() -> None:
    model, x = network(), torch.randn(IMAGE)
    with torch.autocast("cpu", torch.bfloat16):
        inside = capture(model, x)
    assert inside.n_units == capture(model, x).n_units == 14


def test_masks_and_indices_beside_the_channels() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.relu(m.stem(x))
        far = (torch.arange(y.shape[-1]) > 3) & ~(x.sum(1, keepdim=True) > 0)
        bits = (x[:, :1] > 0).int() ^ 1 | 2
        return m.head(torch.where(far, y, y * 0.5) * bits)

    model = Net(forward, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1))
    assert_prunes_exactly(model, torch.randn(IMAGE), free=8)
