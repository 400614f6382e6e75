"""Random convolutional networks: blocks of every kind that coupling has to see through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
AVERAGE = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
LARGEST = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
SMOOTH = {1: "linear", 2: "bilinear", 3: "trilinear"}
SIDE = {1: 12, 2: 6, 3: 4}

# Draw(low, high) is a whole number between the two. A block takes (dims, channels, draw) and returns a
# module and its output channels; what it takes in is a multiple of four channels wide.
Draw = Callable[[int, int], int]
Made = tuple[nn.Module, int]


class Lambda(nn.Module):
    """Modules by name and the function that uses them."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv(dims: int, c: int, out: int, **options: int) -> nn.Module:
    return CONV[dims](c, out, 3, padding=1, **options)


def plain(dims: int, c: int, draw: Draw) -> Made:
    out = 4 * draw(1, 3)
    acts = (nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.Sigmoid(), nn.PReLU(out), nn.Hardswish())
    norms = (nn.Identity(), BATCH_NORM[dims](out), INSTANCE_NORM[dims](out, affine=True))
    return nn.Sequential(conv(dims, c, out), norms[draw(0, 2)], acts[draw(0, 5)]), out


def residual(dims: int, c: int, draw: Draw) -> Made:
    inner, out = plain(dims, c, draw)
    back = conv(dims, out, c)
    if draw(0, 1):
        return Lambda(lambda s, x: x + s.back(s.inner(x)), inner=inner, back=back), c
    return Lambda(lambda s, x: s.back(s.inner(x)).add_(x), inner=inner, back=back), c


def projected(dims: int, c: int, draw: Draw) -> Made:
    inner, out = plain(dims, c, draw)
    side = CONV[dims](c, out, 1, bias=False)
    return Lambda(lambda s, x: s.inner(x) + s.side(x), inner=inner, side=side), out


