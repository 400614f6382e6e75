from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.filters import FilterBank, report, report_of
from compressor.filters.findings import CAVEAT
from compressor.filters.quality import Quality, Verdict, quality
from compressor.models import create

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def planted() -> tuple[FilterBank, ...]:
    """A bank for each thing that a report looks for, each planted in one place."""
    torch.manual_seed(1)
    healthy = torch.randn(32, 16, 3, 3) * torch.linspace(0.2, 1.5, 9).view(3, 3)
    dead = healthy.clone()
    dead[[3, 7]] *= 1e-4
    unread = healthy.clone()
    unread[:, 5] = 0
    twins = healthy.clone()
    twins[9] = -2 * twins[4]
    sparse = healthy.clone()
    sparse[::3, ::2] = 0
    sparse[1::3, 1::2] = 0
    blur = torch.ones(3, 3)
    return tuple(
        FilterBank(weight, name, layer_id=place, conv_depth=place, conv_depth_norm=place / 8)
        for place, (name, weight) in enumerate(
            {
                "healthy": healthy,
                "dead": dead,
                "unread": unread,
                "twins": twins,
                "sparse": sparse,
                "random": torch.randn(32, 32, 3, 3),
                "flat": torch.randn(32, 16, 1, 1) * blur + 0.01 * torch.randn(32, 16, 3, 3),
                "pointwise": torch.randn(32, 16, 1, 1),
                "last": healthy.flip(0),
            }.items()
        )
    )


FOUND = report_of(planted(), model="planted")


def _about(word: str, source: Any = FOUND) -> Any:
    found = [finding for finding in source.findings if finding.what.startswith(word)]
    assert len(found) == 1, found
    return found[0]


def test_what_was_planted_is_found_where_it_was_planted_and_nowhere_else() -> None:
    # 2 filters of 16 kernels of 9; 32 kernels of 9.
    assert _about("Dead filters (288 weights)").layers == ("dead",)
    assert _about("Dead filters").details == ("3, 7 of 32",)
    assert _about("Input channels that no filter looks at (288 weights)").details == ("5 of 16",)
    assert _about("Input").layers == ("unread",)
    assert _about("Pairs").layers == ("twins",) and _about("Pairs").details == ("(4, 9) cos -1.000",)
    assert _about("Sparse").layers == ("sparse",)
    assert _about("Random").layers == ("random",)
    assert _about("Low diversity").layers == ("flat",)
    assert _about("Other kernels").layers == ("flat",)
    assert len(FOUND.findings) == 7


def test_a_dead_filter_with_its_norm_folded_in_is_one_that_can_be_cut() -> None:
    bank = planted()[1]
    folded = FilterBank(bank.weight, "dead", folded=True)
    assert "a batch norm behind that is not folded in may scale them up" in _about("Dead").advice
    assert "batch norm is folded in: they write a constant" in _about("Dead", report_of([folded])).advice
    both = report_of([bank, folded])
    assert [finding.layers for finding in both.findings] == [("dead",), ("dead",)]


def test_the_sparse_share_is_counted_by_hand() -> None:
    # Rows 0, 3, ..., 30 lose 8 of 16 kernels, rows 1, 4, ..., 31 the other 8: 22 * 8 of 512.
    assert FOUND["sparse"].quality.sparsity == 22 * 8 / 512
    assert f"(S {22 * 8 / 512:.2f})" in str(_about("Sparse"))


def test_the_table_has_a_row_for_each_layer_and_columns_in_line() -> None:
    lines = str(FOUND).splitlines()
    kernels = 8 * 512 + 1024
    weights = 7 * 512 * 9 + 1024 * 9 + 512
    assert (
        lines[0] == f"planted: 9 convolutions, {kernels:,} kernels, {weights:,} weights; weights as they are"
    )
    head, rows = lines[1], lines[3:12]
    assert [row.split()[0] for row in rows] == [bank.name for bank in planted()]
    for title in ("n", "H", "H/T_H", "shapes", "orth", "max cos"):
        end = head.index(f" {title} ") + len(title) + 1
        assert all(row[end - 1] in "0123456789-" and row[end : end + 1] in ("", " ") for row in rows), title
    assert rows[7].split()[:4] == ["pointwise", "32x16", "1x1", "512"]
    assert rows[7].split()[7:10] == ["-", "-", "-"]  # no H, ratio and shapes of kernels of one element
    assert max(map(len, lines[12:])) <= 110
    assert " ".join(" ".join(lines).split()).endswith(" ".join(CAVEAT.split()))


def test_markdown_has_every_sparsity_and_is_a_table() -> None:
    lines = FOUND.to_markdown().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 9
    assert len({line.count("|") for line in table}) == 1
    for epsilon in ("0.1", "0.25", "0.5", "1", "2", "5", "10"):
        assert f" S {epsilon}% " in table[0]
    assert set(table[1]) <= set("|-: ")


