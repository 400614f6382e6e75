"""Small transformers by their numbers: heads, dims of queries and keys, dims of values."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph, Group, Mask

TOKENS = 5
ENTERING = 6


class Attention(nn.Module):
    """Matrices of their own for queries, keys and values; `groups` key-value heads, each for several."""

    def __init__(self, width: int, heads: int, dims: int, values: int, groups: int) -> None:
        super().__init__()
        self.heads, self.groups, self.several = heads, groups, groups < heads
        self.q, self.k = nn.Linear(width, heads * dims), nn.Linear(width, groups * dims)
        self.v, self.out = nn.Linear(width, groups * values), nn.Linear(heads * values, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.q(x).view(b, n, self.heads, -1).transpose(1, 2)
        k, v = (part(x).view(b, n, self.groups, -1).transpose(1, 2) for part in (self.k, self.v))
        if self.several:
            times = self.heads // self.groups
            k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Packed(nn.Module):
    """One matrix for queries, keys and values, as in timm."""

    def __init__(self, width: int, heads: int, dims: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * heads * dims), nn.Linear(heads * dims, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Torch(nn.Module):
    """torch's own module: one matrix whose rows of values have dims of their own."""

    def __init__(self, heads: int, dims: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(heads * dims, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


@dataclass(frozen=True)
class Sizes:
    """A transformer by its numbers; `kind` is one of apart, packed, torch."""

    kind: str = "apart"
    heads: int = 4
    dims: int = 6
    values: int = 6
    groups: int = 4
    hidden: int = 10
    layers: int = 1
    width: int = 12

    def attention(self) -> nn.Module:
        """One attention of the kind."""
        if self.kind == "torch":
            return Torch(self.heads, self.dims)
        if self.kind == "packed":
            return Packed(self.width, self.heads, self.dims)
        return Attention(self.width, self.heads, self.dims, self.values, self.groups)


class Transformer(nn.Module):
    """Embedding, layers of attention and MLP with residual connections, a classifier."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.heads * sizes.dims if sizes.kind == "torch" else sizes.width
        self.embed, self.head = nn.Linear(ENTERING, width), nn.Linear(width, 3)
        self.attentions = nn.ModuleList(sizes.attention() for _ in range(sizes.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * sizes.layers))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(width, sizes.hidden), nn.GELU(), nn.Linear(sizes.hidden, width))
            for _ in range(sizes.layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for attention, mlp, first, second in zip(
            self.attentions, self.mlps, self.norms[::2], self.norms[1::2], strict=True
        ):
            x = x + attention(first(x))
            x = x + mlp(second(x))
        return self.head(x.mean(1))


def example() -> Tensor:
    """One sequence of tokens, the same each time."""
    return torch.randn(1, TOKENS, ENTERING, generator=torch.Generator().manual_seed(7))


def transformer(sizes: Sizes = Sizes(), seed: int = 0) -> Graph:
    """The graph of a transformer with weights from a seed."""
    torch.manual_seed(seed)
    return capture(Transformer(sizes).eval(), example())


def group_at(graph: Graph, tensor: str, factor: int, row: int = 0) -> Group:
    """The group behind a factor of a row of a tensor."""
    axis = next(a for a in graph.axes if (a.tensor, a.axis) == (tensor, 0))
    return graph.groups[int(graph.group_of[np.atleast_2d(axis.units)[factor, row]])]


def lost(removed: Mask, group: Group) -> int:
    """How many ranks of a group go."""
    return int(removed[group.cells[0]].sum())


def with_rank_more(removed: Mask, group: Group) -> Mask:
    """The removal of one more rank of a group, any."""
    more = removed.copy()
    for cell in group.cells:
        more[cell[~removed[cell]][:1]] = True
    return more


def kept_rows(graph: Graph, removed: Mask) -> dict[str, tuple[np.ndarray, int]]:
    """For each weight the rows it keeps, and how many it had; of packed ones, the parts' apart."""
    found = {}
    cuts = {(cut.tensor, cut.axis): cut.keep for cut in graph.plan(removed).cuts}
    for name, shape in graph.signature.tensors:
        if len(shape) < 2:
            continue
        keep = np.array(cuts.get((name, 0), range(shape[0])))
        if "qkv" not in name and "in_proj" not in name:
            found[name] = keep, shape[0]
            continue
        third = shape[0] // 3
        for part, letter in enumerate("qkv"):
            found[f"{name}:{letter}"] = keep[keep // third == part] % third, third
    return found


def left(graph: Graph, removed: Mask) -> dict[str, Fraction]:
    """What part of its rows each weight keeps (of packed ones each part), and of its columns `out`."""
    shares = {name: Fraction(len(keep), size) for name, (keep, size) in kept_rows(graph, removed).items()}
    for cut in graph.plan(removed).cuts:
        if cut.axis == 1 and "out" in cut.tensor:
            shares[f"{cut.tensor} read"] = Fraction(len(cut.keep), cut.size)
    return shares


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """A small transformer of any kind; key-value heads may be fewer than heads."""
    kind = draw(st.sampled_from(["apart", "packed", "torch"]))
    groups, times = draw(st.integers(1, 3)), draw(st.integers(1, 3)) if kind == "apart" else 1
    return Sizes(
        kind=kind,
        heads=groups * times,
        dims=draw(st.integers(1, 5)),
        values=draw(st.integers(1, 5)),
        groups=groups,
        hidden=draw(st.integers(1, 7)),
        layers=draw(st.integers(1, 2)),
        width=draw(st.integers(2, 9)),
    )
