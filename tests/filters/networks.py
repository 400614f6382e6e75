"""Networks whose banks the tests know, and an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def scrambled(net: nn.Module) -> nn.Module:
    """Batch norms as after a training: no scale is 1, no variance either."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.uniform_(module.running_var, 0.2, 3)
            nn.init.normal_(module.running_mean)
    return net


class Branches(nn.Module):
    """Paths of 1, 2 and 3 convolutions side by side, one behind a pooling, then one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 5, padding=2)
        self.a1, self.b1, self.b2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.c1, self.c2 = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.c3 = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.pooled = nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(16, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        b = self.b2(F.relu(self.b1(x)))
        c = self.c3(F.relu(self.c2(F.relu(self.c1(x)))))
        pooled = self.pooled(F.max_pool2d(x, 3, 1, 1))
        out: Tensor = self.last(torch.cat([self.a1(x), b, c, pooled], 1))
        return out
