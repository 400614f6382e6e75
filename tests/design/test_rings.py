"""Rings of kernels of one, two and three dimensions, odd and even, against masks made by hand."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from compressor.design.rings import centre, cropped_size, energy_outside, n_rings
from compressor.errors import InputError


@pytest.mark.parametrize("size", [(7,), (5, 5), (3, 3, 3), (4, 4), (5, 3), (1, 7), (6, 2)])
def test_the_energy_outside_is_that_of_a_loop_over_places(size: tuple[int, ...]) -> None:
    weight = torch.randn(3, 2, *size, generator=torch.Generator().manual_seed(0))
    for rings in range(n_rings(size) + 1):
        outside = 0.0
        places: Any = itertools.product(*map(range, size))
        for place in places:
            # Of each side as many places go on the left and right as it has, up to `rings`.
            gone = [min(rings, (n - 1) // 2) for n in size]
            if any(i < g or i >= n - g for i, g, n in zip(place, gone, size, strict=True)):
                outside += float(weight[(slice(None), slice(None), *place)].double().square().sum())
        expected = outside / float(weight.double().square().sum())
        assert energy_outside(weight, rings) == pytest.approx(expected, abs=1e-12)
        assert centre(weight, rings).shape[2:] == cropped_size(size, rings)


def test_kernels_of_one_place_have_no_rings() -> None:
    assert n_rings((1, 1)) == n_rings((2,)) == 0
    assert energy_outside(torch.randn(2, 2, 1, 1), 1) == 0


def test_a_weight_of_zeros_has_nothing_outside() -> None:
    assert energy_outside(torch.zeros(2, 2, 3, 3), 1) == 0


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        energy_outside(torch.full((1, 1, 3, 3), float("nan")), 1)


@pytest.mark.parametrize("rings", [-1, True])
def test_a_number_of_rings_that_is_none_is_refused(rings: int) -> None:
    with pytest.raises(InputError, match="outer rings"):
        cropped_size((3, 3), rings)
