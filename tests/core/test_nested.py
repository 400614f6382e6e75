from __future__ import annotations

from collections import UserDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.nested import output_tensors, outside_of_torch, with_tensors


@dataclass
class Result:
    first: Tensor
    others: Any


def test_tensors_come_in_the_order_of_their_fields() -> None:
    a, b, c = (torch.full((1,), float(i)) for i in range(3))
    assert [t.item() for t in output_tensors(Result(a, {"x": [b], "y": Result(c, None)}))] == [0, 1, 2]


def test_objects_that_refer_to_each_other_come_to_an_end() -> None:
    result = Result(torch.ones(1), None)
    result.others = [result, torch.zeros(1)]
    assert [t.item() for t in output_tensors(result)] == [1, 0]


def test_what_a_model_holds_is_no_output() -> None:
    assert output_tensors(Result(torch.ones(1), nn.Linear(2, 2)))[0].item() == 1
    assert len(output_tensors(Result(torch.ones(1), nn.Linear(2, 2)))) == 1


def test_the_same_tensor_twice_is_two_outputs() -> None:
    a = torch.ones(1)
    assert len(output_tensors((a, [a]))) == 2


def test_arrays_and_iterators_are_outside_of_torch() -> None:
    strange = outside_of_torch((torch.ones(1), Result(torch.ones(1), {"a": np.ones(1)}), iter([1]), "text"))
    assert [type(s).__name__ for s in strange] == ["ndarray", "list_iterator"]


@dataclass(frozen=True)
class Frozen:
    first: Tensor
    name: str = "x"


def test_tensors_are_converted_in_whatever_holds_them_and_the_original_stays() -> None:
    one = torch.ones(1)
    tree = (Result(one, {"a": [one, None]}), Frozen(one), UserDict(b=one), "text")
    result, frozen, users, text = with_tensors(torch.neg, tree)
    assert [t.item() for t in output_tensors((result, frozen, users))] == [-1] * 4
    assert (frozen.name, text, type(users)) == ("x", "text", UserDict)
    assert [t.item() for t in output_tensors(tree)] == [1] * 4