def _numbers(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from _numbers(item)
    else:
        yield tree


def test_plain_data_goes_through_json_without_nan() -> None:
    plain = FOUND.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert {type(item) for item in _numbers(plain)} <= {str, int, float, bool, type(None)}
    rows = {row["name"]: row for row in plain["layers"]}
    assert rows["dead"]["dead_filters"] == [3, 7] and rows["dead"]["shape"] == [32, 16, 3, 3]
    assert rows["pointwise"]["entropy"] is None and rows["pointwise"]["effective_shapes"] is None
    assert rows["twins"]["duplicates"][0][:2] == [4, 9]
    assert rows["random"]["degenerate"] is True and rows["healthy"]["degenerate"] is False
    assert plain["findings"][0]["layers"] == ["dead"]


EDGES = {
    "zeros": torch.zeros(8, 4, 3, 3),
    "one kernel": torch.randn(1, 1, 3, 3),
    "one filter": torch.randn(1, 16, 3, 3),
    "one element": torch.randn(8, 4, 1, 1),
    "equal kernels": torch.ones(8, 4, 3, 3),
    "tiny": torch.full((8, 4, 3, 3), 1e-42),
    "one dimension": torch.randn(8, 4, 5),
    "three dimensions": torch.randn(8, 4, 3, 3, 3),
    "large": torch.randn(4, 4, 31, 31),
    "half": torch.randn(8, 4, 3, 3).half(),
    "bfloat16": torch.randn(8, 4, 3, 3).bfloat16(),
    "double": torch.randn(8, 4, 3, 3).double(),
}


@pytest.mark.parametrize("case", EDGES)
def test_rows_of_odd_layers_are_defined(case: str) -> None:
    found = report_of([FilterBank(EDGES[case], case)])
    json.dumps(found.to_dict(), allow_nan=False)
    assert case in str(found) and case in found.to_markdown() and "nan" not in str(found).lower()


def test_a_layer_of_zeros_is_dead_through_and_through() -> None:
    (layer,) = report_of([FilterBank(EDGES["zeros"], "zeros")]).layers
    assert layer.quality.sparsity == 1 and layer.entropy == 0 and layer.quality.orthogonality is None
    assert layer.quality.dead_filters == tuple(range(8)) and layer.quality.dead_channels == tuple(range(4))
    assert Verdict.SPARSE in layer.quality.verdicts


def test_a_healthy_model_is_told_so_and_the_caveat_stays() -> None:
    text = " ".join(str(report_of(planted()[:1], model="net")).split())
    assert "Nothing stands out" in text and text.endswith(" ".join(CAVEAT.split()))


def test_the_trend_goes_by_depth_not_by_the_order_of_the_banks() -> None:
    first, last = planted()[0], planted()[6]
    deep = [FilterBank(last.weight, f"deep{i}", conv_depth=6 + i) for i in range(3)]
    shallow = [FilterBank(first.weight, f"shallow{i}", conv_depth=i) for i in range(6)]
    text = " ".join(str(report_of([*deep, *shallow])).split())
    healthy, flat = (report_of([b]).layers[0].entropy_ratio for b in (first, last))
    assert f"H/T_H {healthy:.3f} | {healthy:.3f} | {flat:.3f}" in text
    assert "From input to output" not in str(report_of(shallow[:5]))
    assert "As defined, medians of thirds" in str(report_of([FilterBank(b.weight, b.name) for b in shallow]))


def test_a_layer_is_found_by_name_and_a_slip_says_what_there_is() -> None:
    assert FOUND["twins"].bank.name == "twins"
    with pytest.raises(InputError, match=r"no layer 'conv9'.*healthy, dead"):
        FOUND["conv9"]
    bank = planted()[0]
    with pytest.raises(InputError, match="2 layers 'healthy'"):
        report_of([bank, bank])["healthy"]


def test_another_measure_can_be_given() -> None:
    def strict(bank: FilterBank) -> Quality:
        return quality(bank, epsilon=0.5, duplicates_above=0.999999)

    found = report_of(planted(), measure=strict)
    assert found["healthy"].quality.epsilon == 0.5
    assert found["healthy"].quality.sparsity > FOUND["healthy"].quality.sparsity


def test_a_report_of_a_model_is_that_of_its_banks() -> None:
    net = create("resnet20_cifar").eval()
    nn.init.zeros_(net.layer1[0].bn1.weight[3:4])  # type: ignore[index, union-attr]
    raw, folded = report(net, model_name="net"), report(net, IMAGE, fold_batch_norm=True)
    assert raw.model == "net" and folded.model == "ResNetCifar"
    assert raw.folded == 0 and folded.folded == 19
    assert "batch norm folded into 19" in str(folded)
    assert folded["layer1.0.conv1"].quality.dead_filters == (3,)
    assert raw["layer1.0.conv1"].quality.dead_filters == ()
    # Untrained: all but the smallest layers vary as random kernels do.
    assert sum(Verdict.RANDOM in layer.quality.verdicts for layer in raw.layers) >= 17


def test_nothing_to_report_on_is_an_error() -> None:
    with pytest.raises(InputError, match="no convolution"):
        report(nn.Linear(2, 2))
    with pytest.raises(InputError, match="one bank or more"):
        report_of([])
    with pytest.raises(InputError, match=r"got list of Tensor: FilterBank\(weight, name\) makes one"):
        report_of([torch.randn(2, 2, 3, 3)])  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"got FilterBank of FilterBank.*one goes into a list"):
        report_of(planted()[0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a basis is a Basis, got str"):
        report(nn.Conv2d(2, 2, 3), basis="basis.safetensors")  # type: ignore[arg-type]


def test_a_weight_that_is_not_finite_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    nn.init.constant_(net[0].weight, math.nan)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the weight of Sequential: 0 holds 108 values"):
        report(net)
