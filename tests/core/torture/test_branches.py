"""Forwards whose path depends on data: the example's is followed, and a warning says so."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.errors import SpecializationWarning
from tests.core.driver import Net, assert_prunes_exactly

X = torch.randn(2, 3, 6, 6)


def branching(body: Callable[[Any, Tensor, Tensor], Tensor], **parts: Any) -> nn.Module:
    """Features of 8 channels through a block whose forward is `body(block, features, input)`."""
    block = Net(body, a=nn.Conv2d(8, 6, 1), b=nn.Conv2d(6, 8, 1), **parts)
    return Net(
        lambda m, x: m.head(m.block(torch.relu(m.stem(x)), x)),
        stem=nn.Conv2d(3, 8, 1),
        block=block,
        head=nn.Conv2d(8, 2, 1),
    )


def inner(m: Any, y: Tensor) -> Tensor:
    return y + m.b(torch.relu(m.a(y)))


def by_comparison(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if x.mean() > -100 else y


def by_bool(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if bool((x > 0).any()) else y


def by_item(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if x.abs().max().item() > 0 else y


def by_loop(m: Any, y: Tensor, x: Tensor) -> Tensor:
    for _ in range(int(x.abs().max().clamp(1, 3))):
        y = inner(m, y)
    return y


def by_while(m: Any, y: Tensor, x: Tensor) -> Tensor:
    error = x.abs().mean()
    while error > 0.25:
        y, error = inner(m, y), error / 2
    return y


def by_equal(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return y if torch.equal(x, x.flip(0)) else inner(m, y)


def by_allclose(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return y if torch.allclose(x, x.flip(0)) else inner(m, y)


def by_what_was_written(m: Any, y: Tensor, x: Tensor) -> Tensor:
    seen = torch.zeros(4)
    seen[1] = x.abs().mean()
    return inner(m, y) if seen.sum() > 0 else y


def by_assertion(m: Any, y: Tensor, x: Tensor) -> Tensor:
    assert not torch.isnan(x).any()
    return inner(m, y)


DATA = [
    by_comparison, by_bool, by_item, by_loop, by_while, by_equal, by_allclose, by_what_was_written,
    by_assertion,
]  # fmt: skip


@pytest.mark.parametrize("body", DATA, ids=lambda body: body.__name__)
def test_the_path_of_the_example_is_followed_and_the_module_named(body: Any) -> None:
    with pytest.warns(SpecializationWarning, match="'block': forward reads a number that depends"):
        # 8 of the stream, 6 inside
        assert_prunes_exactly(branching(body), X, free=14, second_batch=body not in (by_while, by_loop))


def test_the_warning_is_one_and_points_at_the_caller() -> None:
    model = nn.Sequential(*(branching(by_comparison).block for _ in range(5)))
    model = Net(
        lambda m, x: m.head([y := torch.relu(m.stem(x)), *(y := block(y, x) for block in m.blocks)][-1]),
        stem=nn.Conv2d(3, 8, 1),
        blocks=nn.ModuleList(branching(by_comparison).block for _ in range(5)),
        head=nn.Conv2d(8, 2, 1),
    )
    with pytest.warns(SpecializationWarning) as caught:
        capture(model, X)
    (only,) = caught
    assert "'blocks.0', 'blocks.1', 'blocks.2' and 2 more" in str(only.message)
    assert only.filename == __file__


def by_size(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if x.shape[0] * x.shape[2] > 3 else y


def by_buffer(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if m.limit.item() > 0 and bool(m.flag) else y


def by_parameter(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if m.scale.sum() > 0 else y


def by_shape_of_the_input(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if torch.ones_like(x).sum() > 0 and x.new_zeros(2).sum() == 0 else y


def by_mode(m: Any, y: Tensor, x: Tensor) -> Tensor:
    return inner(m, y) if not m.training or x is not None else y


QUIET = [by_size, by_buffer, by_parameter, by_shape_of_the_input, by_mode]


@pytest.mark.parametrize("body", QUIET, ids=lambda body: body.__name__)
def test_what_depends_on_sizes_or_the_model_alone_is_not_warned_of(body: Any) -> None:
    parts = {"limit": torch.tensor(3), "flag": torch.tensor(True), "scale": nn.Parameter(torch.ones(1))}
    with warnings.catch_warnings():
        warnings.simplefilter("error", SpecializationWarning)
        assert_prunes_exactly(branching(body, **parts), X, free=14)


def test_the_other_path_is_another_graph() -> None:
    model = branching(lambda m, y, x: inner(m, y) if x.mean() > 0 else y)
    with pytest.warns(SpecializationWarning):
        taken, passed = capture(model, X.abs()), capture(model, -X.abs())
    assert (taken.n_units, passed.n_units) == (14, 8)


def test_a_number_read_off_the_features_of_a_model_is_followed() -> None:
    model = branching(lambda m, y, x: inner(m, y) * 2 if y.sum() > -1e9 else y)
    with pytest.warns(SpecializationWarning, match="'block'"):
        assert_prunes_exactly(model, X, free=14)
