from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.runtimes.examples import bind
from compressor.runtimes.sessions import largest_difference

INF, NAN = float("inf"), float("nan")


class Many(nn.Module):
    def forward(self, x: Tensor, *rest: Any, scale: float = 1.0, **more: Tensor) -> Tensor:
        return x


def test_tensors_are_named_by_the_path_to_them() -> None:
    x, a, b, c = (torch.rand(2, n) for n in (1, 2, 3, 4))
    example = bind(Many(), (x, a, [b]), {"late": c, "scale": 2.0})
    assert list(example.tensors) == ["x", "rest_0", "rest_1_0", "more_late"]
    assert example.shapes["rest_1_0"] == (2, 3)
    args, kwargs = example.call
    assert len(args) == 3 and torch.equal(args[2][0], b)
    assert kwargs["scale"] == 2.0 and torch.equal(kwargs["late"], c)


def test_wanted_axes_are_those_a_tensor_has() -> None:
    example = bind(Many(), (torch.rand(2, 3, 8, 8), torch.rand(2, 3), torch.tensor(1.0)), {})
    assert example.axes((0, 2)) == {"x": (0, 2), "rest_0": (0,), "rest_1": ()}
    assert example.axes({"x": (3,)}) == {"x": (3,), "rest_0": (), "rest_1": ()}
    assert example.axes({0: "batch", 3: "time"}) == {"x": (0, 3), "rest_0": (0,), "rest_1": ()}
    assert example.axis_names({"x": {3: "time"}, "rest_0": (0,)}) == {"x": {3: "time"}, "rest_0": {}}
    assert example.axis_names({0: "batch"})["rest_0"] == {0: "batch"}
    with pytest.raises(InputError, match="dynamic axis 0 of 'x' is named '3 s': a word is expected"):
        example.axis_names({0: "3 s"})
    with pytest.raises(InputError, match="dynamic axis 4: no input has it"):
        example.axes({4: "time"})
    with pytest.raises(InputError, match="dynamic axis -1"):
        example.axes((-1,))
    with pytest.raises(InputError, match="dynamic axis 2 of 'rest_0'"):
        example.axes({"rest_0": (2,)})


def test_another_shape_has_values_of_the_same_kind() -> None:
    tokens, x = torch.tensor([[3, 7, 5]]), torch.rand(1, 4)
    example = bind(Many(), (tokens, x, torch.zeros(1, 2)), {})
    other = example.reshaped({"x": (2, 5), "rest_0": (3, 4), "rest_1": (2, 2)})
    assert other.shapes == {"x": (2, 5), "rest_0": (3, 4), "rest_1": (2, 2)}
    assert other.tensors["x"].tolist() == [[3, 7, 5, 3, 7]] * 2
    assert not torch.equal(other.tensors["rest_0"][0], other.tensors["rest_0"][1])
    assert len(other.tensors["rest_1"].unique()) == 4
    assert torch.equal(other.call[0][1], other.tensors["rest_0"])


@pytest.mark.parametrize(
    ("expected", "found", "difference"),
    [
        ([1.0, -4.0], [1.0, -4.5], 0.125),
        ([0.0, 0.0], [0.0, 0.25], 0.25),
        ([1.0, INF], [1.0, INF], 0.0),
        ([1.0, INF], [1.0, -INF], INF),
        ([1.0, NAN], [1.5, NAN], 0.5),
        ([1.0, NAN], [1.0, 2.0], INF),
        ([1.0, 2.0], [1.0, NAN], INF),
        ([NAN], [INF], INF),
        ([1.0, 2.0], [1.0], INF),
        ([3, 4], [3, 4], 0.0),
        ([3, 4], [3, 5], INF),
        ([3, 4], [3.0, 4.0], INF),
        ([], [], 0.0),
    ],
)
def test_differences_are_relative_and_never_overlook_a_nan(
    expected: list[float], found: list[float], difference: float
) -> None:
    assert largest_difference([torch.tensor(expected)], [torch.tensor(found)]) == difference


def test_a_missing_output_is_an_infinite_difference() -> None:
    assert largest_difference([torch.ones(1)], []) == INF
    assert largest_difference([torch.ones(1), 9 * torch.ones(1)], [torch.ones(1)] * 2) == 8 / 9
