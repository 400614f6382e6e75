"""Views, permutations, flattening and shuffles: channels are followed position by position."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case, one

IMAGE = (2, 3, 8, 6)
Function = Callable[..., Tensor]


def to_linear(function: Function, width: int, *, channels: int = 8, **parts: Any) -> Callable[[], nn.Module]:
    return lambda: Net(
        lambda m, x: m.head(function(m, m.stem(x))),
        stem=nn.Conv2d(3, channels, 1),
        head=nn.Linear(width, 2),
        **parts,
    )


def sampler() -> nn.Module:
    """Two steps that begin with the last image; blocks of 2 x 2 are read twice, and 4 x 4 written at once."""

    def blocks(y: Tensor) -> Tensor:
        return y.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)

    def step(m: Net, x: Tensor) -> Tensor:
        out = m.write(m.merge(blocks(m.read(blocks(x)).relu())).relu())
        return x + out.unflatten(-1, (4, 4, 3)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    return Net(
        lambda m, x: step(m, step(m, x)),
        read=nn.Linear(4 * 3, 6),
        merge=nn.Linear(4 * 6, 5),
        write=nn.Linear(5, 4 * 4 * 3),
    )


def shuffle(groups: int) -> Function:
    """ShuffleNet: [g, c/g] transposed, with g written into forward."""

    def forward(m: Net, y: Tensor) -> Tensor:
        n, c, h, w = y.shape
        return y.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)

    return forward


def shuffle_by_columns(columns: int) -> Function:
    """The same, with the columns written into forward and the number of groups following."""

    def forward(m: Net, y: Tensor) -> Tensor:
        n, c, h, w = y.shape
        return y.view(n, c // columns, columns, h, w).transpose(1, 2).reshape(n, c, h, w)

    return forward


def space_to_depth(m: Net, y: Tensor) -> Tensor:
    """YOLOv5's Focus."""
    return torch.cat([y[..., ::2, ::2], y[..., 1::2, ::2], y[..., ::2, 1::2], y[..., 1::2, 1::2]], 1)


