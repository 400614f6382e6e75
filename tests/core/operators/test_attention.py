"""Attention in all its forms: whole heads, dims of queries and keys, dims of values, found by coupling."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.attention import SizedMultiheadAttention
from compressor.core.capture import capture
from compressor.core.surgery import apply
from tests.core.driver import Case, Net, assert_case, case, explained

TOKENS = (2, 5, 6)  # batch, tokens, width of the input


def block(attention: nn.Module, width: int = 12, hidden: int = 10) -> nn.Module:
    """Embedding, one attention with a residual connection, an MLP with another, a head."""
    return Net(
        lambda m, x: m.head(m.last((y := (e := m.embed(x)) + m.attention(m.first(e))) + m.mlp(m.second(y)))),
        embed=nn.Linear(6, width),
        first=nn.LayerNorm(width),
        second=nn.LayerNorm(width),
        last=nn.LayerNorm(width),
        attention=attention,
        mlp=nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)),
        head=nn.Linear(width, 2),
    )


class Attention(nn.Module):
    """Queries, keys and values from matrices of their own; `groups` of key-value heads, `mix` over scores."""

    def __init__(self, heads: int = 3, qk: int = 4, v: int = 4, groups: int = 0, width: int = 12) -> None:
        super().__init__()
        self.heads, self.groups = heads, groups or heads
        self.qk_dim, self.v_dim, self.scale = qk, v, qk**-0.5
        self.q = nn.Linear(width, heads * qk)
        self.k = nn.Linear(width, self.groups * qk)
        self.v = nn.Linear(width, self.groups * v)
        self.out = nn.Linear(heads * v, width)

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(*x.shape[:2], heads, -1).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q = self.split(self.q(x), self.heads)
        k, v = self.split(self.k(x), self.groups), self.split(self.v(x), self.groups)
        y = self.attend(q, *self.grouped(k, v))
        return self.out(y.transpose(1, 2).flatten(2))

    def grouped(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale)


class Shared(Attention):
    """One key-value head for all queries, which broadcasts."""


class Expanded(Attention):
    """Key-value heads expanded to those of the queries, as in Llama."""

    def grouped(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        times = self.heads // self.groups

        def repeat(x: Tensor) -> Tensor:
            b, g, n, d = x.shape
            return x[:, :, None].expand(b, g, times, n, d).reshape(b, g * times, n, d)

        return repeat(k), repeat(v)


class Interleaved(Attention):
    """The same by repeat_interleave."""

    def grouped(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        times = self.heads // self.groups
        return k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)


class ByHand(Attention):
    """Scores, softmax, weighted values."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * self.scale).softmax(-1) @ v


