"""The proof is only worth something if it fails: single wrong indices planted in plans are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.budget import Uniform
from compressor.core import verify as verifying
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.labels import Layer
from compressor.core.plan import Cut, Plan
from compressor.core.rules import RULES, Call, Layers
from compressor.core.rules.elementwise import pointwise
from compressor.core.surgery import apply
from compressor.core.verify import TOLERANCE, verify
from compressor.errors import CompressorError, InputError, VerifyError
from compressor.models import create
from compressor.scoring import Norm, score
from tests.core.networks import NAMES, RandomNet

PLANTED = 200
Fault = Callable[[Cut, np.random.Generator], Cut]
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


def shifted(cut: Cut, generator: np.random.Generator) -> Cut:
    """The cut with every kept channel one too far (in the same block)."""
    width = cut.size // cut.blocks
    return replace(cut, keep=tuple(sorted(i // width * width + (i + 1) % width for i in cut.keep)))


def in_another_order(cut: Cut, generator: np.random.Generator) -> Cut:
    """The cut with two kept channels exchanged; in blocks their order is fixed."""
    if len(cut.keep) < 2 or cut.blocks > 1:
        return cut
    keep = list(cut.keep)
    a, b = generator.choice(len(keep), 2, replace=False)
    keep[a], keep[b] = keep[b], keep[a]
    return replace(cut, keep=tuple(keep))


FAULTS = {"wrong index": with_wrong_index, "shifted": shifted, "exchanged": in_another_order}


def plant(plan: Plan, fault: Fault, generator: np.random.Generator) -> Plan:
    """The plan with the fault in one cut, drawn among those in which it makes a difference."""
    for position in generator.permutation(len(plan.cuts)).tolist():
        wrong = fault(plan.cuts[position], generator)
        if wrong != plan.cuts[position]:
            return replace(plan, cuts=(*plan.cuts[:position], wrong, *plan.cuts[position + 1 :]))
    raise AssertionError("no cut in which the fault makes a difference")


def is_caught_by_numbers(
    case: tuple[nn.Module, Tensor, Graph], removed: np.ndarray, wrong: Plan, patch: pytest.MonkeyPatch
) -> bool:
    """Whether the numeric half of the proof alone finds the fault; it then names the right module."""
    net, x, graph = case
    (planted,) = set(wrong.cuts) - set(graph.plan(removed).cuts)
    # Without this the structural half of the proof would catch it first.
    patch.setattr(verifying, "removed_units", lambda _graph, _plan: removed)
    try:
        verify(net, apply(net, wrong), wrong, x, graph=graph)
    except VerifyError as error:
        assert repr(planted.tensor.rpartition(".")[0]) in str(error)
        return True
    return False


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_caught_by_the_numbers_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    cases = [(net, x, capture(net, x)) for net, x in networks()]
    caught = 0
    for number in range(PLANTED):
        case = cases[number % len(cases)]
        removed = random_removal(case[2], generator)
        wrong = plant(case[2].plan(removed), FAULTS[name], generator)
        caught += is_caught_by_numbers(case, removed, wrong, monkeypatch)
    assert caught >= 0.98 * PLANTED


def deep(act: nn.Module, depth: int = 40) -> nn.Sequential:
    """Fresh weights without norms: hardly anything of the first layer arrives at the last."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), act]
    for _ in range(depth):
        layers += [nn.Conv2d(8, 8, 3, padding=1), act]
    return nn.Sequential(*layers, nn.Conv2d(8, 2, 1)).eval()


def dead() -> nn.Sequential:
    """A ReLU that is never above zero: nothing of what is before it arrives at all."""
    net = deep(nn.ReLU(), depth=3)
    with torch.no_grad():
        for layer in (m for m in net if isinstance(m, nn.Conv2d)):
            layer.bias.fill_(-50)
    return net


@pytest.mark.parametrize(
    "make", [lambda: deep(nn.ReLU()), lambda: deep(nn.Sigmoid()), dead], ids=["relu", "sigmoid", "dead"]
)
def test_a_fault_is_caught_where_none_of_it_arrives(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    net, x = make(), torch.randn(2, 3, 6, 6)
    case = net, x, capture(net, x)
    for _ in range(20):
        removed = random_removal(case[2], generator)
        plan = case[2].plan(removed)
        first = with_wrong_index(plan.cuts[0], generator)
        assert first.tensor == "0.weight"
        wrong = replace(plan, cuts=(first, *plan.cuts[1:]))
        assert is_caught_by_numbers(case, removed, wrong, monkeypatch)


def test_one_wrong_index_is_caught_by_the_structure_alone() -> None:
    generator = np.random.default_rng(1)
    cases = [(net, x, capture(net, x)) for net, x in networks()]
    for number in range(PLANTED):
        _, _, graph = cases[number % len(cases)]
        wrong = plant(graph.plan(random_removal(graph, generator)), with_wrong_index, generator)
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


class Chaotic(nn.Module):
    """Squares that only batch norms with fitting statistics keep in bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(14))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(14))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(conv(x * x))
        return x.mean((2, 3))


@pytest.mark.parametrize(
    ("middle", "words"),
    [
        (nn.Conv2d(16, 16, 3, groups=4), "otherwise than what depends on it elsewhere"),
        (nn.GroupNorm(4, 16), "the plan removes 3 and 4 units of the cells"),
    ],
    ids=["grouped convolution", "group norm"],
)
def test_two_prunings_that_no_single_one_can_be_are_refused_as_one(middle: nn.Module, words: str) -> None:
    """With one channel left for each group, whole groups may go, which they cannot before."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, 12, 12)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), middle, nn.ReLU(), nn.Conv2d(16, 3, 1)).eval()
    first = plan_with_budget(net, x, 0.75)
    halfway = apply(net, first)
    second = plan_with_budget(halfway, x, 0.5)
    small = apply(halfway, second)
    assert verify(halfway, small, second, x).error <= TOLERANCE
    with pytest.raises(VerifyError, match=rf"{words}.* If it is the one plan of several prunings"):
        verify(net, small, second.after(first), x)


def plan_with_budget(net: nn.Module, x: Tensor, ratio: float) -> Plan:
    graph = capture(net, x)
    return graph.plan(Uniform(ratio).choose(score(graph, Norm())))


def test_a_chaotic_network_is_verified_with_statistics_that_fit() -> None:
    torch.manual_seed(0)
    net, x = Chaotic(), torch.randn(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = capture(net, x)
    plan = graph.plan(random_removal(graph, np.random.default_rng(0)))
    small = apply(net, plan)
    assert verify(net, small, plan, x, graph=graph).error < 1e-9
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])

    cut = next(cut for cut in plan.cuts if cut.tensor == "convs.3.weight" and cut.axis == 1)
    swapped = replace(cut, keep=(cut.keep[1], cut.keep[0], *cut.keep[2:]))
    wrong = replace(plan, cuts=tuple(swapped if one is cut else one for one in plan.cuts))
    with pytest.raises(VerifyError, match=r"convs\.3"):
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


def test_an_input_with_nan_is_named_and_not_the_cut() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 3)).eval()
    x = torch.randn(1, 3, 8, 8)
    graph = capture(net, x)
    plan = graph.plan(np.arange(graph.n_units) == 2)
    x[0, 0, 1, 1:3] = float("nan")
    with pytest.raises(InputError, match="example input 0: 2 of its 192 numbers are NaN"):
        verify(net, apply(net, plan), plan, x)
