"""What stands around attention: embeddings, norms, gated and routed MLPs, tokens of a model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case

TOKENS = (2, 5, 6)
WORDS = torch.randint(0, 11, (2, 5))


class HandNorm(nn.Module):
    """Zhang & Sennrich 2019 (arXiv 1910.07467), equation 4, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Experts(nn.Module):
    """Tokens go to the best two of three experts, whose hidden layers are gated."""

    def __init__(self, width: int = 8, hidden: int = 5, count: int = 3) -> None:
        super().__init__()
        self.router = nn.Linear(width, count)
        self.experts = nn.ModuleList(Swish(width, hidden) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            share = (weights * (chosen == number)).sum(-1, keepdim=True)
            out = out + share * expert(flat)
        return out.view(x.shape)


class Gathered(Experts):
    """The same with the tokens of each expert picked out, as Mixtral does."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weights, chosen = self.router(flat).softmax(-1).topk(2, -1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(chosen == number)
            out.index_add_(0, token, expert(flat[token]) * weights[token, place, None])
        return out.view(x.shape)


class Stacked(nn.Module):
    """All experts in parameters with an axis of their own, every token through all of them."""

    def __init__(self, width: int = 8, hidden: int = 5, count: int = 3) -> None:
        super().__init__()
        self.router = nn.Linear(width, count)
        self.up = nn.Parameter(torch.randn(count, width, 2 * hidden))
        self.down = nn.Parameter(torch.randn(count, hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(1, -1, x.shape[-1]).expand(len(self.up), -1, -1)
        gate, value = torch.bmm(flat, self.up).chunk(2, -1)
        each = torch.bmm(F.silu(gate) * value, self.down)
        share = self.router(flat[0]).softmax(-1).t()[..., None]
        return (each * share).sum(0).view(x.shape)


class Swish(nn.Module):
    """Shazeer 2020 (arXiv 2002.05202), equation 6."""

    def __init__(self, width: int = 8, hidden: int = 5) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Gelu(nn.Module):
    """The gate and the value from one matrix."""

    def __init__(self, width: int = 8, hidden: int = 5) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.gelu(gate) * value)


def around(mlp: Any, norm: Any = nn.LayerNorm) -> Any:
    """An embedding of 8, a norm, the MLP with a residual connection, a head."""
    return lambda: Net(
        lambda m, x: m.head((y := m.embed(x)) + m.mlp(m.norm(y))),
        embed=nn.Linear(6, 8),
        norm=norm(8),
        mlp=mlp(),
        head=nn.Linear(8, 2),
    )


class Tokens(nn.Module):
    """A picture in patches, class and register tokens before them, position embeddings resized."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 2)
        self.cls, self.registers = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 2, 8))
        self.position = nn.Parameter(torch.randn(1, 4, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.patch(x)
        grid = self.position.reshape(1, 2, 2, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=y.shape[2:], mode="bilinear")
        y = (y + grid).flatten(2).transpose(1, 2)
        own = (t.expand(len(x), -1, -1) for t in (self.cls, self.registers))
        y = torch.cat([*own, y], 1)
        return self.head(torch.tanh(y[:, 0] + y[:, 3:].mean(1)))


class Language(nn.Module):
    """Word, position and type embeddings, and a head that shares the words' table."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.kinds = nn.Embedding(11, 8), nn.Embedding(5, 8), nn.Embedding(2, 8)
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, words: Tensor) -> Tensor:
        places = torch.arange(words.shape[1])[None]
        y = self.words(words) + self.places(places) + self.kinds(torch.zeros_like(words))
        return self.head(self.norm(y))


CASES = [
    case("swish gate", around(Swish), TOKENS, free=13, statistics=True),
    case("gelu gate from one matrix", around(Gelu), TOKENS, free=13, statistics=True),
    # 8 of the stream, 5 of each of three experts
    case("experts that all run", around(Experts), TOKENS, free=23, statistics=True),
    case("experts that tokens are picked for", around(Gathered), TOKENS, free=23, statistics=True),
    case("experts in stacked parameters", around(Stacked), TOKENS, statistics=True),
    case("root mean square norm", around(Swish, nn.RMSNorm), TOKENS, free=13, statistics=True),
    case("root mean square norm by hand", around(Swish, HandNorm), TOKENS, free=13, statistics=True),
    case(
        "group norm of tokens",
        lambda: Net(
            lambda m, x: m.head(m.norm(m.embed(x).transpose(1, 2)).transpose(1, 2)),
            embed=nn.Linear(6, 8),
            norm=nn.GroupNorm(2, 8),
            head=nn.Linear(8, 2),
        ),
        TOKENS,
        free=8,
        statistics=True,
    ),
    # and the two registers, which nothing looks at here
    case("class and register tokens", Tokens, (2, 3, 6, 6), free=10),
    case("tied embeddings", Language, WORDS, free=8, statistics=True, second_batch=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
