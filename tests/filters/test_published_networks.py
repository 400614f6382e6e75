"""What reports say of published networks is true: checked on the networks themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.filters import FilterReport, Verdict, report
from compressor.models import create, load_akamaster_checkpoint

FILES = {
    20: "resnet20-12fca82f.th",
    32: "resnet32-d509ac18.th",
    44: "resnet44-014dd654.th",
    56: "resnet56-4bfd9763.th",
}
# By depth: filters within blocks that are dead with their norm folded in, and with weights as they are.
DEAD = {20: (13, 12), 32: (25, 22), 44: (37, 31), 56: (52, 38)}
DEPTHS = [20, *(pytest.param(depth, marks=pytest.mark.slow) for depth in (32, 44, 56))]


def _load(shared: Path, depth: int) -> nn.Module:
    net = create(f"resnet{depth}_cifar")
    folder = shared / "data" / "ckpt_cifar10_resnet"
    net.load_state_dict(load_akamaster_checkpoint(folder / FILES[depth]))
    return net.eval()


def _dead_within_blocks(found: FilterReport) -> dict[str, tuple[int, ...]]:
    """What nothing but the block's second convolution reads."""
    inner = [x for x in found.layers if x.bank.name.endswith(".conv1") and x.quality.dead_filters]
    return {layer.bank.name: layer.quality.dead_filters for layer in inner}


def _without(net: nn.Module, dead: dict[str, tuple[int, ...]], x: Tensor) -> nn.Module:
    graph = cp.capture(net, x)
    removed = np.zeros(graph.n_units, dtype=bool)
    for axis in graph.axes:
        filters = dead.get(axis.tensor.removesuffix(".weight"), ())
        if axis.axis == 0 and filters:
            removed[axis.units[list(filters)]] = True
    return cp.apply(net, graph.plan(removed))


@pytest.mark.parametrize("depth", DEPTHS)
def test_dead_filters_of_a_trained_network_can_be_cut_for_nothing(depth: int, shared: Path) -> None:
    net, x = _load(shared, depth), torch.randn(8, 3, 32, 32)
    raw, folded = report(net), report(net, x[:1], fold_batch_norm=True)
    dead = _dead_within_blocks(folded)
    counts = [sum(map(len, _dead_within_blocks(found).values())) for found in (folded, raw)]
    assert tuple(counts) == DEAD[depth]
    small = _without(net, dead, x[:1])
    with torch.no_grad():
        before, after = net(x), small(x)
    assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())
    # As many others of the same layers are missed: it is these filters, not any.
    alive = {name: tuple(i for i in range(64) if i not in gone)[: len(gone)] for name, gone in dead.items()}
    with torch.no_grad():
        other = _without(net, alive, x[:1])(x)
    assert float((before - other).abs().max()) > 1e-2 * float(before.abs().max())


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_last_convolution_has_the_fewest_shapes(depth: int, shared: Path) -> None:
    found = report(_load(shared, depth))
    last = found.layers[-1]
    assert min(found.layers, key=lambda layer: layer.entropy or 0) is last
    assert [x for x in found.layers if Verdict.LOW_DIVERSITY in x.quality.verdicts] == [last]
    assert found.farthest is last
    # The second shape of its kernels is worth little: most are a mean with a sign.
    kernels = last.bank.kernels.double()
    same_sign = (kernels.sign().sum(dim=1).abs() == 9).double().mean()
    others = torch.cat([layer.bank.kernels for layer in found.layers[:-1]])
    assert float(same_sign) > 5 * float((others.sign().sum(dim=1).abs() == 9).double().mean())
