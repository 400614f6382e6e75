from __future__ import annotations

import math

import pytest
import torch

from compressor.errors import InputError
from compressor.filters import FilterBank, kernel_matrix


@pytest.mark.parametrize("size", [(3,), (3, 3), (5, 1), (3, 3, 3)])
def test_a_row_is_one_kernel(size: tuple[int, ...]) -> None:
    weight = torch.randn(4, 3, *size)
    bank = FilterBank(weight, "conv")
    assert bank.kernel_size == size
    assert bank.count == 12
    assert torch.equal(bank.kernels[3 * 2 + 1], weight[2, 1].flatten())
    assert torch.equal(kernel_matrix(weight), bank.kernels)


def test_a_bank_keeps_the_storage_and_leaves_the_gradient_behind() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    bank = FilterBank(weight, "conv")
    assert bank.kernels.data_ptr() == weight.data_ptr()
    assert not bank.weight.requires_grad


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_named(value: float) -> None:
    weight = torch.zeros(2, 2, 3, 3)
    weight[1, 0, 2, 1] = value
    with pytest.raises(InputError, match=r"net: conv1 holds 1 value .* first at \[1, 0, 2, 1\]"):
        FilterBank(weight, "conv1", model="net")


def test_infinities_of_both_signs_do_not_cancel() -> None:
    with pytest.raises(InputError, match="2 values"):
        kernel_matrix(torch.tensor([[[math.inf, -math.inf]]]))


def test_large_finite_weights_are_fine() -> None:
    assert kernel_matrix(torch.full((2, 2, 3), 3e38)).shape == (4, 3)
    assert kernel_matrix(torch.full((2, 2, 3), 1.7e308, dtype=torch.float64)).shape == (4, 3)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.zeros(4, 3), r"\[4, 3\]"),
        (torch.zeros(0, 3, 3, 3), "empty"),
        (torch.zeros(4, 3, 3, 3, dtype=torch.int8), "int8"),
        (torch.zeros(4, 3, 3, 3, device="meta"), "meta device"),
        ([[1.0]], "got list"),
    ],
)
def test_what_is_no_bank_is_refused(weight: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FilterBank(weight, "conv")  # type: ignore[arg-type]


def test_groups_divide_the_filters() -> None:
    with pytest.raises(InputError, match="4 filters do not make 3 groups"):
        FilterBank(torch.zeros(4, 1, 3, 3), "conv", groups=3)
