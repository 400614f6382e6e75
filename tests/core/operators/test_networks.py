"""Small networks with the shapes of the large ones: several streams, inputs, outputs and modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import CaptureError
from tests.core.driver import Case, Net, assert_case, case, masks, unchanged
from tests.core.operators.nets import (
    Auxiliary,
    DenseBlock,
    Pyramid,
    Residual,
    StochasticDepth,
    UNet,
    bottleneck_of_groups,
    conv,
    inception,
    inverted_residual,
)

IMAGE = (2, 3, 8, 8)


@dataclass
class Prediction:
    logits: Tensor
    features: list[Tensor]


def siamese(m: Net, a: Tensor, b: Tensor) -> Tensor:
    """One tower for two inputs."""
    f, g = (m.two(torch.relu(m.one(x))).mean((2, 3)) for x in (a, b))
    return m.head((f - g).abs())


def from_dict(m: Net, batch: dict[str, Any]) -> Prediction:
    """Nested inputs, a dataclass going out."""
    image, (mask, scale) = batch["image"], batch["more"]
    y = torch.relu(m.one(image)) * mask
    z = torch.relu(m.two(y)) * scale
    return Prediction(m.head(z), [m.extra(y)])


def checkpointed(m: Net, x: Tensor) -> Tensor:
    y = checkpoint(lambda t: torch.relu(m.two(torch.relu(m.one(t)))), x, use_reentrant=False)
    return m.head(y)


def repeated(m: Net, x: Tensor) -> Tensor:
    """A recurrent use of one convolution."""
    state = torch.zeros(len(x), m.step.out_channels, *x.shape[2:])
    for _ in range(3):
        state = torch.tanh(m.enter(x) + m.step(state))
    return m.head(state)


def to_the_input(m: Net, x: Tensor) -> Tensor:
    """The result is added to the image (super-resolution, denoising): its channels stay."""
    return x + m.b(torch.relu(m.a(x)))


def by_distance(m: Net, a: Tensor, b: Tensor) -> Tensor:
    """A siamese network whose output is a distance over the features."""
    f, g = (m.two(torch.relu(m.one(x))).mean((2, 3)) for x in (a, b))
    return F.pairwise_distance(f, g)


def detector(m: Net, x: Tensor) -> Tensor:
    """YOLO's head: boxes and classes of every level joined, levels flattened and joined, then split."""
    y = torch.relu(m.one(x))
    levels = [y, torch.relu(m.two(y))]
    maps = [torch.cat([m.boxes[i](t), m.classes[i](t)], 1) for i, t in enumerate(levels)]
    flat = torch.cat([t.view(len(x), m.outputs, -1) for t in maps], 2)
    boxes, classes = flat.split((4, m.outputs - 4), 1)
    return torch.cat([boxes * 2, classes.sigmoid()], 1)