def space_to_depth_by_view(m: Net, y: Tensor) -> Tensor:
    n, c, h, w = y.shape
    return y.view(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 1, 2, 4).reshape(n, 4 * c, h // 2, w // 2)


def depth_to_space_by_view(m: Net, y: Tensor) -> Tensor:
    """Blocks of channels in front: [r, r, c]."""
    n, c, h, w = y.shape
    return y.view(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def pixel_shuffle_by_view(m: Net, y: Tensor) -> Tensor:
    """Blocks of channels behind: [c, r, r]."""
    n, c, h, w = y.shape
    return y.view(n, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // 4, 2 * h, 2 * w)


def windows(m: Net, y: Tensor) -> Tensor:
    """Window partition, work inside the windows, and back."""
    n, c, h, w = y.shape
    t = y.view(n, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    t = torch.relu(t)
    return t.view(n, h // 2, w // 2, 2, 2, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def nhwc(function: Function) -> Function:
    return lambda m, y: function(m, y.permute(0, 2, 3, 1))


def maxout(m: Net, y: Tensor) -> Tensor:
    """Goodfellow et al. 2013: the largest of each run of 2 channels."""
    return y.view(len(y), y.shape[1] // 2, 2, *y.shape[2:]).amax(2)


def maxout_of_halves(m: Net, y: Tensor) -> Tensor:
    return y.view(len(y), 2, y.shape[1] // 2, *y.shape[2:]).max(1).values


CASES = [
    case("flatten to linear", to_linear(lambda m, y: y.flatten(1), 8 * 48), IMAGE, free=8),
    case("flatten layer", to_linear(lambda m, y: m.flat(y), 8 * 48, flat=nn.Flatten()), IMAGE, free=8),
    case("view(n, -1)", to_linear(lambda m, y: y.view(len(y), -1), 8 * 48), IMAGE, free=8),
    case(
        "reshape to the length",
        to_linear(lambda m, y: y.reshape(len(y), y.shape[1] * 48), 8 * 48),
        IMAGE,
        free=8,
    ),
    case("NHWC flatten to linear", to_linear(nhwc(lambda m, y: y.flatten(1)), 8 * 48), IMAGE, free=8),
    case(
        "NHCW flatten to linear",
        to_linear(lambda m, y: y.permute(0, 2, 1, 3).flatten(1), 8 * 48),
        IMAGE,
        free=8,
    ),
    case(
        "view with the size in an attribute",
        to_linear(lambda m, y: y.view(-1, m.features), 8 * 48, features=384),
        IMAGE,
        free=8,
    ),
    case(
        "unflatten with sizes in attributes",
        one(lambda m, y: y.flatten(1).view(-1, m.c, 8, 6), c=8),
        IMAGE,
        free=8,
    ),
    case("flatten of space", one(lambda m, y: y.flatten(2).unflatten(2, (8, 6))), IMAGE, free=8),
    case("tokens to linear", to_linear(lambda m, y: y.flatten(2).transpose(1, 2), 8), IMAGE, free=8),
    case(
        "tokens and back",
        one(lambda m, y: y.flatten(2).permute(0, 2, 1).transpose(1, 2).view(y.shape)),
        IMAGE,
        free=8,
    ),
    case(
        "channels last and back",
        one(lambda m, y: y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)),
        IMAGE,
        free=8,
    ),
    case(
        "movedim, swapaxes, mT",
        one(lambda m, y: y.movedim(1, -1).swapaxes(1, 3).mT.mT.swapaxes(1, 3).movedim(-1, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "squeeze and unsqueeze",
        one(lambda m, y: y.mean((2, 3), True).squeeze(3).squeeze(-1)[..., None, None]),
        IMAGE,
        free=8,
    ),
    case(
        "time folded into the batch",
        lambda: Net(
            lambda m, x: m.head(m.stem(x.flatten(0, 1)).unflatten(0, x.shape[:2]).mean(1)),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(8, 2, 1),
        ),
        (2, 4, 3, 5, 5),
        free=8,
    ),
    case(
        "pixel shuffle",
        one(lambda m, y: F.pixel_shuffle(y, 2), channels=16, leaving=4),
        IMAGE,
        free=4,
    ),
    case(
        "pixel shuffle layer by 3",
        one(lambda m, y: m.up(y), channels=18, leaving=2, up=nn.PixelShuffle(3)),
        IMAGE,
        free=2,
    ),
    case("pixel unshuffle", one(lambda m, y: F.pixel_unshuffle(y, 2), leaving=32), IMAGE, free=8),
    case("pixel shuffle by view", one(pixel_shuffle_by_view, channels=16, leaving=4), IMAGE, free=4),
    case("steps from image to image", sampler, (2, 8, 8, 3), free=6 + 5),
    case("depth to space by view", one(depth_to_space_by_view, channels=16, leaving=4), IMAGE, free=4),
    case("space to depth by slices", one(space_to_depth, leaving=32), IMAGE, free=8),
    case("space to depth by view", one(space_to_depth_by_view, leaving=32), IMAGE, free=8),
    # two groups of four columns: columns go as a whole
    case(
        "channel shuffle",
        one(lambda m, y: m.shuffle(y), shuffle=nn.ChannelShuffle(2)),
        IMAGE,
        free=4,
    ),
    case("channel shuffle by view", one(shuffle(2)), IMAGE, free=6),
    case("channel shuffle of many groups", one(shuffle(4)), IMAGE, free=6),
    case("channel shuffle of equal sides", one(shuffle(4), channels=16, leaving=16), IMAGE, free=8),
    case("channel shuffle by columns", one(shuffle_by_columns(4)), IMAGE, free=6),
    case("channel shuffle by few columns", one(shuffle_by_columns(2)), IMAGE, free=6),
    case(
        "channel shuffle by columns of equal sides",
        one(shuffle_by_columns(4), channels=16, leaving=16),
        IMAGE,
        free=8,
    ),
    case("window partition", one(windows), IMAGE, free=8),
    case(
        "unfold and fold",
        one(lambda m, y: F.fold(F.unfold(y, 3, padding=1), y.shape[2:], 3, padding=1)),
        IMAGE,
        free=8,
    ),
    case(
        "unfold to linear",
        to_linear(lambda m, y: F.unfold(y, 2, stride=2).transpose(1, 2), 32),
        IMAGE,
        free=8,
    ),
    case(
        "sliding windows of space",
        one(lambda m, y: y.unfold(2, 2, 2).unfold(3, 3, 3).mean((4, 5))),
        IMAGE,
        free=8,
    ),
    case("maxout", one(maxout, leaving=4), IMAGE, free=6, statistics=True),
    case("maxout of halves", one(maxout_of_halves, leaving=4), IMAGE, free=6, statistics=True),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
