"""Inputs, outputs and batches of the networks that are measured."""

from __future__ import annotations

import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo import BATCH, Inputs, Missing, import_torchvision, one_by_one, outputs, taken


@dataclass
class Found:
    boxes: Tensor
    more: list[Tensor]


def test_outputs_are_found_in_whatever_holds_them() -> None:
    a, b, c = (torch.full((2,), float(i)) for i in range(3))
    packed = {"first": (a, 3), "second": Found(b, [c]), "labels": torch.tensor([1])}
    assert [t.tolist() for t in outputs(OrderedDict(packed))] == [[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


def test_examples_are_taken_from_tensors_and_lists_alike() -> None:
    x = torch.arange(2 * BATCH).reshape(BATCH, 2)
    images = [torch.zeros(3), torch.ones(3)]
    some = taken(Inputs((images, 7), {"x": x, "none": None}), (1, 0, 1))
    assert [image[0].item() for image in some.args[0]] == [1.0, 0.0, 1.0]
    assert some.args[1] == 7 and some.kwargs["none"] is None
    assert torch.equal(some.kwargs["x"], x[[1, 0, 1]])


def test_single_examples_join_to_the_batch() -> None:
    net, x = nn.Linear(3, 2), torch.randn(BATCH, 3)
    (joined,) = one_by_one(net, Inputs((x,)), (0, 1)) or []
    assert torch.allclose(joined, net(x))


def test_a_network_that_draws_numbers_draws_the_same_ones() -> None:
    net, x = nn.Dropout(0.5), torch.ones(BATCH, 50)
    state = torch.get_rng_state()
    assert torch.equal(Inputs((x,)).call(net), Inputs((x,)).call(net))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_machine_without_torchvision_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declarations = tmp_path / "zoo" / "torchvision_on_cpu_torch.py"
    declarations.parent.mkdir()
    declarations.write_text("import torchvision")
    monkeypatch.setitem(sys.modules, "torchvision", None)  # an import of it fails
    for _ in range(2):
        with pytest.raises(Missing, match="torchvision cannot be imported"):
            import_torchvision(str(tmp_path))
