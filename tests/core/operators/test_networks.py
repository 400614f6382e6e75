"""Small networks with the shapes of the large ones: several streams, inputs, outputs and modes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import CaptureError
from tests.core.driver import Case, Net, assert_case, case, masks, unchanged

IMAGE = (2, 3, 8, 8)


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


def masked(net: nn.Module, path: str, keep: np.ndarray) -> Callable[[], None]:
    """Multiply what a module puts out by 0 or 1, channel by channel; call the result to stop."""
    module = net.get_submodule(path)
    mask = torch.from_numpy(keep).double()

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output * mask.view(1, -1, *(1,) * (output.dim() - 2))

    return module.register_forward_hook(hook).remove


@pytest.mark.parametrize(
    ("make", "widths"),
    [
        # modules behind which a ReLU keeps zero at zero, and how many channels each has
        (Residual, {"a": 6, "c": 7}),
        (DenseBlock, {}),
        (
            lambda: UNet(nn.ConvTranspose2d(8, 6, 2, stride=2)),
            {"one": 6, "two": 8, "up": 6, "last": 5},
        ),
        (Auxiliary, {"stem": 8, "body": 6}),
        (inverted_residual, {}),
        (bottleneck_of_groups, {"a": 12, "b": 12}),
        (inception, {"b0": 6}),
    ],
    ids=["residual", "dense", "unet", "auxiliary", "inverted", "groups", "inception"],
)
def test_a_cut_equals_masks_on_activations(make: Callable[[], nn.Module], widths: dict[str, int]) -> None:
    """Independent of verify: masks by forward hooks where ReLU follows, against the cut model."""
    net = make().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = capture(net, x)
    homes = {a.tensor: a for a in graph.axes if a.axis == (1 if a.tensor == "up.weight" else 0)}
    for removed in masks(graph):
        # only what the hooks can mask
        allowed = np.zeros(graph.n_units, dtype=bool)
        for path in widths:
            allowed[homes[f"{path}.weight"].units] = True
        removed = removed & allowed
        gone = np.append(removed, False)
        stops = [masked(net, path, ~gone[homes[f"{path}.weight"].units]) for path in widths]
        expected = net(x)
        for stop in stops:
            stop()
        found = apply(net, graph.plan(removed))(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * expected.abs().max().item())


def test_a_cut_equals_slicing_by_hand() -> None:
    """Independent of verify: two convolutions and a batch norm cut by indexing."""
    net = nn.Sequential(conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4, 3)).double().eval()
    nn.init.normal_(net[1].running_mean)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = capture(net, x)
    (axis,) = [a for a in graph.axes if (a.tensor, a.axis) == ("0.weight", 0)]
    removed = np.zeros(8, dtype=bool)
    removed[axis.units[[1, 4, 5]]] = True
    keep = [0, 2, 3, 6, 7]
    y = F.conv2d(x, net[0].weight[keep], net[0].bias[keep], padding=1)
    y = F.batch_norm(
        y,
        net[1].running_mean[keep],
        net[1].running_var[keep],
        net[1].weight[keep],
        net[1].bias[keep],
    )
    expected = F.conv2d(torch.relu(y), net[3].weight[:, keep], net[3].bias, padding=1)
    found = apply(net, graph.plan(removed))(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