CASES = [
    case(
        "distance of twins",
        lambda: Net(by_distance, one=conv(3, 8), two=conv(8, 6)),
        IMAGE,
        IMAGE,
        free=14,
        statistics=True,
    ),
    case(
        "detector",
        lambda: Net(
            detector,
            one=conv(3, 8),
            two=conv(8, 6, 3, stride=2),
            boxes=nn.ModuleList([conv(8, 4), conv(6, 4)]),
            classes=nn.ModuleList([conv(8, 3), conv(6, 3)]),
            outputs=7,
        ),
        IMAGE,
        free=14,
        pinned={"boxes.0": "output of the model"},
    ),
    case("residual", Residual, IMAGE, free=8 + 6 + 7 + 10),
    case("dense block", DenseBlock, IMAGE, free=6 + 3 * 4),
    case("U-Net", lambda: UNet(nn.ConvTranspose2d(8, 6, 2, stride=2)), IMAGE, free=6 + 8 + 6 + 5),
    case(
        "U-Net, upsampling",
        lambda: UNet(nn.Sequential(nn.Upsample(scale_factor=2), conv(8, 6))),
        IMAGE,
        free=6 + 8 + 6 + 5,
    ),
    case("inverted residual", inverted_residual, IMAGE, free=8 + 16),
    case("bottleneck of groups", bottleneck_of_groups, IMAGE, free=8 + 12 + 12),
    case("inception", inception, IMAGE, free=8 + 4 + 6 + 5 + 3),
    # the laterals share one width, and the tower maps it to another
    case("feature pyramid", Pyramid, IMAGE, free=6 + 8 + 10 + 5 + 5),
    case("auxiliary head", Auxiliary, IMAGE, free=8 + 6 + 5),
    case("stochastic depth", StochasticDepth, IMAGE, free=8 + 6),
    case(
        "siamese",
        lambda: Net(siamese, one=conv(3, 8), two=conv(8, 6), head=nn.Linear(6, 2)),
        IMAGE,
        IMAGE,
        free=14,
    ),
    case(
        "dict in, dataclass out",
        lambda: Net(from_dict, one=conv(3, 8), two=conv(8, 6), head=conv(6, 2), extra=conv(8, 2)),
        {
            "image": torch.randn(2, 3, 5, 5),
            "more": (torch.rand(2, 1, 5, 5), torch.rand(2, 1, 1, 1)),
        },
        free=14,
    ),
    case(
        "checkpoint",
        lambda: Net(checkpointed, one=conv(3, 8), two=conv(8, 6), head=conv(6, 2)),
        IMAGE,
        free=14,
    ),
    case(
        "recurrent convolution",
        lambda: Net(repeated, enter=conv(3, 8), step=conv(8, 8, 3), head=conv(8, 2)),
        IMAGE,
        free=8,
    ),
    case(
        "residual to the input",
        lambda: Net(to_the_input, a=conv(3, 8), b=conv(8, 3)),
        IMAGE,
        free=8,
        pinned={"b": "meets values whose channels are fixed, such as an input"},
    ),
    case(
        "features as outputs",
        lambda: Net(
            lambda m, x: (y := torch.relu(m.a(x)), m.c(torch.relu(m.b(y)))),
            a=conv(3, 8),
            b=conv(8, 6),
            c=conv(6, 2),
        ),
        IMAGE,
        free=6,
        pinned={"a": "output of the model"},
    ),
    case(
        "a number among the outputs",
        lambda: Net(lambda m, x: (m.b(torch.relu(m.a(x))), 3, None), a=conv(3, 8), b=conv(8, 2)),
        IMAGE,
        free=8,
    ),
    case(
        "float64",
        lambda: nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 2)).double(),
        torch.randn(2, 3, 4, 4, dtype=torch.float64),
        free=8,
    ),
    case(
        "channels last",
        lambda: nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(inplace=True), conv(8, 2)).to(
            memory_format=torch.channels_last
        ),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        free=8,
    ),
    case(
        "frozen parameters",
        lambda: nn.Sequential(conv(3, 8).requires_grad_(False), nn.ReLU(), conv(8, 6), nn.ReLU(), conv(6, 2)),
        IMAGE,
        free=14,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cuts_are_exact(case: Case) -> None:
    assert_case(case)


def test_keyword_inputs() -> None:
    net = Net(lambda m, x, *, scale: m.b(torch.relu(m.a(x)) * scale), a=conv(3, 8), b=conv(8, 2))
    graph = capture(net, torch.randn(2, 3, 4, 4), scale=torch.rand(2, 1, 1, 1))
    assert graph.n_units == 8


def test_a_training_step_reaches_the_cut_auxiliary_head() -> None:
    net = Auxiliary()
    graph = capture(net, torch.randn(IMAGE))
    small = apply(net, graph.plan(next(masks(graph))))
    small.train()
    out, aux = small(torch.randn(4, 3, 8, 8))
    (out.sum() + aux.sum()).backward()
    assert small.aux_head.weight.grad.shape == small.aux_head.weight.shape
    assert small.aux.out_channels == small.aux_head.in_features < 5


@pytest.mark.parametrize("batch", [1, 3])
def test_the_units_do_not_depend_on_the_batch(batch: int) -> None:
    units = [capture(DenseBlock(), torch.randn(n, 3, 8, 8)).n_units for n in (2, batch)]
    assert units[0] == units[1]


@pytest.mark.parametrize("fails", [False, True])
def test_capture_leaves_the_model_alone(fails: bool) -> None:
    """Training mode, gradients, hooks, statistics: all as before, also when the forward fails."""
    net = Auxiliary().train()
    net.extra = nn.BatchNorm2d(8)
    calls: list[int] = []
    net.body.register_forward_hook(lambda *_: calls.append(1))
    net(torch.randn(IMAGE))[0].sum().backward()
    x = torch.randn(2, 4 if fails else 3, 8, 8)
    with unchanged(net, x):
        if fails:
            with pytest.raises(CaptureError, match="fails on the example inputs"):
                capture(net, x)
        else:
            capture(net, x)
