"""The proof is only worth something if it fails: single wrong indices planted in plans are caught."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core import verify as verifying
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.labels import Layer
from compressor.core.plan import Cut, Plan
from compressor.core.rules import RULES, Call, Layers
from compressor.core.rules.elementwise import pointwise
from compressor.core.surgery import apply
from compressor.core.verify import verify
from compressor.errors import CompressorError, VerifyError
from compressor.models import create
from tests.core.networks import NAMES, RandomNet

PLANTED = 200
NETWORKS = {
    "residual and depthwise": ("plain", "residual", "depthwise"),
    "concatenation": ("plain", "concat", "concat"),
    "grouped": ("plain", "grouped", "plain"),
    "gates": ("plain", "squeeze", "mask"),
    "split": ("plain", "halves", "plain"),
}


def network(kinds: tuple[str, ...]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = RandomNet(2, [NAMES.index(kind) for kind in kinds], lambda low, high: high)
    return net.eval(), torch.randn(2, 3, 6, 6)


def networks() -> list[tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    resnet = create("resnet20_cifar", width=4).eval()
    return [*map(network, NETWORKS.values()), (resnet, torch.randn(2, 3, 16, 16))]


def random_removal(graph: Graph, generator: np.random.Generator) -> np.ndarray:
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        for cell in group.cells:
            removed[generator.permutation(cell)[: group.size // 2]] = True
    return removed


def with_wrong_index(cut: Cut, generator: np.random.Generator) -> Cut:
    """The cut with one kept channel exchanged for one that was to go (in the same block)."""
    width = cut.size // cut.blocks
    keep = list(cut.keep)
    position = int(generator.integers(len(keep)))
    others = [i for i in cut.removed if i // width == keep[position] // width]
    keep[position] = int(generator.choice(others))
    return replace(cut, keep=tuple(sorted(keep)))


def plant(plan: Plan, generator: np.random.Generator) -> Plan:
    position = int(generator.integers(len(plan.cuts)))
    cuts = list(plan.cuts)
    cuts[position] = with_wrong_index(cuts[position], generator)
    return replace(plan, cuts=tuple(cuts))


def test_one_wrong_index_is_caught_by_the_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    cases = [(net, x, capture(net, x)) for net, x in networks()]
    caught = 0
    for number in range(PLANTED):
        net, x, graph = cases[number % len(cases)]
        removed = random_removal(graph, generator)
        wrong = plant(graph.plan(removed), generator)
        # Without this the structural half of the proof would catch it first.
        monkeypatch.setattr(verifying, "removed_units", lambda _graph, _plan, true=removed: true)
        try:
            verify(net, apply(net, wrong), wrong, x, graph=graph)
        except VerifyError:
            caught += 1
    assert caught >= 0.98 * PLANTED


def test_one_wrong_index_is_caught_by_the_structure_alone() -> None:
    generator = np.random.default_rng(1)
    cases = [(net, x, capture(net, x)) for net, x in networks()]
    for number in range(PLANTED):
        _, _, graph = cases[number % len(cases)]
        wrong = plant(graph.plan(random_removal(graph, generator)), generator)
        with pytest.raises(VerifyError):
            verifying.removed_units(graph, wrong)


def test_two_kept_channels_exchanged_are_caught_and_named() -> None:
    net = create("resnet20_cifar", width=4).eval()
    x = torch.randn(2, 3, 16, 16)
    graph = capture(net, x)
    plan = graph.plan(random_removal(graph, np.random.default_rng(0)))
    position = next(
        i for i, cut in enumerate(plan.cuts) if cut.tensor == "layer2.1.conv2.weight" and cut.axis == 1
    )
    cut = plan.cuts[position]
    swapped = replace(cut, keep=(cut.keep[1], cut.keep[0], *cut.keep[2:]))
    wrong = replace(plan, cuts=(*plan.cuts[:position], swapped, *plan.cuts[position + 1 :]))
    with pytest.raises(VerifyError, match=r"layer2\.1\.conv2"):
        verify(net, apply(net, wrong), wrong, x, graph=graph)


def test_a_missing_cut_is_caught() -> None:
    net, x = network(("plain", "residual"))
    graph = capture(net, x)
    plan = graph.plan(random_removal(graph, np.random.default_rng(0)))
    for position in range(len(plan.cuts)):
        wrong = replace(plan, cuts=plan.cuts[:position] + plan.cuts[position + 1 :])
        with pytest.raises(CompressorError):
            verify(net, apply(net, wrong), wrong, x, graph=graph)


class Shuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(nn.functional.channel_shuffle(self.first(x), 2))


class ChannelsLast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).permute(0, 2, 3, 1).flatten(1))


def channel_major(call: Call) -> list[Layers]:
    """What a peer assumes of every flatten: each channel's positions follow each other."""
    (layer,) = call.args[0].layers
    return [(Layer(1, np.repeat(layer.ids, call.shapes[0][1] // layer.ids.size)),)]


@pytest.mark.parametrize(
    ("make", "target", "wrong_rule", "refused"),
    [
        # The rehearsal finds an odd number of channels that do not fit two groups, and pins.
        (Shuffled, "aten.channel_shuffle.default", pointwise, True),
        (ChannelsLast, "aten._unsafe_view.default", channel_major, False),
    ],
)
def test_a_wrong_rule_cannot_hide(
    make: type[nn.Module],
    target: str,
    wrong_rule: object,
    refused: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, x = make().eval(), torch.randn(2, 3, 4, 4)
    if not any(op.target == target for op in capture(net, x).tape.ops):
        pytest.skip(f"this version of torch does not call {target}")
    monkeypatch.setitem(RULES, target, wrong_rule)  # type: ignore[arg-type]
    graph = capture(net, x)
    for seed in range(5):
        plan = graph.plan(random_removal(graph, np.random.default_rng(seed)))
        if refused:
            assert not plan.cuts
            continue
        with pytest.raises(VerifyError):
            verify(net, apply(net, plan), plan, x, graph=graph)
