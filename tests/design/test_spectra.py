"""Spectra of what layers write, against NumPy on matrices that are put together by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.design import ActivationSpectra, FilterSpectra
from compressor.errors import InputError

Array = npt.NDArray[np.float64]


def squared_singular(matrix: Tensor) -> Array:
    return np.linalg.svd(matrix.double().numpy(), compute_uv=False) ** 2


def assert_spectrum(found: Tensor, matrix: Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), squared_singular(matrix), rtol=1e-6, atol=1e-9)


def scrambled(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for tensor in (*net.parameters(), *net.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand(tensor.shape, generator=generator) + 0.1
    return net.eval()


def two_layers(norm: nn.Module | None = None) -> nn.Module:
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, bias=False), norm or nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3)),
        *(nn.ReLU(), nn.Flatten(), nn.Linear(64, 2)),
    )
    return scrambled(net)


def weight_of(net: nn.Module, name: str) -> Tensor:
    return net.get_parameter(f"{name}.weight").detach()


X = torch.ones(1, 3, 8, 8)


def test_a_filter_matrix_is_scaled_by_the_norm_behind_it() -> None:
    net = two_layers()
    first, second = FilterSpectra(dead=0.0).of(cp.capture(net, X))
    assert (first.tensor, first.rows, first.alive) == ("0.weight", 6, 6)
    assert (second.tensor, second.rows) == ("3.weight", 4)
    scale = weight_of(net, "1") / (net.get_buffer("1.running_var") + 1e-5).sqrt()
    assert_spectrum(first.spectrum, weight_of(net, "0").flatten(1) * scale[:, None])
    assert_spectrum(second.spectrum, weight_of(net, "3").flatten(1))


def test_folding_can_be_left_out() -> None:
    net = two_layers()
    first, _ = FilterSpectra(fold_batch_norm=False).of(cp.capture(net, X))
    assert_spectrum(first.spectrum, weight_of(net, "0").flatten(1))


class ReadTwice(nn.Module):
    """What the convolution writes is read by the norm and by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return self.out(F.relu(self.norm(y) + y))


class CalledTwice(nn.Module):
    """One convolution, and a norm behind each of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 2, 1)
        self.first, self.second = nn.BatchNorm2d(6), nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Any:
        return self.out(F.relu(self.first(self.conv(x)) + self.second(self.conv(2 * x))))


@pytest.mark.parametrize("kind", [ReadTwice, CalledTwice])
def test_a_norm_is_not_folded_where_it_is_not_the_only_reader(kind: type[nn.Module]) -> None:
    net = scrambled(kind())
    (found,) = FilterSpectra().of(cp.capture(net, X))
    assert_spectrum(found.spectrum, weight_of(net, "conv").flatten(1))


def test_a_norm_without_running_statistics_is_not_folded() -> None:
    net = two_layers(nn.BatchNorm2d(6, track_running_stats=False))
    first, _ = FilterSpectra().of(cp.capture(net, torch.ones(2, 3, 8, 8)))
    assert_spectrum(first.spectrum, weight_of(net, "0").flatten(1))


def test_filters_that_a_norm_silences_are_dead() -> None:
    net = two_layers()
    weight_of(net, "1")[2:] = 0
    first, _ = FilterSpectra().of(cp.capture(net, X))
    assert (first.rows, first.alive, len(first.spectrum)) == (6, 2, 2)


def test_a_layer_of_zeros_has_no_direction() -> None:
    net = two_layers()
    weight_of(net, "0").zero_()
    first, _ = FilterSpectra().of(cp.capture(net, X))
    assert (first.alive, len(first.spectrum)) == (0, 0)


def test_a_depthwise_convolution_has_no_spectrum() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 1))
    (found,) = FilterSpectra().of(cp.capture(scrambled(net), X))
    assert found.tensor == "0.weight"


def test_groups_of_a_convolution_are_matrices_of_their_own() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Conv2d(6, 4, 1, groups=2)))
    found = FilterSpectra().of(cp.capture(net, torch.ones(1, 4, 8, 8)))
    assert [(s.tensor, s.rows) for s in found] == [("0.weight", 3), ("0.weight", 3)]
    parts = sorted(weight_of(net, "0").split(3), key=lambda part: squared_singular(part.flatten(1))[0])
    ordered = sorted(found, key=lambda spectrum: float(spectrum.spectrum[0]))
    for part, spectrum in zip(parts, ordered, strict=True):
        assert_spectrum(spectrum.spectrum, part.flatten(1))


def test_a_transposed_convolution_writes_along_its_second_axis() -> None:
    net = scrambled(nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.ReLU(), nn.Conv2d(5, 2, 1)))
    (found,) = FilterSpectra().of(cp.capture(net, X))
    assert_spectrum(found.spectrum, weight_of(net, "0").transpose(0, 1).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Any:
        return self.out(self.lstm(x)[0][:, -1])


def test_the_gates_of_a_hidden_unit_are_one_row() -> None:
    net = scrambled(Recurrent())
    found = {s.tensor: s for s in FilterSpectra().of(cp.capture(net, torch.ones(2, 4, 3)))}
    rows = net.get_parameter("lstm.weight_ih_l0").detach().view(4, 5, 3).transpose(0, 1).flatten(1)
    assert found["lstm.weight_ih_l0"].rows == 5
    assert_spectrum(found["lstm.weight_ih_l0"].spectrum, rows)


class Shuffled(nn.Module):
    """Four channels of the first convolution make one of what the second reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Any:
        return self.out(F.pixel_shuffle(self.norm(self.conv(x)), 2))


