"""Pooling, padding, interpolation: channels pass through them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.core.driver import Case, Net, assert_case, case

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
SHAPE = {1: (2, 3, 12), 2: (2, 3, 8, 8), 3: (2, 3, 8, 8, 8)}


def through(name: str, layer: Any, dims: int = 2) -> Case:
    """Stem (8 channels), the layer, head: 8 units."""
    return case(
        f"{name} {dims}d",
        lambda: Net(
            lambda m, x: m.head(layer(m.stem(x))),
            stem=CONV[dims](3, 8, 1),
            head=CONV[dims](8, 2, 1),
        ),
        SHAPE[dims],
        free=8,
    )


def pools() -> list[Case]:
    kinds = {
        "max pool": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        "average pool": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        "adaptive average pool": (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        "adaptive max pool": (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
    }
    cases = [through(n, kind(2), d) for n, kinds_ in kinds.items() for d, kind in enumerate(kinds_, 1)]
    lp = (nn.LPPool1d, nn.LPPool2d, nn.LPPool3d)
    cases += [through("lp pool", kind(2, 2), d) for d, kind in enumerate(lp, 1)]
    cases += [through("adaptive average pool to one", nn.AdaptiveAvgPool2d(1))]
    cases += [through("adaptive average pool to a third", nn.AdaptiveAvgPool2d(3))]
    cases += [through("max pool, ceil and dilated", nn.MaxPool2d(2, dilation=2, ceil_mode=True))]
    return cases


def paddings() -> list[Case]:
    cases = []
    for mode in ("reflect", "replicate", "circular", "constant"):
        for dims in (1, 2, 3):
            amount = [1] * (2 * dims)
            cases.append(through(f"pad {mode}", lambda x, a=amount, m=mode: F.pad(x, a, mode=m), dims))
    cases.append(through("pad cropping", lambda x: F.pad(x, (-1, 1, 2, -2))))
    cases.append(through("zero pad layer", nn.ZeroPad2d(1)))
    for mode in ("zeros", "reflect", "replicate", "circular"):
        conv = nn.Conv2d(8, 8, 3, padding=1, padding_mode=mode, groups=8)
        cases.append(
            case(
                f"convolution padding with {mode}",
                lambda conv=conv: nn.Sequential(nn.Conv2d(3, 8, 1), conv, nn.Conv2d(8, 2, 1)),
                SHAPE[2],
                free=8,
            )
        )
    return cases


def interpolations() -> list[Case]:
    modes = {
        1: ("nearest", "linear", "nearest-exact", "area"),
        2: ("nearest", "bilinear", "bicubic", "nearest-exact", "area"),
    }
    modes[3] = ("nearest", "trilinear", "nearest-exact", "area")
    cases = [
        through(f"interpolate {mode}", lambda x, m=mode: F.interpolate(x, scale_factor=2, mode=m), dims)
        for dims, names in modes.items()
        for mode in names
    ]
    cases.append(
        through(
            "bilinear antialias",
            lambda x: F.interpolate(x, size=(5, 4), mode="bilinear", antialias=True),
        )
    )
    cases.append(through("upsample layer", nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)))
    return cases


def resampled(m: Net, x: torch.Tensor) -> torch.Tensor:
    """A spatial transformer: the grid comes from a constant, the channels pass."""
    y = m.stem(x)
    grid = F.affine_grid(torch.eye(2, 3).expand(len(y), 2, 3).to(y), list(y.shape), align_corners=False)
    return m.head(F.grid_sample(y, grid * 0.7, align_corners=False))


def unpooled(m: Net, x: torch.Tensor) -> torch.Tensor:
    """SegNet: indices of the encoder's pooling place the decoder's values."""
    y, places = F.max_pool2d(torch.relu(m.stem(x)), 2, return_indices=True)
    return m.head(F.max_unpool2d(m.inner(y), places, 2))


CASES = [
    *pools(),
    *paddings(),
    *interpolations(),
    case(
        "grid sample",
        lambda: Net(resampled, stem=nn.Conv2d(3, 8, 1), head=nn.Conv2d(8, 2, 1)),
        SHAPE[2],
        free=8,
    ),
    # the decoder's channel c is placed by the encoder's channel c
    case(
        "max unpool",
        lambda: Net(unpooled, stem=nn.Conv2d(3, 8, 1), inner=nn.Conv2d(8, 8, 1), head=nn.Conv2d(8, 2, 1)),
        SHAPE[2],
        free=8,
    ),
    through("roll over space", lambda x: x.roll((1, 2), (2, 3))),
    through("flip over space", lambda x: x.flip(3)),
    through("rotation by a quarter", lambda x: x.rot90(1, (2, 3))),
    through("slices of space", lambda x: x[:, :, ::2, 1:]),
    through("global mean", lambda x: x.mean((2, 3), keepdim=True)),
    through("global max", lambda x: x.amax((2, 3), keepdim=True)),
    through("global standard deviation", lambda x: x.std((2, 3), keepdim=True)),
    through("mean over one axis", lambda x: x.mean(2, keepdim=True)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)


@pytest.mark.parametrize("pool", [F.avg_pool2d, F.max_pool2d])
def test_pooling_over_tokens_alone_lets_their_features_pass(pool: Any) -> None:
    """Windows of one feature each: what Funnel transformers pool by."""

    def forward(m: Net, x: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = m.head(pool(m.stem(x)[:, None], (2, 1), (2, 1))[:, 0])
        return pooled

    assert_case(
        case(
            "tokens pooled",
            lambda: Net(forward, stem=nn.Linear(5, 8), head=nn.Linear(8, 2)),
            (2, 6, 5),
            free=8,
        )
    )
