"""Numbers written into a forward are patched in the calls that hold them: what they stand for stays free."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, assert_prunes_exactly, case

IMAGE = (2, 3, 8, 8)


def free(
    name: str,
    function: Callable[..., Tensor],
    *,
    units: int,
    leaving: int = 8,
    statistics: bool = False,
    **parts: Any,
) -> Case:
    """stem, `function(net, features)`, head; 8 channels of the stem and what the function makes free."""

    def make() -> nn.Module:
        return Net(
            lambda m, x: m.head(function(m, m.stem(x))),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(leaving, 2, 1),
            **parts,
        )

    return case(name, make, IMAGE, free=units, statistics=statistics)


def flat(m: Net, y: Tensor) -> Tensor:
    return m.linear(y.view(-1, 8 * 64)).view(-1, 2, 8, 8)


def non_local_scaled(m: Net, y: Tensor) -> Tensor:
    """Scaled by the square root of a length: another length, another function."""
    q, k = m.query(y).flatten(2), m.key(y).flatten(2)
    a = (q.transpose(1, 2) @ k * q.shape[1] ** -0.5).softmax(-1)
    return (y.flatten(2) @ a).view(y.shape)


CASES = [
    free(
        "hard-coded view",
        flat,
        leaving=2,
        linear=nn.Linear(512, 128),
        units=10,
    ),
    free(
        "hard-coded reshape and back",
        lambda m, y: y.flatten(1).view(-1, 8, 8, 8),
        units=8,
    ),
    free(
        "hard-coded split",
        lambda m, y: torch.cat(y.split([3, 5], 1)[::-1], 1),
        units=8,
    ),
    free(
        "hard-coded split in equal pieces",
        lambda m, y: torch.cat(y.split(4, 1)[::-1], 1),
        units=8,
    ),
    free(
        "hard-coded expand",
        lambda m, y: y + m.mask(y).expand(-1, 8, -1, -1),
        mask=nn.Conv2d(8, 1, 1),
        units=8,
    ),
    free(
        "hard-coded zeros",
        lambda m, y: torch.cat([y, torch.zeros(len(y), 2, 8, 8)], 1) + torch.zeros(1, 10, 8, 8),
        leaving=10,
        units=10,
    ),
    free(
        "a sum divided by the number of channels",
        lambda m, y: y - y.sum(1, keepdim=True) / y.shape[1],
        units=8,
        statistics=True,
    ),
    free(
        "a number made a tensor",
        lambda m, y: y / torch.sqrt(torch.tensor(float(y.shape[1]))),
        units=8,
    ),
    free(
        "a tensor filled with a number",
        lambda m, y: y * torch.full((1,), 1 / y.shape[1]),
        units=8,
    ),
    free(
        "number of groups of a norm",
        lambda m, y: F.group_norm(y, 8),
        units=8,
    ),
    free(
        "number of groups of a convolution",
        lambda m, y: F.conv2d(y, m.w, groups=8),
        w=nn.Parameter(torch.randn(8, 1, 3, 3)),
        units=8,
    ),
    free(
        "written into a fixed width",
        lambda m, y: [z := y.new_zeros(len(y), 8, 8, 8), z[:, :8].copy_(y)][0],
        units=8,
    ),
    free(
        "heads written into a view",
        lambda m, y: y.unflatten(1, (4, 2)).softmax(3).flatten(1, 2),
        units=6,
    ),
    free(
        "attention scaled by the length",
        non_local_scaled,
        query=nn.Conv2d(8, 4, 1),
        key=nn.Conv2d(8, 4, 1),
        units=12,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)


def test_a_shortcut_padded_in_a_closure_follows() -> None:
    class Block(nn.Module):
        def __init__(self, pad: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.stem, self.a, self.b = (
                nn.Conv2d(3, 8, 1),
                nn.Conv2d(8, 12, 3, padding=1),
                nn.Conv2d(12, 12, 3, padding=1),
            )
            self.pad, self.head = pad, nn.Conv2d(12, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.stem(x))
            return self.head(torch.relu(self.pad(x) + self.b(torch.relu(self.a(x)))))

    assert_prunes_exactly(Block(lambda x: F.pad(x, (0, 0, 0, 0, 2, 2))), torch.randn(IMAGE), free=24)
    # the stem's eight and two padded ones at either end, the twelve inside
