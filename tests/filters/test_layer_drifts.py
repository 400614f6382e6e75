from __future__ import annotations

import pytest
import torch

from compressor.errors import InputError
from compressor.filters import Basis, FilterBank, compare, drift


def bank(name: str, *shape: int, blur: bool = False) -> FilterBank:
    weight = torch.randn(*shape)
    return FilterBank(weight.cumsum(-1) if blur else weight, name)


@pytest.fixture
def before() -> list[FilterBank]:
    return [
        bank("stem", 16, 3, 5, 5),
        bank("conv1", 32, 16, 3, 3, blur=True),
        bank("conv2", 32, 32, 3, 3),
        bank("point", 32, 32, 1, 1),
        bank("gone", 8, 8, 3, 3),
        bank("dead", 8, 8, 3, 3),
        bank("shrunk", 8, 8, 5, 5),
    ]


@pytest.fixture
def after(before: list[FilterBank]) -> list[FilterBank]:
    stem, first, _, point, *_ = before
    return [
        FilterBank(stem.weight[:8], "stem"),
        FilterBank(first.weight[::2], "conv1"),
        bank("conv2", 32, 32, 3, 3, blur=True),
        FilterBank(point.weight, "point"),
        FilterBank(torch.zeros(8, 8, 3, 3), "dead"),
        bank("shrunk", 8, 8, 3, 3),
        bank("new", 8, 8, 3, 3),
    ]


def test_layers_are_compared_by_name(before: list[FilterBank], after: list[FilterBank]) -> None:
    table = compare(before, after)
    assert [row.name for row in table.compared] == ["stem", "conv1", "conv2"]
    above = {row.name: row.drift.above_noise for row in table.compared if row.drift}
    assert above == {"stem": False, "conv1": False, "conv2": True}
    reasons = {row.name: row.reason for row in table if row.drift is None}
    assert reasons == {
        "point": "kernels of one element have no shape",
        "gone": "only before",
        "dead": "all zero after",
        "shrunk": "kernels of 3 x 3 after",
        "new": "only after",
    }
    assert [row.name for row in table] == [*(one.name for one in before), "new"]


def test_layers_of_one_size_share_the_axes_of_all_of_them(
    before: list[FilterBank], after: list[FilterBank]
) -> None:
    table = compare(before, after)
    everything = torch.cat([side[place].kernels for place in (1, 2) for side in (before, after)])
    expected = Basis.of_kernels(everything)
    torch.testing.assert_close(table.bases[3, 3].shares_K, expected.shares_K)
    found = table["conv2"].drift
    assert found is not None and found.value == drift(before[2], after[2], basis=table.bases[3, 3]).value
    assert found.basis == table.bases[3, 3].identity
    assert set(table.bases) == {(3, 3), (5, 5)}


def test_a_basis_given_decides_what_is_compared(before: list[FilterBank], after: list[FilterBank]) -> None:
    basis = Basis.cosines((3, 3))
    table = compare(before, after, basis=basis)
    assert [row.name for row in table.compared] == ["conv1", "conv2"]
    assert table["stem"].reason == "the basis is of kernels of 9 elements"
    assert table.bases == {(3, 3): basis}


def test_the_table_as_text_has_a_line_for_each_layer(
    before: list[FilterBank], after: list[FilterBank]
) -> None:
    lines = str(compare(before, after)).splitlines()
    assert len(lines) == 9
    assert lines[0].split() == [
        "layer",
        "kernel",
        "before",
        "after",
        "zero",
        "zero",
        "D",
        "noise",
        "up",
        "to",
    ]
    assert lines[3].split()[:4] == ["conv2", "3x3", "1,024", "1,024"] and lines[3].endswith("above")
    assert lines[5].split() == ["gone", "3x3", "only", "before"]


def test_nothing_in_common_is_a_table_of_reasons() -> None:
    table = compare([bank("a", 4, 4, 3, 3)], [bank("b", 4, 4, 3, 3)])
    assert not table.compared and not table.bases
    assert repr(table) == "LayerDrifts(0 layers compared, 0 above noise, 2 left out)"


def test_layers_of_one_shape_are_named_and_the_others_compared(before: list[FilterBank]) -> None:
    constant = FilterBank(torch.ones(4, 1, 3), "moving average")
    table = compare([*before, constant], [before[1], constant])
    assert [row.name for row in table.compared] == ["conv1"]
    assert table["moving average"].reason == "all kernels of this size have one shape"


def test_bad_input_is_refused(before: list[FilterBank]) -> None:
    with pytest.raises(InputError, match="after: no layers to compare"):
        compare(before, [])
    with pytest.raises(InputError, match="before: two layers are called 'stem'"):
        compare([*before, before[0]], before)
    with pytest.raises(InputError, match="no layer 'conv9': there are stem"):
        compare(before, before)["conv9"]
