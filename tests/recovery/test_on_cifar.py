"""The published ResNet-56 with half of its MACs, recovered without labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.data import load_cifar10_npz, normalize


@pytest.mark.slow
def test_half_of_a_resnet56_goes_for_less_than_three_points(shared: Path) -> None:
    net = cp.models.create("resnet56_cifar").eval()
    checkpoint = shared / "data/ckpt_cifar10_resnet/resnet56-4bfd9763.th"
    net.load_state_dict(cp.models.load_akamaster_checkpoint(checkpoint))
    split = load_cifar10_npz(shared / "data/cifar10/cifar10_lossless_4k1k.npz")
    images = list(normalize(split.train.images[:256]).split(64))
    x, y = normalize(split.test.images[:500]), split.test.labels[:500]

    def percent(model: nn.Module) -> float:
        with torch.no_grad():
            named: Tensor = torch.cat([model(part).argmax(1) for part in x.split(250)])
        return 100 * (named == y).double().mean().item()

    budget = cp.budget.Macs(0.5, order=cp.budget.by_score_per_mac, ignore=("conv1", "layer*.conv2"))
    found = {}
    for name, recover in (("cut", None), ("fitted", cp.recovery.Reconstruction(images, hold=True))):
        scorer = cp.scoring.ReconstructionError(images)
        found[name] = percent(cp.prune(net, x[:1], scorer=scorer, budget=budget, recover=recover))
    assert found["cut"] < 75
    assert found["fitted"] > percent(net) - 3