def padded(dims: int, c: int, draw: Draw) -> Made:
    """The shortcut of a CIFAR ResNet: more channels, the new ones zero."""

    def add(s: nn.Module, x: Tensor) -> Tensor:
        y = s.wide(x)
        extra = y.shape[1] - x.shape[1]
        ends = [0, 0] * (x.dim() - 2) + [extra // 2, extra - extra // 2]
        return torch.relu(y + functional.pad(x, ends))

    return Lambda(add, wide=conv(dims, c, c + 4)), c + 4


def concat(dims: int, c: int, draw: Draw) -> Made:
    inner, out = plain(dims, c, draw)
    return Lambda(lambda s, x: torch.cat([s.inner(x), x], 1), inner=inner), c + out


def dense(dims: int, c: int, draw: Draw) -> Made:
    first, second = conv(dims, c, 4), conv(dims, c + 4, 4)

    def grow(s: nn.Module, x: Tensor) -> Tensor:
        x = torch.cat([x, s.first(x)], 1)
        return torch.cat([x, torch.relu(s.second(x))], 1)

    return Lambda(grow, first=first, second=second), c + 8


def branches(dims: int, c: int, draw: Draw) -> Made:
    (a, out), (b, other) = plain(dims, c, draw), plain(dims, c, draw)
    pool = AVERAGE[dims](3, 1, 1)

    def join(s: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([s.a(x.clone()), s.pool(x), s.b(x.clone())], 1)

    return Lambda(join, a=a, b=b, pool=pool), out + c + other


def halves(dims: int, c: int, draw: Draw) -> Made:
    a, b = conv(dims, c // 2, c // 2), conv(dims, c // 2, 4)
    if draw(0, 1):

        def c2f(s: nn.Module, x: Tensor) -> Tensor:
            first, second = x.chunk(2, 1)
            return torch.cat([first, second, second + s.a(second)], 1)

        return Lambda(c2f, a=a), c + c // 2

    def sides(s: nn.Module, x: Tensor) -> Tensor:
        first, second = torch.split(x, x.shape[1] // 2, 1)
        return torch.cat([s.a(first), s.b(second)], 1)

    return Lambda(sides, a=a, b=b), c // 2 + 4


def gated(dims: int, c: int, draw: Draw) -> Made:
    return nn.Sequential(conv(dims, c, 2 * c), nn.GLU(1)), c


def sliced(dims: int, c: int, draw: Draw) -> Made:
    a = conv(dims, c // 2, c // 2)

    def ghost(s: nn.Module, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        return torch.cat([x[:, half:], s.a(x[:, :half])], 1)

    return Lambda(ghost, a=a), c


def shuffle(dims: int, c: int, draw: Draw) -> Made:
    groups = (2, 4)[draw(0, 1)]

    def by_view(s: nn.Module, x: Tensor) -> Tensor:
        n, c, *rest = x.shape
        return s.after(x.view(n, groups, c // groups, *rest).transpose(1, 2).reshape(n, c, *rest))

    return Lambda(by_view, after=conv(dims, c, c)), c


def grouped(dims: int, c: int, draw: Draw) -> Made:
    groups = (2, 4)[draw(0, 1)]
    return nn.Sequential(conv(dims, c, 2 * c, groups=groups), nn.ReLU()), 2 * c


def depthwise(dims: int, c: int, draw: Draw) -> Made:
    times = draw(1, 2)
    out = 4 * draw(1, 3)
    return nn.Sequential(conv(dims, c, times * c, groups=c), CONV[dims](times * c, out, 1)), out


def transposed(dims: int, c: int, draw: Draw) -> Made:
    groups = (1, 2, c)[draw(0, 2)]
    return TRANSPOSED[dims](c, max(groups, 8), 3, padding=1, groups=groups), max(groups, 8)


def squeeze(dims: int, c: int, draw: Draw) -> Made:
    def gate(s: nn.Module, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(2)
        scale = torch.sigmoid(s.up(torch.relu(s.down(mean))))
        return x * scale.view(*scale.shape, *[1] * (x.dim() - 2))

    return Lambda(gate, down=nn.Linear(c, 4), up=nn.Linear(4, c)), c


def mask(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: x * torch.sigmoid(s.one(x)), one=conv(dims, c, 1)), c


def attention(dims: int, c: int, draw: Draw) -> Made:
    """Where to look, from the mean and the maximum over channels."""

    def look(s: nn.Module, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return s.after(x * torch.sigmoid(s.two(seen)))

    return Lambda(look, two=conv(dims, 2, 1), after=conv(dims, c, 8)), 8


def scaled(dims: int, c: int, draw: Draw) -> Made:
    """One learned factor for each channel, as a bare parameter."""
    block = Lambda(lambda s, x: x + s.gamma * s.inner(x), inner=conv(dims, c, c))
    block.gamma = nn.Parameter(torch.rand(c, *[1] * dims))
    return block, c


def shared(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: s.twice(torch.relu(s.twice(x))), twice=conv(dims, c, c)), c


def tied(dims: int, c: int, draw: Draw) -> Made:
    """Two layers with one weight, and biases of their own."""
    first, second = conv(dims, c, c), conv(dims, c, c)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second), c


def pixels(dims: int, c: int, draw: Draw) -> Made:
    if dims != 2:
        return plain(dims, c, draw)
    body = nn.Sequential(nn.PixelUnshuffle(2), conv(2, 4 * c, 16), nn.PixelShuffle(2))
    return body, 4


def group_norm(dims: int, c: int, draw: Draw) -> Made:
    return nn.Sequential(nn.GroupNorm((1, 2, c)[draw(0, 2)], c), conv(dims, c, c)), c


def layer_norm(dims: int, c: int, draw: Draw) -> Made:
    return Lambda(lambda s, x: s.norm(x.movedim(1, -1)).movedim(-1, 1), norm=nn.LayerNorm(c)), c


def next_block(dims: int, c: int, draw: Draw) -> Made:
    """A ConvNeXt block: linear layers on the channels, moved to the end."""

    def mix(s: nn.Module, x: Tensor) -> Tensor:
        y = s.norm(s.deep(x).movedim(1, -1))
        return x + s.down(functional.gelu(s.up(y))).movedim(-1, 1)

    parts = {"norm": nn.LayerNorm(c), "up": nn.Linear(c, 2 * c), "down": nn.Linear(2 * c, c)}
    return Lambda(mix, deep=conv(dims, c, c, groups=c), **parts), c


def pool(dims: int, c: int, draw: Draw) -> Made:
    return (AVERAGE, LARGEST)[draw(0, 1)][dims](3, 1, 1), c


def up_and_down(dims: int, c: int, draw: Draw) -> Made:
    """A step of a U-Net: strided, enlarged again, and joined with what was before."""
    down = CONV[dims](c, 8, 3, stride=2, padding=1)
    mode = ("nearest", SMOOTH[dims])[draw(0, 1)]

    def join(s: nn.Module, x: Tensor) -> Tensor:
        low = torch.relu(s.down(x))
        return torch.cat([functional.interpolate(low, x.shape[2:], mode=mode), x], 1)

    return Lambda(join, down=down), c + 8


BLOCKS = (plain, residual, projected, padded, concat, dense, branches, halves, gated, sliced, shuffle)
BLOCKS += (grouped, depthwise, transposed, squeeze, mask, attention, scaled, shared, tied, pixels)
BLOCKS += (group_norm, layer_norm, next_block, pool, up_and_down)


NAMES = [block.__name__ for block in BLOCKS]


class RandomNet(nn.Module):
    """A stem, some blocks, perhaps a long shortcut, and a head with one or two outputs."""

    def __init__(self, dims: int, kinds: list[int], draw: Draw) -> None:
        super().__init__()
        channels = 4 * draw(1, 3)
        self.stem = conv(dims, 3, channels)
        self.blocks = nn.ModuleList()
        widths = [channels]
        for kind in kinds:
            # Blocks may halve and group: keep the width a multiple of four and bounded.
            if channels % 4 or channels > 32:
                block, channels = conv(dims, channels, 8), 8
            else:
                block, channels = BLOCKS[kind](dims, channels, draw)
            self.blocks.append(block)
            widths.append(channels)
        # What one block made is added to the end, where it fits.
        self.shortcut = (*(i for i, c in enumerate(widths[:-1]) if c == channels), None)[0]
        self.shortcut = self.shortcut if draw(0, 1) else None
        self.flat = bool(draw(0, 1))
        self.head = nn.Linear(channels * SIDE[dims] ** dims if self.flat else channels, 3)
        self.side = conv(dims, channels, 2) if draw(0, 1) else None

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        made = [self.stem(x)]
        for block in self.blocks:
            made.append(block(made[-1].clone()))
        x = made[-1] if self.shortcut is None else made[-1] + made[self.shortcut]
        features = x.flatten(1) if self.flat else x.flatten(2).mean(2)
        out = self.head(features)
        return out if self.side is None else (out, self.side(x))


@dataclass(frozen=True)
class Case:
    """A random network by its few choices, so that a failure is read and built again at a glance."""

    dims: int
    kinds: tuple[str, ...]
    seed: int

    def build(self) -> tuple[RandomNet, Tensor]:
        """The network in eval mode and an example batch of two."""
        torch.manual_seed(self.seed)
        generator = np.random.default_rng(self.seed)
        numbers = [NAMES.index(kind) for kind in self.kinds]
        net = RandomNet(self.dims, numbers, lambda low, high: int(generator.integers(low, high + 1)))
        return net.eval(), torch.randn(2, 3, *[SIDE[self.dims]] * self.dims)


def networks() -> st.SearchStrategy[Case]:
    """Random networks; a failure shrinks to the few blocks that it takes."""
    kinds = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6).map(tuple)
    return st.builds(Case, st.sampled_from((2, 1, 3)), kinds, st.integers(0, 2**16))
