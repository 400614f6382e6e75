"""The penalties' gradients are those of the authors' code, number by number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import compressor as cp
from compressor.training.sparsity import (
    Form,
    NetworkSlimming,
    Ridge,
    RidgeBelow,
    SmoothSubgradient,
    Subgradient,
)
from compressor.training.sparsity.on_slices import Push, SliceRegularizer
from compressor.training.sparsity.penalties import lasso
from compressor.training.sparsity.slices import Slices
from tests.training.sparsity.resnet14 import ResNet14

FORMS = {"L1": Subgradient, "L2": Ridge, "shiyan": RidgeBelow, "smoothL1": SmoothSubgradient}


class ByMask(SliceRegularizer):
    """Masks that differ between coupled layers, as the authors' before their vote: no plan has them."""

    def __init__(self, net: ResNet14, masks: dict[str, np.ndarray], form: Form) -> None:
        super().__init__(
            [
                Push(_slices(f"{name}.weight", mask), net.get_submodule(name).weight, form)
                for name, mask in masks.items()
            ]
        )


def _slices(name: str, mask: np.ndarray) -> Slices:
    channels = np.flatnonzero(mask)
    return Slices(name, 0, 1, len(mask), channels, channels)


@pytest.fixture(scope="module")
def golden(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "golden" / "masksparsity_grad.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.fixture
def net(golden: dict[str, np.ndarray]) -> ResNet14:
    net = ResNet14()
    net.load_state_dict({k[3:]: torch.from_numpy(v) for k, v in golden.items() if k.startswith("sd/")})
    x, y = torch.from_numpy(golden["x"]), torch.from_numpy(golden["y"])
    loss = F.cross_entropy(net.train()(x), y)
    assert loss.item() == pytest.approx(float(golden["ce_loss"]), abs=1e-6)
    loss.backward()
    return net


def _differences(net: ResNet14, golden: dict[str, np.ndarray], which: str, before: dict) -> dict[str, float]:
    """How far what was added is from what the authors' code added, by layer."""
    found = {}
    for name in golden["norm_layers"].tolist():
        added = net.get_submodule(name).weight.grad.double().numpy() - before[name]
        expected = golden[f"grad_{which}/{name}"].astype(float) - golden[f"grad_ce/{name}"]
        found[name] = float(np.abs(added - expected).max())
    return found


def _gradients(net: ResNet14, golden: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        n: net.get_submodule(n).weight.grad.double().numpy().copy() for n in golden["norm_layers"].tolist()
    }


@pytest.mark.parametrize("kind", ["L1", "L2", "smoothL1"])
def test_masked_penalties_are_the_authors(kind: str, net: ResNet14, golden: dict[str, np.ndarray]) -> None:
    before = _gradients(net, golden)
    masks = {k[len("prune_mask/") :]: v for k, v in golden.items() if k.startswith("prune_mask/")}
    assert len(masks) == len(before) - 1  # one layer has no mask and is left alone
    optimizer = torch.optim.SGD(net.parameters(), lr=float(golden["lr"]))
    ByMask(net, masks, FORMS[kind](float(golden["s"]))).before_step(optimizer)
    differences = _differences(net, golden, f"mask_{kind}", before)
    assert max(differences.values()) < 1e-7, differences


@pytest.mark.parametrize("kind", ["L1", "L2", "shiyan"])
def test_global_penalties_are_the_authors(kind: str, net: ResNet14, golden: dict[str, np.ndarray]) -> None:
    before = _gradients(net, golden)
    graph = cp.capture(net, torch.from_numpy(golden["x"]))
    optimizer = torch.optim.SGD(net.parameters(), lr=float(golden["lr"]))
    NetworkSlimming(graph, FORMS[kind](float(golden["s"]))).before_step(optimizer)
    differences = _differences(net, golden, f"global_{kind}", before)
    assert max(differences.values()) < 1e-7, differences


def test_the_wrong_penalty_is_seen(net: ResNet14, golden: dict[str, np.ndarray]) -> None:
    before = _gradients(net, golden)
    graph = cp.capture(net, torch.from_numpy(golden["x"]))
    NetworkSlimming(graph, Ridge(float(golden["s"]))).before_step(torch.optim.SGD(net.parameters(), lr=0.1))
    assert max(_differences(net, golden, "global_L1", before).values()) > 1e-5


@pytest.mark.parametrize("which", ["mask_L1", "global_L1"])
def test_the_penalty_is_what_the_subgradient_belongs_to(
    which: str, net: ResNet14, golden: dict[str, np.ndarray]
) -> None:
    """The sum of s |γ| over the pushed channels: the subgradient times γ, as it is of degree 1."""
    total = 0.0
    for name in golden["norm_layers"].tolist():
        scales = net.get_submodule(name).weight.detach().double()
        mask = golden.get(f"prune_mask/{name}") if which == "mask_L1" else np.ones(len(scales), dtype=bool)
        if mask is not None:
            rows = scales[torch.from_numpy(mask), None]
            total += float((lasso(rows, float(golden["s"])) * rows).sum())
    assert total == pytest.approx(float(golden[f"derived_penalty_{which}"]), rel=1e-6)
