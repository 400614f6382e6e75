"""The CIFAR ResNet-14 of the golden vectors, with the names that the original's code gives its layers."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNet14"]


class _Stem(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Branch(nn.Module):
    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(c, out, 3, stride=stride, padding=1, bias=False)
        self.a_bn = nn.BatchNorm2d(out)
        self.b = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.b_bn = nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        return self.b_bn(self.b(F.relu(self.a_bn(self.a(x)))))


class _Block(nn.Module):
    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        if c != out:
            self.proj = nn.Conv2d(c, out, 1, stride=stride, bias=False)
            self.bn = nn.BatchNorm2d(out)
        self.f = _Branch(c, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        short = self.bn(self.proj(x)) if hasattr(self, "proj") else x
        return F.relu(short + self.f(x))


class _Stage(nn.Module):
    def __init__(self, c: int, out: int, stride: int) -> None:
        super().__init__()
        self.b1 = _Block(c, out, stride)
        self.b2 = _Block(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b2(self.b1(x))


class _Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.mean(dim=(2, 3)))


class ResNet14(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = _Stem()
        self.s1, self.s2, self.s3 = _Stage(16, 16, 1), _Stage(16, 32, 2), _Stage(32, 64, 2)
        self.head = _Head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.s3(self.s2(self.s1(self.stem(x)))))
