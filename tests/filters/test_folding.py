from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compressor.filters import banks, banks_of_onnx
from compressor.models import create
from tests.filters.networks import IMAGE, Branches, scrambled


@pytest.mark.parametrize(
    ("conv", "norm", "x"),
    [
        (nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), torch.zeros(1, 3, 8)),
        (nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), torch.zeros(1, 4, 8, 8)),
        (nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4, affine=False), torch.zeros(1, 3, 8, 8, 8)),
    ],
)
def test_folded_weights_are_those_of_torch(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> None:
    if norm.affine:
        scrambled(norm)
    nn.init.uniform_(norm.running_var, 0.2, 3)
    net = nn.Sequential(conv, norm).eval()
    (bank,) = banks(net, x, fold_batch_norm=True)
    weight = norm.weight if norm.affine else torch.ones(4)
    fused = fuse_conv_bn_eval(conv, norm) if norm.affine else None
    expected = (
        fused.weight if fused else conv.weight / (norm.running_var + norm.eps).sqrt().view(4, 1, 1, 1, 1)
    )
    assert bank.folded and len(weight) == len(bank.weight)
    torch.testing.assert_close(bank.weight, expected.detach(), rtol=1e-6, atol=0)
    assert torch.equal(banks(net, x)[0].weight, conv.weight)


def test_a_transposed_convolution_is_folded_too() -> None:
    net = scrambled(nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6))).eval()
    (bank,) = banks(net, torch.zeros(1, 4, 8, 8), include_transposed=True, fold_batch_norm=True)
    layer, norm = net[0], net[1]
    assert isinstance(layer, nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
    for output in range(6):
        factor = norm.weight[output] / (norm.running_var[output] + norm.eps).sqrt()
        column = layer.weight[2 * (output // 3) : 2 * (output // 3) + 2, output % 3]
        torch.testing.assert_close(bank.weight[output], (factor * column).detach())


class Read(nn.Module):
    """A convolution and a norm with one thing of each kind in between, or beside."""

    def __init__(self, between: str) -> None:
        super().__init__()
        self.conv, self.norm, self.between = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), between
        if between == "batch statistics":
            self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.conv(x)
        if self.between == "activation":
            y = F.relu(y)
        elif self.between == "in place":
            y = F.relu_(y)
        elif self.between == "view":
            y = y.transpose(2, 3)
        normed = self.norm(y)
        if self.between == "sum":
            return normed + y
        if self.between == "output":
            return normed, y
        out: Tensor = normed
        return out


@pytest.mark.parametrize(
    "between", ["activation", "in place", "view", "sum", "output", "batch statistics", "nothing"]
)
def test_a_norm_is_folded_only_where_it_alone_reads_the_convolution(between: str) -> None:
    net = scrambled(Read(between)) if between != "batch statistics" else Read(between)
    (bank,) = banks(net, IMAGE, fold_batch_norm=True)
    assert bank.folded == (between == "nothing")
    assert bank.folded or torch.equal(bank.weight, net.conv.weight)  # type: ignore[arg-type, union-attr]


def test_a_zero_scale_makes_a_dead_filter() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([2.0, 0.0, -1.0, 0.5]))  # type: ignore[operator, union-attr]
    (bank,) = banks(net, IMAGE, fold_batch_norm=True)
    assert bank.weight[1].eq(0).all() and bank.weight[[0, 2, 3]].ne(0).all()


# -- against exported files ------------------------------------------------------------------------


def _exported(net: nn.Module, x: Tensor, path: Path) -> tuple[list[Tensor], list[int]]:
    """The weights of the nodes Conv in the order of the file, and their depths: a loop over the nodes."""
    onnx = pytest.importorskip("onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net.eval(), (x,), str(path), dynamo=False)
    graph = onnx.load(path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    level = {entry.name: 0 for entry in graph.input if entry.name not in values}
    weights, depths = [], []
    for node in graph.node:
        reached = [level[name] for name in node.input if name in level]
        if reached:
            level.update(dict.fromkeys(node.output, 1 + max(reached)))
        if node.op_type == "Conv":
            weights.append(torch.tensor(values[node.input[1]]))
            depths.append(1 + max(reached))
    ranks = sorted(set(depths))
    return weights, [ranks.index(depth) for depth in depths]


class OneNorm(nn.Module):
    """Two branches as long as each other until the norm of one is folded."""

    def __init__(self) -> None:
        super().__init__()
        self.a1, self.norm, self.a2 = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.b1, self.b2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.a2(self.norm(self.a1(x))) + self.b2(F.relu(self.b1(x)))
        return out


NETS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "branches": (Branches, IMAGE),
    "one norm": (OneNorm, IMAGE),
    "resnet20": (lambda: create("resnet20_cifar"), IMAGE),
    "resnet20, option B": (lambda: create("resnet20_cifar", shortcut="B"), IMAGE),
    "resnet50": (lambda: create("resnet50"), IMAGE),
    "mobilenet_v2": (lambda: create("mobilenet_v2"), IMAGE),
}


@pytest.mark.parametrize("case", NETS)
def test_banks_agree_with_the_exported_file(case: str, tmp_path: Path) -> None:
    build, x = NETS[case]
    net = scrambled(build()).eval()
    weights, ranks = _exported(net, x, tmp_path / "net.onnx")
    found = banks(net, x, fold_batch_norm=True)
    assert [bank.conv_depth for bank in found] == ranks
    for bank, weight in zip(found, weights, strict=True):
        torch.testing.assert_close(bank.weight, weight, rtol=1e-5, atol=1e-7, msg=bank.name)
    assert [bank.conv_depth for bank in banks(net, x)] == ranks


def test_banks_of_a_model_and_of_its_file_stand_alike(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    net = scrambled(Branches())
    _exported(net, IMAGE, tmp_path / "net.onnx")
    read = banks_of_onnx(tmp_path / "net.onnx", kernel_size=(3, 3))
    for ours, theirs in zip(banks(net, IMAGE, kernel_size=3), read, strict=True):
        assert torch.equal(ours.weight, theirs.weight)
        assert (ours.layer_id, ours.conv_depth, ours.conv_depth_norm) == (
            theirs.layer_id,
            theirs.conv_depth,
            theirs.conv_depth_norm,
        )