class Einsum(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * self.scale
        return torch.einsum("bhqk,bhkd->bhqd", scores.softmax(-1), v)


class Batched(Attention):
    """Heads folded into the batch, torch.bmm and baddbmm."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        b, h, n, _ = q.shape
        q, k, v = (x.reshape(b * h, n, -1) for x in (q, k, v))
        scores = torch.baddbmm(torch.zeros(b * h, n, n), q, k.transpose(1, 2), alpha=self.scale)
        return torch.bmm(scores.softmax(-1), v).view(b, h, n, -1)


class Biased(ByHand):
    """A table of relative positions, one number a head, picked by index."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, self.heads))
        self.register_buffer("index", torch.arange(5)[:, None] - torch.arange(5) + 4)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(5, 5, -1).permute(2, 0, 1)
        return (q @ k.transpose(-2, -1) * self.scale + bias[None]).softmax(-1) @ v


class Scaled(ByHand):
    """Cosine attention with a learnt scale for each head, as in Swin v2."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.rand(self.heads, 1, 1))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        return (scores * self.log.exp()).softmax(-1) @ v


class Talking(ByHand):
    """Heads are mixed before and after the softmax, as in CaiT."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(self.heads, self.heads), nn.Linear(self.heads, self.heads)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = self.before((q @ k.transpose(-2, -1) * self.scale).permute(0, 2, 3, 1))
        return self.after(scores.softmax(2)).permute(0, 3, 1, 2) @ v


class Normed(ByHand):
    """A norm over the dims of every head, shared by the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(self.qk_dim), nn.LayerNorm(self.qk_dim)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.q_norm(q), self.k_norm(k), v)


class Rotary(ByHand):
    """Rotary embedding from a buffer of frequencies: dims i and i + d/2 turn together."""

    def __init__(self, heads: int = 3, groups: int = 0) -> None:
        super().__init__(heads, groups=groups)
        self.register_buffer("frequencies", torch.rand(self.qk_dim // 2) + 0.5)

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * self.frequencies
        cos, sin = (torch.cat([t, t], -1) for t in (angles.cos(), angles.sin()))
        one, two = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
        return x * cos + torch.cat([-two, one], -1) * sin

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().attend(self.turned(q), self.turned(k), v)


class RotaryOfOneSize(Rotary):
    """One attribute for the dims of queries, keys and values, as in Llama: with a pair go two of values."""

    def split(self, x: Tensor, heads: int) -> Tensor:
        return x.view(*x.shape[:2], -1, self.qk_dim).transpose(1, 2)


class Grouped(RotaryOfOneSize):
    """The kernel repeats keys and values for two queries each, and leaves that out for one."""

    def __init__(self) -> None:
        super().__init__(6, groups=3)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = self.turned(q), self.turned(k)
        return F.scaled_dot_product_attention(q, k, v, scale=self.scale, enable_gqa=True)


class RotaryPairs(Rotary):
    """Rotary embedding in complex numbers: dims 2i and 2i + 1 turn together, as in the first Llama."""

    def turned(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * self.frequencies
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(3)


class Packed(nn.Module):
    """One matrix for queries, keys and values; `layout` says how its rows fall apart."""

    def __init__(self, layout: str, heads: int = 3, dim: int = 4, width: int = 12) -> None:
        super().__init__()
        self.layout, self.heads, self.dim, self.scale = layout, heads, dim, dim**-0.5
        self.qkv, self.out = nn.Linear(width, 3 * heads * dim), nn.Linear(heads * dim, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        y = self.qkv(x)
        if self.layout == "three first":
            q, k, v = y.reshape(b, n, 3, self.heads, self.dim).permute(2, 0, 3, 1, 4).unbind(0)
        elif self.layout == "indexed":
            qkv = y.reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = qkv[0], qkv[1], qkv[2]
        elif self.layout == "heads first":
            q, k, v = y.view(b, n, self.heads, 3 * self.dim).transpose(1, 2).chunk(3, -1)
        else:
            parts = y.chunk(3, -1) if self.layout == "chunk" else y.split(self.heads * self.dim, -1)
            q, k, v = (t.view(b, n, self.heads, self.dim).transpose(1, 2) for t in parts)
        return self.out(
            (q @ k.transpose(-2, -1) * self.scale).softmax(-1).matmul(v).transpose(1, 2).flatten(2)
        )


class Cross(nn.Module):
    """Queries from learnt tokens, keys and values from the input; a class token beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.attention = (
            nn.Parameter(torch.randn(1, 3, 12)),
            nn.MultiheadAttention(12, 3, batch_first=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        q = self.tokens.expand(len(x), -1, -1)
        return self.attention(q, x, x, need_weights=False)[0].mean(1, keepdim=True)


class Torch(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x)[0]


class Windows(nn.Module):
    """Shifted windows over a line of tokens: roll, partition, attention, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ByHand()

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        windows = x.roll(-1, 1).view(b, n // 5, 5, c).reshape(-1, 5, c)
        return self.attention(windows).view(b, n // 5, 5, -1).view(b, n, -1).roll(1, 1)


def per_layer(heads: int, qk: int, v: int) -> int:
    return 12 + 10 + heads + qk + v


FREE = per_layer(3, 4, 4)

CASES = [
    case("fused kernel", lambda: block(Attention()), TOKENS, free=FREE, statistics=True),
    case("other widths of values", lambda: block(Attention(v=5)), TOKENS, free=FREE + 1, statistics=True),
    case("written out", lambda: block(ByHand()), TOKENS, free=FREE, statistics=True),
    case("einsum", lambda: block(Einsum()), TOKENS, free=FREE, statistics=True),
    case("folded into the batch", lambda: block(Batched()), TOKENS, free=FREE, statistics=True),
    case("relative positions", lambda: block(Biased()), TOKENS, free=FREE, statistics=True),
    case("cosine", lambda: block(Scaled()), TOKENS, free=FREE, statistics=True),
    case("norms of queries and keys", lambda: block(Normed()), TOKENS, free=FREE, statistics=True),
    # the mixed heads before, between and after
    case("talking heads", lambda: block(Talking()), TOKENS, free=FREE + 6, statistics=True),
    case("one key-value head", lambda: block(Shared(groups=1)), TOKENS, free=FREE, statistics=True),
    # two groups of two: groups, and members of every group
    case(
        "expanded groups",
        lambda: block(Expanded(4, groups=2)),
        TOKENS,
        free=per_layer(4, 4, 4),
        statistics=True,
    ),
    case(
        "interleaved groups",
        lambda: block(Interleaved(4, groups=2)),
        TOKENS,
        free=per_layer(4, 4, 4),
        statistics=True,
    ),
    case("rotary halves", lambda: block(Rotary()), TOKENS, free=FREE - 2, statistics=True),
    case("rotary, one size", lambda: block(RotaryOfOneSize()), TOKENS, free=FREE - 2, statistics=True),
    case(
        "rotary, grouped by the kernel",
        lambda: block(nn.Sequential(Grouped(), Grouped())),
        TOKENS,
        free=per_layer(3, 2, 4) + 12 + 3 + 2 + 4,
        statistics=True,
    ),
    case("rotary pairs", lambda: block(RotaryPairs()), TOKENS, free=FREE - 2, statistics=True),
    case("packed, chunk", lambda: block(Packed("chunk")), TOKENS, free=FREE, statistics=True),
    case("packed, split", lambda: block(Packed("split")), TOKENS, free=FREE, statistics=True),
    case("packed, heads first", lambda: block(Packed("heads first")), TOKENS, free=FREE, statistics=True),
    case("packed, three first", lambda: block(Packed("three first")), TOKENS, statistics=True),
    case("packed, indexed", lambda: block(Packed("indexed")), TOKENS, statistics=True),
    case("torch's", lambda: block(Torch()), TOKENS, free=FREE, statistics=True),
    case("torch's, no bias", lambda: block(Torch(bias=False)), TOKENS, free=FREE, statistics=True),
    case(
        "torch's, more keys",
        lambda: block(Torch(add_bias_kv=True, add_zero_attn=True)),
        TOKENS,
        statistics=True,
    ),
    case("torch's, learnt queries", lambda: block(Cross()), TOKENS, statistics=True),
    case("windows", lambda: block(Windows()), TOKENS, free=FREE, statistics=True),
    case(
        "torch's encoder layer",
        lambda: nn.Sequential(
            nn.Linear(6, 12), nn.TransformerEncoderLayer(12, 3, 10, batch_first=True), nn.Linear(12, 2)
        ),
        TOKENS,
        free=FREE,
        statistics=True,
    ),
    case(
        "torch's encoder",
        lambda: nn.Sequential(
            nn.Linear(6, 12),
            nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 3, 10, batch_first=True), 2),
            nn.Linear(12, 2),
        ),
        TOKENS,
        statistics=True,
    ),
    case(
        "torch's decoder layer",
        lambda: Net(
            lambda m, x: m.head(m.layer(m.embed(x), m.memory(x))),
            embed=nn.Linear(6, 12),
            memory=nn.Linear(6, 12),
            layer=nn.TransformerDecoderLayer(12, 3, 10, batch_first=True),
            head=nn.Linear(12, 2),
        ),
        TOKENS,
        statistics=True,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)


# -- torch's module against the one that follows its sizes -----------------------------------------


MASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no weights": {"need_weights": False},
    "weights of every head": {"average_attn_weights": False},
    "added mask": {"attn_mask": torch.randn(4, 5)},
    "mask of every head": {"attn_mask": torch.randn(6, 4, 5), "need_weights": False},
    "padding": {"key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5])},
    "both": {
        "key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5]),
        "attn_mask": torch.triu(torch.ones(4, 5, dtype=torch.bool), 2),
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True},
    "other widths": {"kdim": 7, "vdim": 5},
}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("options", OPTIONS)
def test_the_sized_attention_is_torchs(options: str, masks: str) -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(12, 3, **OPTIONS[options]).double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    shapes = [(2, 4, 12), (2, 5, module.kdim), (2, 5, module.vdim)]
    inputs = [
        torch.randn(s if module.batch_first else (s[1], s[0], s[2]), dtype=torch.double) for s in shapes
    ]
    given = {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in MASKS[masks].items()
    }
    expected, weights = module(*inputs, **given)
    module.__class__ = SizedMultiheadAttention
    found, own = module(*inputs, **given)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(own, weights, rtol=1e-12, atol=1e-12)


def test_the_sized_attention_takes_inputs_without_a_batch() -> None:
    module = nn.MultiheadAttention(12, 3).eval()
    q, k = torch.randn(4, 12), torch.randn(5, 12)
    expected, weights = module(q, k, k)
    module.__class__ = SizedMultiheadAttention
    found, own = module(q, k, k)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own, weights)


def test_the_scale_of_the_softmax_stays() -> None:
    model = block(Torch()).eval()
    graph = capture(model, torch.randn(TOKENS))
    (dims,) = [g for g in graph.groups if g.size == 4 and "in_proj" in g.name and g.channels == 6]
    mask = torch.zeros(graph.n_units, dtype=torch.bool).numpy()
    mask[dims.cells[0][:2]] = True
    small = apply(model, graph.plan(mask))
    attention = small.attention.attention
    assert attention.in_proj_weight.shape == (2 * 6 + 12, 12), explained(graph)
    q, k, v = (torch.randn(1, 3, 12) for _ in range(3))
    rows = attention.in_proj_weight.split([6, 6, 12]), attention.in_proj_bias.split([6, 6, 12])
    heads = [
        F.linear(x, w, b).view(3, 3, -1).transpose(0, 1) for x, w, b in zip((q, k, v), *rows, strict=True)
    ]
    weights = (heads[0] @ heads[1].transpose(1, 2) / math.sqrt(4)).softmax(-1)
    expected = attention.out_proj((weights @ heads[2]).transpose(0, 1).reshape(1, 3, 12))
    torch.testing.assert_close(attention(q, k, v)[0], expected)
