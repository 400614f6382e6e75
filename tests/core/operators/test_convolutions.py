"""Convolutions of every kind and linear layers: whose channels go together, and how many are free."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.core.driver import Case, Net, assert_case, case

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZE = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (2, 3, 5, 4, 6)}


def around(middle: nn.Module, *, leaving: int, dims: int = 2) -> Callable[[], nn.Module]:
    """Stem (3 to 8 channels), the layer under test, head (to 4 channels)."""
    return lambda: nn.Sequential(
        CONV[dims](3, 8, 3, padding=1), nn.ReLU(), middle, nn.Sigmoid(), CONV[dims](leaving, 4, 1)
    )


def plain(dims: int) -> Case:
    # 8 units of the stem, 6 of the middle
    middle = CONV[dims](8, 6, 3, stride=2, dilation=1, padding=1)
    return case(f"conv{dims}d", around(middle, leaving=6, dims=dims), SIZE[dims], free=14)


def transposed(dims: int) -> Case:
    middle = TRANSPOSED[dims](8, 6, 3, stride=2, output_padding=1)
    return case(f"transposed {dims}d", around(middle, leaving=6, dims=dims), SIZE[dims], free=14)


def depthwise(dims: int) -> Case:
    middle = CONV[dims](8, 8, 3, groups=8)
    return case(f"depthwise {dims}d", around(middle, leaving=8, dims=dims), SIZE[dims], free=8)


def grouped(dims: int) -> Case:
    # every group of the middle loses equally many: 8 units in 4 cells of 2, 12 in 4 cells of 3
    middle = CONV[dims](8, 12, 3, groups=4)
    return case(f"grouped {dims}d", around(middle, leaving=12, dims=dims), SIZE[dims], free=20)


def around_2d(name: str, middle: nn.Module, leaving: int, free: int) -> Case:
    return case(name, around(middle, leaving=leaving), SIZE[2], free=free)


def one_weight_twice(m: Net, x: Tensor) -> Tensor:
    x = torch.relu(m.stem(x))
    return m.head(torch.relu(m.shared(torch.relu(m.shared(x)))))


def functional(m: Net, x: Tensor) -> Tensor:
    x = F.conv2d(x, m.first, m.bias, padding=1)
    return F.conv2d(torch.tanh(x), m.second)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


CASES = [
    *(make(dims) for make in (plain, transposed, depthwise, grouped) for dims in (1, 2, 3)),
    # two outputs for each input channel: a group goes as a whole
    around_2d("depthwise multiplier", nn.Conv2d(8, 16, 3, groups=8), 16, 8),
    around_2d("depthwise multiplier transposed", nn.ConvTranspose2d(8, 16, 3, groups=8), 16, 8),
    around_2d("one output for each group", nn.Conv2d(8, 4, 3, groups=4), 4, 4),
    around_2d("one output for each group transposed", nn.ConvTranspose2d(8, 4, 3, groups=4), 4, 4),
    around_2d("depthwise transposed", nn.ConvTranspose2d(8, 8, 3, groups=8), 8, 8),
    around_2d("grouped transposed", nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4), 12, 20),
    around_2d("grouped without bias", nn.Conv2d(8, 12, 3, groups=2, bias=False), 12, 20),
    # 4 groups of 6 and 6 groups of 4 on one axis of 24 channels
    case(
        "groups of 4 then 6",
        lambda: nn.Sequential(
            nn.Conv2d(3, 24, 3),
            nn.Conv2d(24, 24, 3, groups=4),
            nn.Conv2d(24, 12, 1, groups=6),
            nn.ReLU(),
            nn.Conv2d(12, 2, 1),
        ),
        (2, 3, 9, 9),
        free=60,
    ),
    case(
        "grouped after grouped of one count",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.ReLU(),
            nn.Conv2d(8, 8, 1, groups=2),
            nn.Conv2d(8, 4, 1),
        ),
        (2, 3, 5, 5),
        free=24,
    ),
    case(
        "grouped residual",
        lambda: Net(
            lambda m, x: m.head(torch.relu((y := m.stem(x)) + m.mid(y))),
            stem=nn.Conv2d(3, 8, 1),
            mid=nn.Conv2d(8, 8, 3, padding=1, groups=2),
            head=nn.Conv2d(8, 4, 1),
        ),
        (2, 3, 5, 5),
        free=8,
    ),
    case(
        "linear",
        lambda: nn.Sequential(
            nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 6, bias=False), nn.ReLU(), nn.Linear(6, 3)
        ),
        (4, 5),
        free=14,
    ),
    case(
        "linear on tokens",
        lambda: nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 3)),
        (2, 7, 5),
        free=8,
    ),
    case(
        "a module called twice",
        lambda: Net(
            one_weight_twice,
            stem=nn.Conv2d(3, 8, 3),
            shared=nn.Conv2d(8, 8, 3, padding=1),
            head=nn.Conv2d(8, 2, 1),
        ),
        (2, 3, 6, 6),
        free=8,
    ),
    case(
        "functional with bare parameters",
        lambda: Net(functional, first=parameter(8, 3, 3, 3), bias=parameter(8), second=parameter(4, 8, 1, 1)),
        (2, 3, 6, 6),
        free=8,
    ),
    case(
        "functional grouped",
        lambda: Net(
            lambda m, x: F.conv2d(F.conv2d(m.stem(x), m.w, groups=4).relu(), m.head),
            stem=nn.Conv2d(3, 8, 1),
            w=parameter(12, 2, 3, 3),
            head=parameter(2, 12, 1, 1),
        ),
        (2, 3, 6, 6),
        free=20,
        # the number 4 stays right whatever goes, as long as groups shrink evenly
    ),
    case(
        "functional depthwise with a count from the shape",
        lambda: Net(
            lambda m, x: m.head(F.conv2d(y := m.stem(x), m.w, groups=y.shape[1])),
            stem=nn.Conv2d(3, 8, 1),
            w=parameter(8, 1, 3, 3),
            head=nn.Conv2d(8, 2, 1),
        ),
        (2, 3, 6, 6),
        free=8,
    ),
    case(
        "unbatched",
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)),
        (3, 6, 6),
        free=8,
        second_batch=False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
