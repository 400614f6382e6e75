"""Normalisation layers: per-channel ones are exact, those that share statistics say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply
from tests.core.driver import Case, Net, assert_case, case, plan_without

IMAGE = (2, 3, 6, 5)


def around(norm: nn.Module, dims: int = 2) -> Callable[[], nn.Module]:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    return lambda: nn.Sequential(conv(3, 8, 3, padding=1), norm, nn.ReLU(), conv(8, 4, 1))


def norm(name: str, layer: nn.Module, shape: tuple[int, ...] = IMAGE, **options: Any) -> Case:
    return case(name, around(layer, len(shape) - 2), shape, free=8, **options)


def channels_last(layer: nn.Module) -> Callable[[], nn.Module]:
    def forward(m: Net, x: Tensor) -> Tensor:
        return m.head(m.norm(m.stem(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    return lambda: Net(forward, stem=nn.Conv2d(3, 8, 1), norm=layer, head=nn.Conv2d(8, 4, 1))


def standardised(m: Net, x: Tensor) -> Tensor:
    """Weight standardisation of the second convolution, as in Qiao et al. 2019."""
    w = m.mid.weight
    w = w - w.mean(dim=(1, 2, 3), keepdim=True)
    w = w / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
    return m.head(torch.relu(F.conv2d(torch.sigmoid(m.stem(x)), w, m.mid.bias)))


def standardised_by_batch_norm(m: Net, x: Tensor) -> Tensor:
    """The same written as a batch norm of the weight (timm's StdConv2d)."""
    w = m.mid.weight
    w = F.batch_norm(w.reshape(1, len(w), -1), None, None, training=True, momentum=0.0).reshape_as(w)
    return m.head(torch.relu(F.conv2d(torch.sigmoid(m.stem(x)), w, m.mid.bias)))


def three_convs(forward: Callable[..., Tensor]) -> Callable[[], nn.Module]:
    return lambda: Net(forward, stem=nn.Conv2d(3, 8, 3), mid=nn.Conv2d(8, 6, 3), head=nn.Conv2d(6, 2, 1))


def reparametrised(wrap: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        wrap(nn.Conv2d(3, 8, 3), **options),
        nn.Sigmoid(),
        wrap(nn.Conv2d(8, 6, 3), **options),
        nn.Sigmoid(),
        nn.Conv2d(6, 2, 1),
    ).eval()


def spectral_linear(wrap: Callable[..., nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(
        wrap(nn.Linear(5, 8)), nn.Sigmoid(), wrap(nn.Linear(8, 6)), nn.Sigmoid(), nn.Linear(6, 2)
    ).eval()


old, new = nn.utils, nn.utils.parametrizations
SHARED = {"statistics": True}

CASES = [
    norm("batch norm 1d", nn.BatchNorm1d(8), (2, 3, 9)),
    norm("batch norm 2d", nn.BatchNorm2d(8)),
    norm("batch norm 3d", nn.BatchNorm3d(8), (2, 3, 4, 4, 4)),
    norm("batch norm without affine", nn.BatchNorm2d(8, affine=False)),
    norm("batch norm without running statistics", nn.BatchNorm2d(8, track_running_stats=False)),
    norm("batch norm bare", nn.BatchNorm2d(8, affine=False, track_running_stats=False)),
    norm("sync batch norm in eval mode", nn.SyncBatchNorm(8)),
    norm("instance norm", nn.InstanceNorm2d(8)),
    norm("instance norm 1d affine", nn.InstanceNorm1d(8, affine=True), (2, 3, 9)),
    norm("instance norm affine", nn.InstanceNorm2d(8, affine=True)),
    norm("instance norm 3d", nn.InstanceNorm3d(8, affine=True), (2, 3, 4, 4, 4)),
    norm("instance norm tracking", nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
    norm("instance norm tracking bare", nn.InstanceNorm2d(8, track_running_stats=True)),
    norm("group norm", nn.GroupNorm(2, 8), statistics=True),
    norm("group norm without affine", nn.GroupNorm(2, 8, affine=False), statistics=True),
    norm("group norm of one group", nn.GroupNorm(1, 8), statistics=True),
    norm("group norm of one channel each", nn.GroupNorm(8, 8)),
    norm("layer norm [C,H,W]", nn.LayerNorm([8, 6, 5]), statistics=True),
    norm(
        "layer norm [C,H,W] without affine",
        nn.LayerNorm([8, 6, 5], elementwise_affine=False),
        statistics=True,
    ),
    case("layer norm over channels", channels_last(nn.LayerNorm(8)), IMAGE, free=8, statistics=True),
    case(
        "layer norm without bias",
        channels_last(nn.LayerNorm(8, bias=False)),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case(
        "layer norm without affine",
        channels_last(nn.LayerNorm(8, elementwise_affine=False)),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case("rms norm", channels_last(nn.RMSNorm(8)), IMAGE, free=8, statistics=True),
    case(
        "rms norm without affine",
        channels_last(nn.RMSNorm(8, elementwise_affine=False)),
        IMAGE,
        free=8,
        statistics=True,
    ),
    norm("layer norm over space", nn.LayerNorm([6, 5])),
    case("weight standardisation", three_convs(standardised), (2, 3, 8, 8), free=14, statistics=True),
    case(
        "weight standardisation by batch norm",
        three_convs(standardised_by_batch_norm),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case("weight norm, old", reparametrised(old.weight_norm), (2, 3, 8, 8), free=14, statistics=True),
    case(
        "weight norm, parametrised",
        reparametrised(new.weight_norm),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case(
        "weight norm over dim 1",
        reparametrised(new.weight_norm, dim=1),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case(
        "weight norm over everything",
        reparametrised(new.weight_norm, dim=None),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case(
        "spectral norm, old",
        reparametrised(old.spectral_norm),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case(
        "spectral norm, parametrised",
        reparametrised(new.spectral_norm),
        (2, 3, 8, 8),
        free=14,
        statistics=True,
    ),
    case(
        "spectral norm of linear, old",
        spectral_linear(old.spectral_norm),
        (3, 5),
        free=14,
        statistics=True,
    ),
    case(
        "spectral norm of linear, parametrised",
        spectral_linear(new.spectral_norm),
        (3, 5),
        free=14,
        statistics=True,
    ),
    case(
        "features divided by their length",
        lambda: Net(
            lambda m, x: m.head(F.normalize(m.stem(x), dim=1)),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(8, 2, 1),
        ),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case(
        "mean over channels subtracted",
        lambda: Net(
            lambda m, x: m.head((y := m.stem(x)) - y.mean(1, keepdim=True)),
            stem=nn.Conv2d(3, 8, 1),
            head=nn.Conv2d(8, 2, 1),
        ),
        IMAGE,
        free=8,
        statistics=True,
    ),
    case(
        "global response norm",
        lambda: Net(
            lambda m, x: m.head(
                (y := m.stem(x))
                * (g := y.norm(dim=(2, 3), keepdim=True))
                / (g.mean(1, keepdim=True) + 1e-6)
                * m.gamma
            ),
            stem=nn.Conv2d(3, 8, 1),
            gamma=nn.Parameter(torch.randn(1, 8, 1, 1)),
            head=nn.Conv2d(8, 2, 1),
        ),
        IMAGE,
        free=8,
        statistics=True,
    ),
]


def test_a_weight_norm_marks_the_channels_it_reads() -> None:
    """W = g·v/‖v‖ row by row: without an input channel the row's norm is another, without a row none is."""
    net = reparametrised(new.weight_norm)()
    graph = capture(net, torch.randn(2, 3, 8, 8))
    marked = {group.name: group.statistics for group in graph.groups}
    weight = "parametrizations.weight.original"
    assert marked == {f"0.{weight}1": True, f"2.{weight}1": False}
    assert "changes a norm's statistics" in graph.explain(f"2.{weight}1")


def test_the_small_network_normalises_the_kept_weights() -> None:
    """Independent of verify: weight standardisation of the kept slice, written out."""
    net = three_convs(standardised)().double()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = capture(net, x)
    plan = plan_without(graph, "stem.weight", 0, [1, 4])
    keep = [0, 2, 3, 5, 6, 7]
    y = torch.sigmoid(net.stem(x))[:, keep]
    w = net.mid.weight[:, keep]
    w = w - w.mean(dim=(1, 2, 3), keepdim=True)
    w = w / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
    expected = net.head(torch.relu(F.conv2d(y, w, net.mid.bias)))
    torch.testing.assert_close(apply(net, plan)(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        nn.InstanceNorm2d(8),
        nn.GroupNorm(2, 8, affine=False),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_a_norm_without_vectors_remembers_its_channels(layer: nn.Module) -> None:
    net = around(layer)()
    graph = capture(net, torch.randn(IMAGE))
    small = apply(net, plan_without(graph, "0.weight", 0, [1, 6]))
    attribute = "num_channels" if isinstance(layer, nn.GroupNorm) else "num_features"
    assert getattr(small[1], attribute) == 6


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)
