from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.filters import FilterBank, Phenotype, report_of
from compressor.filters.basis import Basis
from compressor.filters.drift import drift, pooled_basis


def _bank(name: str, *shape: int, smooth: float = 0.0) -> FilterBank:
    """Random kernels, with a share of a constant in each."""
    weight = torch.randn(*shape)
    return FilterBank(weight + smooth * torch.randn(*shape[:2], *[1] * len(shape[2:])), name)


def _pooled(banks: list[FilterBank]) -> Tensor:
    return torch.cat([bank.kernels for bank in banks])


def test_each_layer_is_compared_with_the_others_in_the_basis_of_all() -> None:
    found = [_bank(f"conv{i}", 32, 16, 3, 3, smooth=0.2 * i) for i in range(5)]
    made = report_of(found)
    assert made.standing is not None
    assert made.standing.kernel_size == (3, 3) and made.standing.reference == "the other layers"
    basis = pooled_basis(bank.kernels for bank in found)
    assert made.standing.basis.identity == basis.identity
    for place, layer in enumerate(made.layers):
        others = _pooled([bank for bank in found if bank is not found[place]])
        expected = drift(found[place], others, basis=basis)
        assert layer.drift is not None
        assert layer.drift.value == pytest.approx(expected.value, rel=1e-12)
        assert layer.drift.counts == (512, 4 * 512)


def test_a_reference_and_a_basis_can_be_given() -> None:
    found, other = [_bank("conv", 32, 16, 3, 3)], [_bank("theirs", 64, 16, 3, 3, smooth=2)]
    made = report_of(found, reference=other)
    assert made.standing is not None
    assert made.standing.basis.identity == pooled_basis([other[0].kernels]).identity
    cosines = Basis.cosines((3, 3))
    told = report_of(found, basis=cosines, reference=iter(other))
    assert told.standing is not None and told.standing.basis is cosines
    expected = drift(found[0], other[0], basis=cosines)
    assert told.layers[0].drift is not None
    assert told.layers[0].drift.value == pytest.approx(expected.value, rel=1e-12)
    assert told.layers[0].drift.above_noise
    assert cosines.identity in str(told) and "those of the reference" in str(told)
    assert told.to_dict()["basis"]["identity"] == cosines.identity
    json.dumps(told.to_dict(), allow_nan=False)


def test_the_basis_is_of_the_size_that_most_kernels_have_and_others_stand_apart() -> None:
    found = [
        _bank("stem", 8, 3, 7, 7),
        _bank("wide", 32, 16, 3, 3),
        _bank("narrow", 32, 16, 3, 3),
        _bank("point", 64, 64, 1, 1),
    ]
    made = report_of(found)
    assert made.standing is not None and made.standing.kernel_size == (3, 3)
    assert [layer.drift is not None for layer in made.layers] == [False, True, True, False]
    assert [layer.histogram is not None for layer in made.layers] == [False, True, True, False]
    by_width = report_of(found, basis=Basis.cosines((7, 7)))
    assert by_width.standing is not None and by_width.standing.kernel_size == (7, 7)


def test_kernels_without_shapes_have_no_basis() -> None:
    for weight in (torch.randn(8, 4, 1, 1), torch.zeros(8, 4, 3, 3), torch.ones(8, 4, 3, 3)):
        made = report_of([FilterBank(weight, "conv")])
        assert made.standing is None and made.layers[0].drift is None and made.layers[0].phenotype is None
        assert "D:" not in str(made) and made.to_dict()["basis"] is None


def test_a_single_layer_and_a_layer_of_zeros_have_nothing_to_be_compared_with() -> None:
    (layer,) = report_of([_bank("conv", 16, 16, 3, 3)]).layers
    assert layer.drift is None and layer.histogram is not None and layer.phenotype is Phenotype.SUN
    zeros = FilterBank(torch.zeros(4, 4, 3, 3), "zeros")
    made = report_of([_bank("a", 16, 16, 3, 3), zeros, _bank("b", 16, 16, 3, 3)])
    assert made["zeros"].drift is None and made["zeros"].phenotype is Phenotype.POINT
    assert made["a"].drift is not None and made["a"].drift.counts == (256, 256)


def test_equal_layers_of_one_shape_are_at_no_distance() -> None:
    ones = [FilterBank(torch.ones(4, 4, 3, 3), f"conv{i}") for i in range(2)]
    made = report_of(ones, basis=Basis.cosines((3, 3)))
    assert [layer.drift.value for layer in made.layers if layer.drift] == [0, 0]
    assert made.farthest is None and "Other kernels" not in str(made)


def test_a_layer_of_other_kernels_is_named() -> None:
    found = [_bank(f"conv{i}", 32, 32, 3, 3, smooth=0.3 * (i % 2)) for i in range(6)]
    flat = _bank("flat", 32, 32, 3, 3, smooth=8)
    few = FilterBank(torch.randn(8, 3, 3, 3), "few")  # a large D, and as large a floor
    made = report_of([few, *found, flat])
    (finding,) = (f for f in made.findings if f.what.startswith("Other kernels"))
    assert finding.layers == ("flat",)
    assert made.farthest is made["flat"]
    assert made["few"].drift is not None and made["flat"].drift is not None
    assert made["few"].drift.value > made["flat"].drift.value


def test_what_does_not_fit_is_an_error_with_the_sizes() -> None:
    found = [_bank("conv", 8, 8, 3, 3), _bank("point", 8, 8, 1, 1)]
    with pytest.raises(InputError, match=r"of kernels of 25 elements, the layers' are of 1 x 1, 3 x 3"):
        report_of(found, basis=Basis.cosines((5, 5)))
    with pytest.raises(InputError, match=r"the reference has kernels of 5 x 5, the layers of 3 x 3"):
        report_of(found, reference=[_bank("theirs", 8, 8, 5, 5)])
    with pytest.raises(InputError, match=r"the reference has kernels of no size"):
        report_of(found, reference=[])
