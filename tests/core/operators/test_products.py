"""Matrix products and einsum with parameters, and between features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case

IMAGE = (2, 3, 6, 5)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def mixed(function: Callable[..., Tensor], *, leaving: int = 6, **parts: Any) -> Callable[[], nn.Module]:
    return lambda: Net(
        lambda m, x: m.head(torch.relu(function(m, m.stem(x)))),
        stem=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(leaving, 2, 1),
        **parts,
    )


def spatial_attention(m: Net, x: Tensor) -> Tensor:
    """Non-local block: query and key meet in their own channels, the value carries on."""
    n, _, h, w = x.shape
    y = torch.relu(m.stem(x))
    q, k, v = (layer(y).flatten(2) for layer in (m.query, m.key, m.value))
    a = (q.transpose(1, 2) @ k).softmax(-1)
    return m.head(y + m.project((v @ a.transpose(1, 2)).view(n, -1, h, w)))


def autoencoder(m: Net, x: Tensor) -> Tensor:
    """One weight used both ways."""
    return F.linear(torch.tanh(F.linear(x, m.w, m.b)), m.w.t())


def shared_by_two(m: Net, x: Tensor) -> Tensor:
    return m.head(torch.relu(m.one(x)) + torch.sigmoid(m.two(x)))


def tied_modules() -> nn.Module:
    net = Net(shared_by_two, one=nn.Linear(5, 8), two=nn.Linear(5, 8), head=nn.Linear(8, 2))
    net.two.weight = net.one.weight
    return net


def low_rank(m: Net, y: Tensor) -> Tensor:
    """A weight that is a product: its inner rank can shrink, too."""
    return F.conv2d(y, (m.up @ m.down)[..., None, None])


def written_then_multiplied(m: Net, x: Tensor) -> Tensor:
    """Features in a buffer made of zeros are features, not a constant."""
    y, z = m.one(x).flatten(2), m.two(x).flatten(2)
    out = torch.zeros_like(y)
    out[:, :, :] = y.sigmoid()
    return m.head((out.transpose(1, 2) @ z).unsqueeze(1))


CASES = [
    case(
        "written into zeros, then multiplied",
        lambda: Net(
            written_then_multiplied,
            one=nn.Conv2d(3, 8, 1),
            two=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(1, 2, 1),
        ),
        IMAGE,
        free=8,
    ),
    case(
        "einsum nchw,oc->nohw",
        mixed(lambda m, y: torch.einsum("nchw,oc->nohw", y, m.w), w=parameter(6, 8)),
        IMAGE,
        free=14,
    ),
    case(
        "einsum of three",
        mixed(
            lambda m, y: torch.einsum("nchw,oc,o->nohw", y, m.w, m.s),
            w=parameter(6, 8),
            s=parameter(6),
        ),
        IMAGE,
        free=14,
    ),
    case(
        "einsum gate",
        mixed(lambda m, y: torch.einsum("nchw,nc->nchw", y, y.mean((2, 3)).sigmoid()), leaving=8),
        IMAGE,
        free=8,
    ),
    case(
        "distances of places to each other, zeros among them",
        mixed(
            lambda m, y: y * torch.cdist(t := y.flatten(2).mT, t).mean(-1).view(len(y), 1, *y.shape[2:]),
            leaving=8,
        ),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case(
        "matmul with a parameter",
        mixed(lambda m, y: (y.permute(0, 2, 3, 1) @ m.w).permute(0, 3, 1, 2), w=parameter(8, 6)),
        IMAGE,
        free=14,
    ),
    case(
        "parameter first",
        mixed(lambda m, y: (m.w @ y.flatten(2)).unflatten(2, y.shape[2:]), w=parameter(6, 8)),
        IMAGE,
        free=14,
    ),
    case(
        "tensordot",
        mixed(
            lambda m, y: torch.tensordot(y, m.w, dims=([1], [0])).permute(0, 3, 1, 2),
            w=parameter(8, 6),
        ),
        IMAGE,
        free=14,
    ),
    case(
        "non-local attention",
        lambda: Net(
            spatial_attention,
            stem=nn.Conv2d(3, 8, 1),
            query=nn.Conv2d(8, 4, 1),
            key=nn.Conv2d(8, 4, 1),
            value=nn.Conv2d(8, 6, 1),
            project=nn.Conv2d(6, 8, 1),
            head=nn.Conv2d(8, 2, 1),
        ),
        IMAGE,
        free=18,
    ),
    case(
        "tied autoencoder",
        lambda: Net(autoencoder, w=parameter(8, 5), b=parameter(8)),
        (3, 5),
        free=8,
    ),
    case("tied modules", tied_modules, (3, 5), free=8),
    # 8 of the stem, 3 of the rank, 6 leaving
    case("low rank weight", mixed(low_rank, up=parameter(6, 3), down=parameter(3, 8)), IMAGE, free=17),
    case(
        "adjacency",
        lambda: Net(
            lambda m, x: m.head(torch.relu(m.a @ m.stem(x))),
            stem=nn.Linear(5, 8),
            a=torch.rand(7, 7),
            head=nn.Linear(8, 2),
        ),
        (2, 7, 5),
        free=8,
    ),
    case(
        "outer product of features",
        lambda: Net(
            lambda m, x: m.head((m.one(x)[:, :, None] * m.two(x)[:, None, :]).flatten(1)),
            one=nn.Linear(5, 4),
            two=nn.Linear(5, 6),
            head=nn.Linear(24, 2),
        ),
        (3, 5),
        free=10,
    ),
    case(
        "flattened pairs of channels",
        lambda: Net(
            lambda m, x: m.head(((y := m.stem(x).flatten(2)) @ y.transpose(1, 2)).flatten(1)),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Linear(64, 2),
        ),
        (2, 3, 4, 4),
        free=8,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
