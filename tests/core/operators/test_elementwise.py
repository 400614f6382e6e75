"""Element-wise and broadcasting operators: what meets position by position is one channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case, one

IMAGE = (2, 3, 6, 5)


def two_streams(function: Callable[[Tensor, Tensor], Tensor], **parts: Any) -> Callable[[], nn.Module]:
    """Two stems meet in `function`, a head reads the result."""
    return lambda: Net(
        lambda m, x: m.head(function(m.left(x), m.right(x))),
        left=nn.Conv2d(3, 8, 1),
        right=nn.Conv2d(3, 8, 1),
        head=nn.Conv2d(8, 2, 1),
        **parts,
    )


def met(name: str, function: Callable[[Tensor, Tensor], Tensor]) -> Case:
    """Channel i of the one stem goes with channel i of the other: 8 units."""
    return case(name, two_streams(function), IMAGE, free=8)


def alone(name: str, function: Callable[[Tensor], Tensor], *, leaving: int = 8, free: int = 8) -> Case:
    return case(name, one(lambda m, y: function(y), leaving=leaving), IMAGE, free=free)


def vector(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape) + 0.5)


def write_in_place(m: Net, y: Tensor) -> Tensor:
    y = y.clone()
    y += 1
    y.mul_(2)
    y *= m.scale
    y -= y.mean((2, 3), keepdim=True)
    return y.relu_()


def assembled(m: Net, x: Tensor) -> Tensor:
    """Two streams written side by side into zeros."""
    a, b = m.left(x), m.right(x)
    out = a.new_zeros(a.shape[0], a.shape[1] + b.shape[1], *a.shape[2:])
    out[:, : a.shape[1]] = a
    out[:, a.shape[1] :] = b
    return m.head(torch.relu(out))


def overwritten(m: Net, x: Tensor) -> Tensor:
    """All of one stream is written over zeros of its own shape."""
    y = m.stem(x)
    out = torch.zeros(y.shape)
    out[...] = y
    out[:, :, 1:] += y[:, :, :-1]
    return m.head(out)


def half_overwritten(m: Net, x: Tensor) -> Tensor:
    """A temporal shift: parts of a stream move along space, in place."""
    y = m.stem(x)
    out = torch.zeros_like(y)
    c = y.shape[1] // 2
    out[:, :c, 1:] = y[:, :c, :-1]
    out[:, c:] = y[:, c:]
    return m.head(out)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "softplus": F.softplus,
    "relu6": F.relu6,
    "leaky relu": F.leaky_relu,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "hardtanh": F.hardtanh,
    "logsigmoid": F.logsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "power": lambda x: x.abs().pow(1.5),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "square root": lambda x: (x * x + 1).sqrt(),
    "exponential": torch.exp,
    "sine": torch.sin,
    "reciprocal": lambda x: 1 / (2 + x.sigmoid()),
    "sign": lambda x: x * x.sign(),
    "rounding": lambda x: x + x.round(),
    "casts": lambda x: x.double().to(x.dtype),
    "error function": torch.erf,
    "dropout": nn.Dropout2d(0.5).eval(),
    "dropout functional": lambda x: F.dropout(x, 0.5, training=False),
    "alpha dropout": nn.AlphaDropout(0.5).eval(),
    "rrelu": nn.RReLU().eval(),
    "nan to num": torch.nan_to_num,
    "masked fill": lambda x: x.masked_fill(x > 0.3, -1.0),
    "contiguous": lambda x: x.transpose(2, 3).contiguous(),
    "logaddexp": lambda x: torch.logaddexp(x, x * 2),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "dropout that never stops": lambda x: F.dropout(x, 0.5, training=True),
    "dropout of whole channels": lambda x: F.dropout2d(x, 0.5, training=True),
    "noise": lambda x: x + 0.1 * torch.randn_like(x),
    "noise of a given shape": lambda x: x * torch.rand(x.shape),
    "normal noise of a given shape": lambda x: x + torch.normal(0.0, 0.1, x.shape),
    "normal noise around": lambda x: torch.normal(x, 0.1),
    "normal noise of a given spread": lambda x: x + torch.normal(0.0, x.abs()),
    "normal noise around, of a given spread": lambda x: torch.normal(x, x.abs()),
    "exponential noise": lambda x: x * torch.empty_like(x).exponential_(),
    "heavy noise": lambda x: x + 0.1 * torch.empty_like(x).cauchy_() * torch.empty_like(x).log_normal_(),
    "counts of failures": lambda x: x * torch.empty_like(x).geometric_(0.5),
    "counts": lambda x: torch.poisson(x.abs()),
    "gumbel softmax of pixels": lambda x: F.gumbel_softmax(x, dim=-1),
    "checkpoint": lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False),
    "checkpoint, reentrant": lambda x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=True),
}

CASES = [
    *(alone(name, function) for name, function in FUNCTIONS.items()),
    met("add", torch.add),
    met("subtract", torch.sub),
    met("multiply", torch.mul),
    met("divide", lambda a, b: a / (1 + b.abs())),
    met("maximum", torch.maximum),
    met("minimum", torch.minimum),
    met("where", lambda a, b: torch.where(a > 0, a, b)),
    met("lerp", lambda a, b: torch.lerp(a, b, 0.3)),
    met("lerp by a tensor", lambda a, b: torch.lerp(a, b, b.sigmoid())),
    met("addcmul", lambda a, b: torch.addcmul(a, a, b, value=0.5)),
    met("addcdiv", lambda a, b: torch.addcdiv(a, a, b.exp())),
    met("atan2", torch.atan2),
    met("hypot", torch.hypot),
    met("sum of a list", lambda a, b: sum([a, b, a])),  # type: ignore[arg-type, return-value]
    met("mean of a stack", lambda a, b: torch.stack([a, b]).mean(0)),
    met("mean of a stack after the channels", lambda a, b: torch.stack([a, b], 2).mean(2)),
    met("a gate of one channel each", lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid()),
    # a mask of one channel couples nothing
    alone("a mask of one channel", lambda y: y * torch.ones(1, 1, 6, 5)),
    alone("a constant", lambda y: y * 2.5 + torch.tensor(0.5)),
    # position i gates position i + 4
    alone("gated linear unit", lambda y: F.glu(y, 1), leaving=4, free=4),
    alone("chunk gate", lambda y: (c := y.chunk(2, 1))[0] * c[1].sigmoid(), leaving=4, free=4),
    case("prelu", one(lambda m, y: m.act(y), act=nn.PReLU(8)), IMAGE, free=8),
    case("prelu of one slope", one(lambda m, y: m.act(y), act=nn.PReLU()), IMAGE, free=8),
    case(
        "layer scale",
        one(lambda m, y: y + m.gamma * y, gamma=vector(8, 1, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "scale [1,C,1,1]",
        one(lambda m, y: y * m.gamma, gamma=vector(1, 8, 1, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "vector viewed",
        one(lambda m, y: y * m.gamma.view(1, -1, 1, 1), gamma=vector(8)),
        IMAGE,
        free=8,
    ),
    case(
        "vector indexed",
        one(lambda m, y: y * m.gamma[None, :, None, None], gamma=vector(8)),
        IMAGE,
        free=8,
    ),
    case("scalar parameter", one(lambda m, y: y * m.gamma, gamma=vector(1)), IMAGE, free=8),
    case(
        "scalar parameter without axes",
        one(lambda m, y: y * m.gamma, gamma=vector()),
        IMAGE,
        free=8,
    ),
    case(
        "buffer for each channel",
        one(
            lambda m, y: (y - m.mean) / m.std,
            mean=torch.randn(8, 1, 1),
            std=torch.rand(1, 8, 1, 1) + 1,
        ),
        IMAGE,
        free=8,
    ),
    case(
        "buffer over space",
        one(lambda m, y: y + m.place, place=torch.randn(1, 1, 6, 5)),
        IMAGE,
        free=8,
    ),
    case(
        "position embedding [1,C,H,W]",
        one(lambda m, y: y + m.place, place=vector(1, 8, 6, 5)),
        IMAGE,
        free=8,
    ),
    case("operators in place", one(write_in_place, scale=vector(8, 1, 1)), IMAGE, free=8),
    case(
        "written side by side into zeros",
        lambda: Net(assembled, left=nn.Conv2d(3, 8, 1), right=nn.Conv2d(3, 6, 1), head=nn.Conv2d(14, 2, 1)),
        IMAGE,
        free=14,
    ),
    case(
        "written over zeros",
        lambda: Net(overwritten, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "temporal shift",
        lambda: Net(half_overwritten, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "the input changed in place",
        lambda: Net(
            lambda m, x: m.head(m.stem(x.mul_(0.5).add_(0.1))),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(8, 2, 1),
        ),
        IMAGE,
        free=8,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
