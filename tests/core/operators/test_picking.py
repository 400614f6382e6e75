"""Index tensors along one axis: the channels of all other axes are followed through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case

TOKENS = (3, 6, 5)  # batch, tokens, features


def tokens(function: Callable[[Any, Tensor], Tensor], **parts: Any) -> Callable[[], nn.Module]:
    """Eight features of six tokens, `function(net, features)`, and what reads them."""

    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(torch.tanh(function(m, m.stem(x))))

    return lambda: Net(forward, stem=nn.Linear(5, 8), head=nn.Linear(8, 2), **parts)


def last_token(m: Any, y: Tensor) -> Tensor:
    return y[torch.arange(len(y)), torch.full((len(y),), 2)]


def order(y: Tensor) -> Tensor:
    return torch.arange(y.shape[1]).flip(0)[None, :, None]


def put(m: Any, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, torch.tensor([1, 3])] = m.other(y[:, :2])
    return y


def put_first(m: Any, y: Tensor) -> Tensor:
    return torch.zeros_like(y).index_put((torch.arange(2), torch.tensor([1, 3])), m.other(y[:2, 0]))


def add_rows(m: Any, y: Tensor) -> Tensor:
    return torch.zeros_like(y).index_add(1, torch.tensor([0, 0, 2]), m.other(y[:, :3]))


def copy_rows(m: Any, y: Tensor) -> Tensor:
    return y.index_copy(1, torch.tensor([4, 1]), m.other(y[:, :2]))


def fill_rows(m: Any, y: Tensor) -> Tensor:
    return y.index_fill(1, torch.tensor([4, 1]), 0.5)


def gather_tokens(m: Any, y: Tensor) -> Tensor:
    return y.gather(1, order(y).expand(len(y), -1, y.shape[2]))


def scatter_tokens(m: Any, y: Tensor) -> Tensor:
    index = order(y)[:, :3].expand(len(y), -1, y.shape[2])
    return torch.zeros_like(y).scatter(1, index, m.other(y[:, :3]))


def scatter_add_tokens(m: Any, y: Tensor) -> Tensor:
    index = (order(y) // 2).expand(len(y), -1, y.shape[2])
    return torch.zeros_like(y).scatter_add(1, index, m.other(y))


def spectrum(m: Any, y: Tensor) -> Tensor:
    return torch.fft.irfft(torch.fft.rfft(y, dim=1) * m.filter, n=6, dim=1)


CASES = [
    case("tokens picked by a vector", tokens(lambda m, y: y[:, torch.tensor([4, 1])]), TOKENS, free=8),
    case("tokens picked by a matrix", tokens(lambda m, y: y[:, torch.eye(2).long()]), TOKENS, free=8),
    case("a token of each example", tokens(last_token), TOKENS, free=8),
    case("two axes with one between", tokens(lambda m, y: y[:, :, None][torch.arange(2), :, 0]), TOKENS,
         free=8),
    case("tokens written", tokens(put, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens written into zeros", tokens(put_first, other=nn.Linear(8, 8)), TOKENS, free=8,
         second_batch=False),
    case("tokens added", tokens(add_rows, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens copied", tokens(copy_rows, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens filled", tokens(fill_rows), TOKENS, free=8),
    case("tokens gathered", tokens(gather_tokens), TOKENS, free=8),
    case("tokens scattered", tokens(scatter_tokens, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("tokens scattered and added", tokens(scatter_add_tokens, other=nn.Linear(8, 8)), TOKENS, free=8),
    case("spectrum over tokens", tokens(spectrum, filter=nn.Parameter(torch.randn(4, 8))), TOKENS, free=8),
    case(
        "channels gathered",
        tokens(lambda m, y: y.gather(2, torch.arange(8).flip(0).expand(3, 6, 8)), other=nn.Linear(8, 8)),
        TOKENS, free=0, pinned={"stem": "picked by indices"}, second_batch=False,
    ),
    case("spectrum over channels", tokens(lambda m, y: torch.fft.fft(y).real), TOKENS, free=0,
         pinned={"stem": "a Fourier transform"}),
]  # fmt: skip


@pytest.mark.parametrize("one", CASES, ids=str)
def test_channels_beside_an_indexed_axis_are_followed(one: Case) -> None:
    assert_case(one)


def test_an_embedding_bag_keeps_its_vocabulary_and_loses_width() -> None:
    def made() -> nn.Module:
        return Net(
            lambda m, x: m.head(torch.tanh(m.bag(x))), bag=nn.EmbeddingBag(10, 8), head=nn.Linear(8, 2)
        )

    ids = torch.randint(10, (3, 4))
    assert_case(case("bag", made, ids, free=8, pinned={"bag": "rows of an embedding"}, second_batch=False))