def test_channels_that_go_together_are_one_row_each_with_its_scale() -> None:
    net = scrambled(Shuffled())
    (found,) = FilterSpectra(dead=0.0).of(cp.capture(net, X))
    scale = weight_of(net, "norm") / (net.get_buffer("norm.running_var") + 1e-5).sqrt()
    assert found.rows == 6
    assert_spectrum(found.spectrum, (weight_of(net, "conv").flatten(1) * scale[:, None]).reshape(6, -1))


@pytest.mark.parametrize("shape", [(40, 3), (3, 40)])
def test_large_weights_are_taken_in_parts(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compressor.design.spectra._AT_ONCE", 20)
    net = scrambled(nn.Sequential(nn.Linear(shape[1], shape[0]), nn.ReLU(), nn.Linear(shape[0], 2)))
    (found,) = FilterSpectra(dead=0.0).of(cp.capture(net, torch.ones(1, shape[1])))
    assert_spectrum(found.spectrum, weight_of(net, "0"))


def test_weights_that_are_not_finite_are_named() -> None:
    net = two_layers()
    graph = cp.capture(net, X)
    weight_of(net, "3")[1, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"3\.weight"):
        FilterSpectra().of(graph)


def test_activations_have_the_spectrum_of_their_covariance() -> None:
    net = two_layers()
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randn(4, 3, 8, 8, generator=generator) for _ in range(2)]
    first, second = ActivationSpectra(batches, dead=0.0).of(cp.capture(net, batches[0]))
    layers = list(net.children())
    with torch.no_grad():
        written = layers[1](layers[0](torch.cat(batches)))  # behind the norm
        further = layers[3](F.relu(written))
    for spectrum, values in ((first, written), (second, further)):
        expected = np.linalg.eigvalsh(np.cov(values.movedim(1, 0).flatten(1).double().numpy()))[::-1]
        np.testing.assert_allclose(spectrum.spectrum.numpy(), expected, rtol=1e-4, atol=1e-4 * expected[0])


def test_channels_that_never_move_are_dead() -> None:
    net = two_layers()
    weight_of(net, "0")[4] = 0
    first, _ = ActivationSpectra([torch.randn(2, 3, 8, 8)]).of(cp.capture(net, X))
    assert (first.rows, first.alive) == (6, 5)


def test_activations_without_batches_are_refused() -> None:
    with pytest.raises(InputError, match="no batch"):
        ActivationSpectra([]).of(cp.capture(two_layers(), X))


@pytest.mark.parametrize("dead", [-0.1, 1.0, True])
def test_a_share_that_is_none_is_refused(dead: float) -> None:
    with pytest.raises(InputError, match="dead"):
        FilterSpectra(dead=dead)
    with pytest.raises(InputError, match="dead"):
        ActivationSpectra([], dead=dead)
