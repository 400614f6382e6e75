"""The building blocks of well-known networks, each small enough to count its units by hand."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Net


def conv(i: int, o: int, k: int = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


class DenseBlock(nn.Module):
    """DenseNet: every layer reads all that came before, through batch norms of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 6)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(conv(6 + 4 * i, 4, 3, bias=False) for i in range(3))
        self.head = conv(18, 2)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for norm, layer in zip(self.norms, self.layers, strict=True):
            features.append(layer(torch.relu(norm(torch.cat(features, 1)))))
        return self.head(torch.cat(features, 1))


class UNet(nn.Module):
    """Down, up, and the skip joined."""

    def __init__(self, up: nn.Module) -> None:
        super().__init__()
        self.one, self.two = conv(3, 6, 3), conv(6, 8, 3)
        self.up, self.last, self.head = up, conv(12, 5, 3), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.one(x))
        b = self.up(torch.relu(self.two(F.max_pool2d(a, 2))))
        return self.head(torch.relu(self.last(torch.cat([a, b], 1))))


class Residual(nn.Module):
    """Two blocks on one stream, the second with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = conv(3, 8), nn.BatchNorm2d(8)
        self.a, self.b = conv(8, 6, 3), conv(6, 8, 3)
        self.c, self.d, self.short = conv(8, 7, 3, stride=2), conv(7, 10, 3), conv(8, 10, stride=2)
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.b(torch.relu(self.a(x))))
        x = torch.relu(self.short(x) + self.d(torch.relu(self.c(x))))
        return self.head(x.mean((2, 3)))


class Pyramid(nn.Module):
    """A feature pyramid with one head for all levels: three outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([conv(3, 6, 3), conv(6, 8, 3, stride=2), conv(8, 10, 3, stride=2)])
        self.laterals = nn.ModuleList(conv(c, 5) for c in (6, 8, 10))
        self.tower, self.boxes, self.classes = conv(5, 5, 3), conv(5, 4), conv(5, 3)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        features = []
        for stage in self.stages:
            x = torch.relu(stage(x))
            features.append(x)
        levels = [lateral(f) for lateral, f in zip(self.laterals, features, strict=True)]
        for i in (1, 0):
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=levels[i].shape[2:])
        towers = [torch.relu(self.tower(level)) for level in levels]
        return {
            "boxes": [self.boxes(t) for t in towers],
            "scores": [self.classes(t).sigmoid() for t in towers],
        }


class Auxiliary(nn.Module):
    """A second head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = conv(3, 8, 3), conv(8, 6, 3)
        self.aux, self.aux_head = conv(8, 5), nn.Linear(5, 2)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        y = torch.relu(self.stem(x))
        out = self.head(torch.relu(self.body(y)).mean((2, 3)))
        if not self.training:
            return out
        return out, self.aux_head(F.dropout(torch.relu(self.aux(y)).mean((2, 3)), 0.5))


class StochasticDepth(nn.Module):
    """Blocks that training skips at random, sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = conv(3, 8), conv(8, 6, 3), conv(6, 8, 3), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.b(torch.relu(self.a(x)))
        if self.training:
            keep = torch.empty(len(y), 1, 1, 1).bernoulli_(0.8)
            y = y * keep.div_(0.8)
        return self.head(x + y)


def inverted_residual() -> nn.Module:
    """MobileNetV2's block: expand, depthwise, project."""
    return Net(
        lambda m, x: m.head((y := m.stem(x)) + m.project(F.relu6(m.norm(m.depthwise(F.relu6(m.expand(y))))))),
        stem=conv(3, 8),
        expand=conv(8, 16),
        depthwise=conv(16, 16, 3, groups=16),
        norm=nn.BatchNorm2d(16),
        project=conv(16, 8),
        head=conv(8, 2),
    )


def bottleneck_of_groups() -> nn.Module:
    """ResNeXt's block."""
    return Net(
        lambda m, x: m.head((y := m.stem(x)) + m.c(torch.relu(m.b(torch.relu(m.a(y)))))),
        stem=conv(3, 8),
        a=conv(8, 12),
        b=conv(12, 12, 3, groups=3),
        c=conv(12, 8),
        head=conv(8, 2),
    )


def inception() -> nn.Module:
    """Four branches of different widths, joined, with a batch norm over all."""
    return Net(
        lambda m, x: m.head(
            m.norm(
                torch.cat(
                    [
                        m.a(y := m.stem(x)),
                        m.b(torch.relu(m.b0(y))),
                        m.c(F.max_pool2d(y, 3, 1, 1)),
                        y,
                    ],
                    1,
                )
            )
        ),
        stem=conv(3, 8),
        a=conv(8, 4),
        b0=conv(8, 6),
        b=conv(6, 5, 3),
        c=conv(8, 3),
        norm=nn.BatchNorm2d(20),
        head=conv(20, 2),
    )
