"""Concatenation, splitting, slicing, stacking, repeating: each piece keeps its own channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case, one

IMAGE = (2, 3, 6, 5)
Function = Callable[..., Tensor]


def two(
    function: Function, *, widths: tuple[int, int] = (8, 6), leaving: int = 14, **parts: Any
) -> Callable[[], nn.Module]:
    """`function(net, left, right)` between two stems and a head."""
    return lambda: Net(
        lambda m, x: m.head(function(m, m.left(x), m.right(x))),
        left=nn.Conv2d(3, widths[0], 1),
        right=nn.Conv2d(3, widths[1], 1),
        head=nn.Conv2d(leaving, 2, 1),
        **parts,
    )


def misaligned(m: Net, a: Tensor, b: Tensor) -> Tensor:
    """8 + 6 channels joined, then split 5 + 9: the border of the split cuts through the first piece."""
    first, second = torch.cat([a, b], 1).split(m.sizes, 1)
    return torch.cat([second.relu(), first], 1)


def sizes_from_attributes(m: Net, y: Tensor) -> Tensor:
    a, b = y.split(m.sizes, 1)
    return torch.cat([b, a.relu()], 1)


def c2f(m: Net, x: Tensor) -> Tensor:
    """The C2f block of YOLOv8: chunk, a chain of bottlenecks with residuals, everything joined."""
    y = list(m.enter(x).chunk(2, 1))
    for block in (m.block1, m.block2):
        y.append(y[-1] + torch.relu(block(y[-1])))
    return m.leave(torch.cat(y, 1))


def c2f_by_split(m: Net, x: Tensor) -> Tensor:
    """The same as exported: split into listed sizes that a module attribute holds."""
    y = list(m.enter(x).split((m.c, m.c), 1))
    for block in (m.block1, m.block2):
        y.append(y[-1] + torch.relu(block(y[-1])))
    return m.leave(torch.cat(y, 1))


def c2f_parts(**more: Any) -> dict[str, Any]:
    return {
        "enter": nn.Conv2d(3, 12, 1),
        "block1": nn.Conv2d(6, 6, 3, padding=1),
        "block2": nn.Conv2d(6, 6, 3, padding=1),
        "leave": nn.Conv2d(24, 2, 1),
        **more,
    }


def rotated_then_halved(m: Net, y: Tensor) -> Tensor:
    """Few channels, two bounds: one in an attribute, one half the length. Neither may pass by chance."""
    y = torch.cat([y[:, m.first :], y[:, : m.first].tanh()], 1)
    y = y + m.mid(y)
    return torch.cat([y[:, y.shape[1] // 2 :], y[:, : y.shape[1] // 2].tanh()], 1)


def normed_then_sliced(m: Net, a: Tensor, b: Tensor) -> Tensor:
    """The first two channels go another way, after groups that lie across both streams."""
    y = m.norm(torch.cat([b, a], 1)).sigmoid()
    return torch.cat([y[:, :2], y[:, 2:].tanh()], 1)


class Ghost(nn.Module):
    """GhostNet's module: half the maps from a convolution, half from cheap ones, cut to `oup`."""

    def __init__(self, oup: int, width: int) -> None:
        super().__init__()
        self.oup = oup
        self.primary = nn.Conv2d(3, width, 1)
        self.cheap = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.head = nn.Conv2d(oup, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.primary(x))
        return self.head(torch.cat([a, torch.relu(self.cheap(a))], 1)[:, : self.oup])


class OptionA(nn.Module):
    """ResNet-CIFAR's shortcut A: every second pixel, new channels padded with zeros."""

    def __init__(self, pad: Callable[[OptionA, Tensor], Tensor], stride: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 16, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.before, self.after = 4, 4
        self.pad = pad
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.conv2(torch.relu(self.conv1(x)))
        return self.head(torch.relu(y + self.pad(self, x)))


def pad_by_attributes(m: OptionA, x: Tensor) -> Tensor:
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, m.before, m.after))


def pad_by_closure(m: OptionA, x: Tensor) -> Tensor:
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))


def pad_by_zeros(m: OptionA, x: Tensor) -> Tensor:
    """Zeros of the length that is missing, at the end."""
    x = x[:, :, ::2, ::2]
    return torch.cat([x, x.new_zeros(len(x), m.conv2.out_channels - x.shape[1], *x.shape[2:])], 1)


