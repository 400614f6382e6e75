"""`suggest` says what the library says, and `filters verify` whether a store is as it was written."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import compressor as cp
from compressor.cli.inputs import parse_input
from tests.cli.conftest import IMAGE, Run

NET = "tiny_net:Tiny"
X = parse_input("2x3x8x8").tensor(torch.Generator().manual_seed(0))


def test_widths_are_those_of_the_library(run: Run, here: Path, tiny: nn.Module) -> None:
    outcome = run("suggest", "widths", NET, *IMAGE, "--out", "w.json", "--json")
    expected = cp.design.suggest_widths(tiny, X)
    assert {row["layer"]: row["suggested"] for row in outcome.data["layers"]} == expected.widths
    assert cp.Plan.load(here / "w.json") == expected.plan
    assert outcome.data["files"] == ["w.json"]
    assert run("suggest", "widths", NET, *IMAGE).out == f"{expected}\n"


def test_widths_meet_a_cost(run: Run, tiny: nn.Module) -> None:
    outcome = run("suggest", "widths", NET, *IMAGE, "--params", "0.6", "--round-to", "2", "--json")
    expected = cp.design.suggest_widths(tiny, X, budget=cp.budget.Params(0.6), round_to=2)
    assert outcome.data["params"] == {"now": expected.params, "suggested": expected.suggested_params}
    assert expected.suggested_params <= 0.6 * expected.params


def test_kernels_are_those_of_the_library(run: Run, tiny: nn.Module) -> None:
    options = ("--discard", "0.95", "--least-saving", "0.2")
    expected = cp.design.suggest_kernels(tiny, X, discard=0.95, least_saving=0.2)
    outcome = run("suggest", "kernels", NET, *IMAGE, *options, "--json")
    changes = {row["layer"]: row["change"] for row in outcome.data["layers"] if row["change"]}
    assert changes == {name: repr(change) for name, change in expected.changes.items()} != {}
    assert outcome.data["output_error"] == expected.output_error
    assert run("suggest", "kernels", NET, *IMAGE, *options).out == f"{expected}\n"


def test_a_store_is_verified(run: Run, here: Path) -> None:
    assert run("filters", "extract", "store", NET).code == 0
    outcome = run("filters", "verify", "store", "--json")
    assert outcome.data["models"] == 1 and outcome.data["kernels"] == 3 * 8 + 8 * 6
    (kernels,) = (here / "store" / "kernels").iterdir()
    content = bytearray(kernels.read_bytes())
    content[len(content) // 2] ^= 1
    kernels.write_bytes(content)
    broken = run("filters", "verify", "store")
    assert (broken.code, broken.out) == (1, "")
    assert kernels.name in broken.words and "not as the store was written" in broken.words
