"""Distances of feature sets against SciPy, naive loops and closed forms."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import nn

from compressor.errors import FileError, InputError, MissingExtraError
from compressor.evaluation import (
    energy_distance,
    features_of,
    frechet_distance,
    kernel_distance,
    lpips,
    ssim,
)


def test_the_frechet_distance_by_scipy() -> None:
    a, b = torch.randn(200, 5) @ torch.randn(5, 5), torch.randn(150, 5) + 1
    first, second = a.double().numpy(), b.double().numpy()
    root = scipy.linalg.sqrtm(np.cov(first.T) @ np.cov(second.T)).real
    expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(
        np.cov(first.T) + np.cov(second.T) - 2 * root
    )
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


def test_the_kernel_distance_by_a_naive_loop() -> None:
    a, b = torch.randn(12, 3).double(), torch.randn(12, 3).double() + 0.5

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x @ y) / 3 + 1) ** 3

    n = len(a)
    within = sum(kernel(s[i], s[j]) for s in (a, b) for i in range(n) for j in range(n) if i != j)
    between = sum(kernel(x, y) for x in a for y in b)
    state = torch.get_rng_state()
    assert kernel_distance(a, b) == pytest.approx(within / (n * (n - 1)) - 2 * between / n**2, rel=1e-9)
    assert torch.equal(state, torch.get_rng_state())


def test_the_energy_distance_by_scipy_and_of_one_distribution() -> None:
    a, b = torch.randn(300), torch.randn(200) * 2
    expected = scipy.stats.energy_distance(a.numpy(), b.numpy()) ** 2
    assert energy_distance(a[:, None], b[:, None]) == pytest.approx(expected, rel=1e-5)
    same = energy_distance(torch.randn(1000, 1), torch.randn(1000, 1))
    # E|a - a'| = 2/√π for standard normals; the pairs of a point with itself are in the mean.
    assert same == pytest.approx(2 / math.sqrt(math.pi) * (2 / 1000), rel=1.0)


def test_ssim_is_that_of_its_formula_on_constant_images() -> None:
    a, b = torch.full((1, 1, 16, 16), 0.4), torch.full((1, 1, 16, 16), 0.6)
    c1 = 0.01**2
    assert ssim(a, b) == pytest.approx((2 * 0.24 + c1) / (0.16 + 0.36 + c1), abs=1e-6)
    assert ssim(255 * a, 255 * b, peak=255.0) == pytest.approx(ssim(a, b), abs=1e-6)


def test_features_come_from_eval_mode_and_modes_are_given_back() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    net[2].eval()
    found = features_of(net, torch.ones(5, 1, 2, 2), batch=2)
    assert found.dtype == torch.float64 and torch.allclose(found, torch.ones(5, 4).double(), atol=1e-4)
    assert net.training and net[1].training and not net[2].training
    assert int(net[1].num_batches_tracked) == 0


def test_lpips_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = torch.rand(1, 3, 32, 32)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"lpips needs torchvision.*pip install torchvision"):
        lpips(images, images)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileError, match=r"weights of alex are missing at .*alexnet-owt-7be5be79.pth"):
        lpips(images, images)
    with pytest.raises(InputError, match="one of alex, squeeze, vgg, got 'resnet'"):
        lpips(images, images, network="resnet")
    with pytest.raises(InputError, match="repeat a grey one three times"):
        lpips(images[:, :1], images[:, :1])


def test_torchmetrics_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("torchmetrics")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtraError, match=r"ssim needs torchmetrics.*pip install 'compressor\[metrics\]'"
    ):
        ssim(torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16))
    with pytest.raises(MissingExtraError, match="frechet_distance needs torchmetrics"):
        frechet_distance(torch.rand(3, 2), torch.rand(3, 2))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InputError, match=r"\[N, D\] and \[M, D\], got \[3, 2\] and \[3, 4\]"):
        frechet_distance(torch.rand(3, 2), torch.rand(3, 4))
    with pytest.raises(InputError, match="needs two rows, got 1 and 3"):
        kernel_distance(torch.rand(1, 2), torch.rand(3, 2))
    with pytest.raises(InputError, match="NaN or infinite"):
        energy_distance(torch.full((3, 2), math.nan), torch.rand(3, 2))
    with pytest.raises(InputError, match="sides of at least 11"):
        ssim(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))
    with pytest.raises(InputError, match="outputs hold NaN"):
        ssim(torch.full((1, 1, 16, 16), math.nan), torch.rand(1, 1, 16, 16))
    with pytest.raises(InputError, match=r"must return \[N, D\], got \[2, 1, 3, 3\]"):
        features_of(nn.Identity(), torch.rand(2, 1, 3, 3))


def test_peaks_and_batches_without_sense() -> None:
    images = torch.rand(1, 1, 16, 16)
    with pytest.raises(InputError, match="ssim: peak"):
        ssim(images, images, peak=0)
    with pytest.raises(InputError, match="batch is how many images"):
        features_of(nn.Flatten(), images, batch=0)


def test_a_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256)).train()
    before = net[1].running_mean.clone()
    features_of(net, torch.rand(4, 1, 16, 16))
    assert net.training and torch.equal(net[1].running_mean, before)