def coordinates(m: Net, x: Tensor) -> Tensor:
    """CoordConv: two channels of coordinates in front of the features."""
    y = torch.relu(m.stem(x))
    rows = torch.linspace(-1, 1, y.shape[2]).view(1, 1, -1, 1).expand(len(y), 1, *y.shape[2:])
    columns = torch.linspace(-1, 1, y.shape[3]).view(1, 1, 1, -1).expand(len(y), 1, *y.shape[2:])
    return m.head(torch.cat([rows, columns, y], 1))


CASES = [
    case(
        "rotated, then halved",
        one(rotated_then_halved, channels=6, leaving=6, first=2, mid=nn.Conv2d(6, 6, 1)),
        IMAGE,
        free=6,
    ),
    # 14 channels in two groups of the norm, of which each side of the bound keeps one
    case(
        "normed across streams, then sliced",
        two(normed_then_sliced, norm=nn.GroupNorm(2, 14)),
        IMAGE,
        free=13,
        statistics=True,
    ),
    # both groups lose alike, so that the right stream might lose all it has: one channel of it stays
    case(
        "cat read by groups",
        two(
            lambda m, a, b: m.mid(torch.cat([a, b], 1)),
            widths=(12, 6),
            leaving=4,
            mid=nn.Conv2d(18, 4, 3, groups=2),
        ),
        IMAGE,
        free=21,
        pinned={"right": "one channel of right.weight has to stay"},
    ),
    case("cat", two(lambda m, a, b: torch.cat([a, b], 1)), IMAGE, free=14),
    case(
        "cat of one tensor twice",
        one(lambda m, y: torch.cat([y, y.relu()], 1), leaving=16),
        IMAGE,
        free=8,
    ),
    case(
        "cat of three, one in the middle pinned",
        two(lambda m, a, b: torch.cat([a, torch.ones(len(a), 2, 6, 5).cumsum(1), b], 1), leaving=16),
        IMAGE,
        free=14,
    ),
    case(
        "cat over space",
        two(lambda m, a, b: torch.cat([a, b], 2), widths=(8, 8), leaving=8),
        IMAGE,
        free=8,
    ),
    case(
        "cat over the batch",
        two(lambda m, a, b: torch.cat([a, b], 0), widths=(8, 8), leaving=8),
        IMAGE,
        free=8,
    ),
    case("cat with the input", one(lambda m, y: y), IMAGE, free=8),
    case(
        "cat with the network input",
        lambda: Net(
            lambda m, x: m.head(torch.cat([x, torch.relu(m.stem(x))], 1)),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(11, 2, 1),
        ),
        IMAGE,
        free=8,
    ),
    case(
        "coordinates before features",
        lambda: Net(coordinates, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(10, 2, 1)),
        IMAGE,
        free=8,
    ),
    case(
        "cat then add",
        two(lambda m, a, b: torch.cat([a, b], 1) + torch.cat([b, a], 1), widths=(4, 4), leaving=8),
        IMAGE,
        free=4,
    ),
    case(
        "cat then split where it was joined",
        two(
            lambda m, a, b: torch.cat([a, b], 1).split([a.shape[1], b.shape[1]], 1)[1].relu(),
            leaving=6,
        ),
        IMAGE,
        free=14,
    ),
    case("cat, misaligned split", two(misaligned, leaving=14, sizes=(5, 9)), IMAGE, free=14),
    case("chunk in two", one(lambda m, y: torch.cat([*y.chunk(2, 1)][::-1], 1)), IMAGE, free=8),
    case(
        "chunk in four",
        one(lambda m, y: torch.cat([t.relu() for t in y.chunk(4, 1)][::-1], 1)),
        IMAGE,
        free=8,
    ),
    case(
        "split in equal pieces of the length",
        one(lambda m, y: torch.cat(y.split(y.shape[1] // 2, 1)[::-1], 1)),
        IMAGE,
        free=8,
    ),
    case("split into sizes in an attribute", one(sizes_from_attributes, sizes=[3, 5]), IMAGE, free=8),
    case("tensor_split", one(lambda m, y: torch.cat(y.tensor_split(2, 1)[::-1], 1)), IMAGE, free=8),
    case(
        "unequal slices of the length",
        one(lambda m, y: torch.cat([y[:, y.shape[1] // 4 :], y[:, : y.shape[1] // 4]], 1)),
        IMAGE,
        free=8,
    ),
    case(
        "halves by slicing",
        one(lambda m, y: torch.cat([y[:, y.shape[1] // 2 :].relu(), y[:, : y.shape[1] // 2]], 1)),
        IMAGE,
        free=8,
    ),
    case(
        "halves by slicing, added",
        one(lambda m, y: y[:, y.shape[1] // 2 :] * y[:, : y.shape[1] // 2], leaving=4),
        IMAGE,
        free=4,
    ),
    case(
        "narrow",
        one(
            lambda m, y: torch.cat([y.narrow(1, y.shape[1] // 2, y.shape[1] // 2), y], 1),
            leaving=12,
        ),
        IMAGE,
        free=8,
    ),
    case(
        "slice bound in an attribute",
        one(lambda m, y: torch.cat([y[:, m.c :], y[:, : m.c]], 1), c=3),
        IMAGE,
        free=8,
    ),
    case(
        "slice bound written into forward",
        one(lambda m, y: torch.cat([y[:, :4].relu(), y[:, 4:]], 1)),
        IMAGE,
        free=8,
    ),
    case(
        "last channels by a negative bound",
        one(lambda m, y: torch.cat([y[:, -4:].relu(), y[:, :-4]], 1)),
        IMAGE,
        free=8,
    ),
    # one channel is a mask, the others are features
    case(
        "first channel as a mask",
        one(lambda m, y: y[:, :1].sigmoid() * y[:, 1:], leaving=7),
        IMAGE,
        free=7,
    ),
    case(
        "one channel selected as a mask",
        one(lambda m, y: y[:, 0][:, None].sigmoid() * y),
        IMAGE,
        free=7,
    ),
    case(
        "every second channel",
        one(lambda m, y: y[:, ::2] * y[:, 1::2].sigmoid(), leaving=4),
        IMAGE,
        free=4,
    ),
    case(
        "stack and sum",
        two(lambda m, a, b: torch.stack([a, b]).sum(0), widths=(8, 8), leaving=8),
        IMAGE,
        free=8,
    ),
    case(
        "stack interleaved into channels",
        two(lambda m, a, b: torch.stack([a, b], 2).flatten(1, 2), widths=(8, 8), leaving=16),
        IMAGE,
        free=8,
    ),
    case(
        "stack in front of the channels",
        two(lambda m, a, b: torch.stack([a, b], 1).flatten(1, 2), widths=(8, 8), leaving=16),
        IMAGE,
        free=8,
    ),
    case(
        "unbind of a stack",
        two(lambda m, a, b: (s := torch.stack([a, b]).unbind(0))[0] * s[1], widths=(8, 8), leaving=8),
        IMAGE,
        free=8,
    ),
    case("repeat over channels", one(lambda m, y: y.repeat(1, 2, 1, 1), leaving=16), IMAGE, free=8),
    case("repeat interleaved", one(lambda m, y: y.repeat_interleave(2, 1), leaving=16), IMAGE, free=8),
    case("repeat over space", one(lambda m, y: y.repeat(1, 1, 2, 3)), IMAGE, free=8),
    case("tile", one(lambda m, y: y.tile(1, 3, 1, 1), leaving=24), IMAGE, free=8),
    case("flip over channels", one(lambda m, y: y.flip(1)), IMAGE, free=8),
    # channel i meets channel 7 - i
    case("flip over channels, added", one(lambda m, y: y + y.flip(1).relu()), IMAGE, free=4),
    case("C2f", lambda: Net(c2f, **c2f_parts()), IMAGE, free=12),
    case("C2f by split", lambda: Net(c2f_by_split, **c2f_parts(c=6)), IMAGE, free=12),
    case("ghost module", lambda: Ghost(16, 8), IMAGE, free=8),
    case("ghost module cut to fewer", lambda: Ghost(15, 8), IMAGE, free=8),
    # 8 of the stem; the stream of 16 holds them and 8 more; 16 inside
    case("option A, attributes", lambda: OptionA(pad_by_attributes), (2, 3, 8, 8), free=32),
    case("option A, zeros for what is missing", lambda: OptionA(pad_by_zeros), (2, 3, 8, 8), free=32),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
