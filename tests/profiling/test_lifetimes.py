"""When memory is taken and given back, operator by operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.core.tape import record
from compressor.profiling.lifetimes import lifetimes
from tests.core.driver import Net


def lives(model: nn.Module, *inputs: Tensor) -> list[tuple[str, str, int]]:
    """The operators between which each memory is held, and its size in elements."""
    tape = record(model, list(inputs), {})
    names = [op.target.split(".")[1] for op in tape.ops]
    return [
        (
            names[life.first] if life.first >= 0 else "input",
            names[life.last],
            torch.Size(tape.values[life.value].shape).numel(),
        )
        for life in lifetimes(tape)
    ]


def test_a_view_keeps_what_it_shows_and_nothing_of_its_own() -> None:
    def forward(_: nn.Module, x: Tensor) -> Tensor:
        part = x.exp().view(2, 6)[:, :3]
        return part.cos().sum()

    assert lives(Net(forward), torch.ones(3, 4)) == [
        ("input", "sum", 12),
        ("exp", "cos", 12),
        ("cos", "sum", 6),
        ("sum", "sum", 1),
    ]


def test_what_is_written_into_lives_on_under_its_new_name() -> None:
    def forward(_: nn.Module, x: Tensor) -> Tensor:
        y = x.exp()
        y[:2].mul_(2)
        return y.cos()

    assert lives(Net(forward), torch.ones(3)) == [("input", "cos", 3), ("exp", "cos", 3), ("cos", "cos", 3)]


def test_an_operator_that_writes_and_returns_takes_memory_for_what_it_returns() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        return functional.batch_norm(x, s.mean, s.var, training=True).exp()

    net = Net(forward, mean=torch.zeros(4), var=torch.ones(4))
    found = [life for life in lives(net, torch.rand(3, 4)) if life[2]]
    norm = found[1][0]
    # Its statistics are read by nobody.
    assert found[0] == ("input", "exp", 12)
    assert found[1:] == [(norm, "exp", 12), (norm, norm, 4), (norm, norm, 4), ("exp", "exp", 12)]


def test_pieces_of_an_unsafe_split_share_memory() -> None:
    def forward(_: nn.Module, x: Tensor) -> Tensor:
        one, two = x.exp().unsafe_chunk(2)
        return one.cos() + two

    assert ("unsafe_split", "add", 6) not in lives(Net(forward), torch.ones(4, 3))
    assert ("exp", "add", 12) in lives(Net(forward), torch.ones(4, 3))
