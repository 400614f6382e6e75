from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from compressor.errors import InputError
from compressor.evaluation import mae, mse, psnr, psnr_of_each


def test_psnr_is_the_mean_over_images_as_torchmetrics_has_it() -> None:
    outputs, targets = torch.rand(5, 3, 8, 9), torch.rand(5, 3, 8, 9)
    outputs[0] = targets[0] + 1e-3  # one image far better than the others
    each = [
        float(peak_signal_noise_ratio(x, y, data_range=1.0)) for x, y in zip(outputs, targets, strict=True)
    ]
    assert psnr_of_each(outputs, targets).tolist() == pytest.approx(each, abs=1e-4)
    assert psnr(outputs, targets) == pytest.approx(sum(each) / 5, abs=1e-4)
    whole = -10 * math.log10(mse(outputs, targets))
    assert psnr(outputs, targets) > whole + 1


def test_bytes_do_not_wrap_around() -> None:
    outputs, targets = torch.full((1, 1, 2, 2), 250, dtype=torch.uint8), torch.zeros(1, 1, 2, 2).byte()
    assert mse(outputs, targets) == 62_500
    assert mae(targets, outputs) == 250
    assert psnr(outputs, targets, peak=255) == pytest.approx(20 * math.log10(255 / 250))


def test_an_image_without_error_is_infinitely_good() -> None:
    x = torch.rand(2, 1, 4, 4)
    assert psnr(x, x) == math.inf


@pytest.mark.parametrize("metric", [mse, mae, psnr])
@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4), r"\[2, 1, 4, 4\] and \[2, 3, 4, 4\]"),
        (torch.zeros(0, 1, 4, 4), torch.zeros(0, 1, 4, 4), r"expected images \[N, ...\]"),
        (torch.full((2, 1, 4, 4), math.nan), torch.zeros(2, 1, 4, 4), "2 of 2 images hold NaN"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    metric: Callable[[Tensor, Tensor], float], outputs: Tensor, targets: Tensor, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        metric(outputs, targets)


def test_a_peak_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="peak is the largest value"):
        psnr(torch.zeros(1, 2), torch.ones(1, 2), peak=0)
