"""How far restored images are from the clean ones: MSE, MAE and PSNR of a whole split."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["check_peak", "mae", "mse", "psnr", "psnr_of_each"]


def mse(outputs: Tensor, targets: Tensor) -> float:
    """The mean squared difference of outputs and targets of one shape [N, ...].

    For `training.Validation(batches=..., metric=mse, larger_is_better=False)`, like the others here. Raises
    InputError for two shapes, no images, or values that are not finite.

    >>> mse(torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5))
    0.25
    """
    return float(_difference("mse", outputs, targets).square().mean())


def mae(outputs: Tensor, targets: Tensor) -> float:
    """The mean absolute difference of outputs and targets of one shape [N, ...].

    >>> mae(torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.5))
    0.5
    """
    return float(_difference("mae", outputs, targets).abs().mean())


def psnr(outputs: Tensor, targets: Tensor, *, peak: float = 1.0) -> float:
    """The peak signal-to-noise ratio in dB: the mean over images of each image's own.

    That is how super-resolution reports it; 10 · log10(peak² / `mse`) of a whole set is another, smaller
    number. An image without any error makes it infinite.

    >>> round(psnr(torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 0.1)), 3)
    20.0
    """
    return float(psnr_of_each(outputs, targets, peak=peak).mean())


def psnr_of_each(outputs: Tensor, targets: Tensor, *, peak: float = 1.0) -> Tensor:
    """The PSNR of every image in dB, float64 [N], with all its channels, pixels and frames in one mean.

    >>> psnr_of_each(torch.zeros(2, 1, 4, 4), torch.tensor([0.1, 0.01]).view(2, 1, 1, 1).expand(2, 1, 4, 4))
    tensor([20.0000, 40.0000], dtype=torch.float64)
    """
    check_peak("psnr", peak)
    errors = _difference("psnr", outputs, targets).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / errors)


def check_peak(who: str, peak: float) -> None:
    """Raise InputError for what is no largest value of an image."""
    if not (math.isfinite(peak) and peak > 0):
        raise InputError(f"{who}: peak is the largest value an image can have, 1.0 or 255, got {peak!r}")


def _difference(name: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """The difference in float64: squares of uint8 would overflow, float32 sums drift."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"{name}: outputs and targets must have one shape, got {list(outputs.shape)} and "
            f"{list(targets.shape)}"
        )
    if outputs.ndim < 2 or outputs.numel() == 0:
        raise InputError(f"{name}: expected images [N, ...], got {list(outputs.shape)}")
    difference = outputs.double() - targets.double()
    bad = int((~torch.isfinite(difference)).flatten(1).any(1).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {len(difference)} images hold NaN or infinite values")
    return difference
