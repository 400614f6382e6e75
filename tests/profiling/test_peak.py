"""Peaks of activation bytes: by hand, and equal to the byte to what real storages weigh while models run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from compressor import models
from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.errors import InputError
from compressor.profiling import peak_activation_bytes, profile
from tests.core.driver import Net, random_removal
from tests.core.networks import Case, networks
from tests.core.transformers import Sizes, Transformer
from tests.core.transformers import example as tokens
from tests.profiling.live_bytes import eager_peak, live_peak

IMAGE = (2, 3, 16, 16)


def conv(inputs: int, outputs: int, **options: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, **options)


def in_place() -> nn.Module:
    """In-place activations, an in-place sum, and a write into a slice."""

    def forward(s: nn.Module, x: Tensor) -> Tensor:
        x = torch.relu_(s.one(x))
        y = torch.relu_(s.two(x)).add_(x)
        canvas = torch.zeros(2, 16, 16, 16)
        canvas[:, 4:12] = y
        return s.three(canvas).mul_(2)

    return Net(forward, one=conv(3, 8), two=conv(8, 8), three=conv(16, 4))


def views() -> nn.Module:
    """Splits, permutations, reshapes with and without a copy, expansion, a part that outlives the rest."""

    def forward(s: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = s.one(x).chunk(2, 1)
        moved = right.permute(0, 2, 3, 1)
        mixed = s.mix(moved.reshape(2, 256, 6)).transpose(1, 2).unflatten(2, (16, 16))
        scale = left.mean((2, 3), keepdim=True).expand(-1, -1, 16, 16)
        return s.two(mixed * scale), left.flatten(1)[:, :5]

    return Net(forward, one=conv(3, 12), mix=nn.Linear(6, 6), two=conv(6, 4))


def joined() -> nn.Module:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        made = [s.one(x)]
        for layer in (s.two, s.three):
            made.append(layer(torch.cat(made, 1)).relu())
        return s.head(torch.cat(made, 1))

    return Net(forward, one=conv(3, 6), two=conv(6, 6), three=conv(12, 6), head=conv(18, 2))


def residual() -> nn.Module:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        x = s.norm(s.stem(x)).relu()
        return s.head((x + s.out(s.inner(x).relu())).relu().mean((2, 3)))

    layers = {"inner": conv(8, 12), "out": conv(12, 8), "head": nn.Linear(8, 3)}
    return Net(forward, stem=conv(3, 8), norm=nn.BatchNorm2d(8), **layers)


def plain() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.Tanh(), conv(8, 12), nn.MaxPool2d(2), conv(12, 4))


def normed() -> nn.Module:
    """Norms that also return statistics, pooling that returns indices, weights that are computed."""
    layers = (
        conv(3, 8),
        nn.GroupNorm(2, 8),
        nn.MaxPool2d(2),
        nn.utils.parametrizations.weight_norm(conv(8, 6)),
    )
    return nn.Sequential(*layers, nn.InstanceNorm2d(6), conv(6, 2))


NETS = {"plain": plain, "residual": residual, "joined": joined, "in place": in_place, "views": views}
NETS |= {"normed": normed}


def assert_as_weighed(model: nn.Module, x: Tensor, seed: int) -> None:
    """Whether the peaks of the model and of a pruned one are what their storages weigh."""
    graph = capture(model, x)
    cost = peak_activation_bytes(graph)
    assert cost.total() == live_peak(model, x) == profile(model, x).peak_activation_bytes
    removed = random_removal(graph, seed)
    small = apply(model, graph.plan(removed))
    # Reshaping an axis of length one needs no copy, so that a narrow model may run fewer operators.
    if [op.target for op in capture(small, x).tape.ops] == [op.target for op in graph.tape.ops]:
        assert cost.total(removed) == live_peak(small, x)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", NETS)
def test_the_peak_is_what_storages_weigh(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    assert_as_weighed(NETS[name]().eval(), torch.randn(IMAGE), seed)


@pytest.mark.parametrize("name", ["resnet20_cifar", "mobilenet_v2_cifar", "vgg16_bn_cifar"])
def test_the_peak_of_a_published_network_is_what_its_storages_weigh(name: str) -> None:
    assert_as_weighed(models.create(name).eval(), torch.randn(1, 3, 32, 32), 0)


@pytest.mark.parametrize("kind", ["apart", "packed", "torch"])
def test_the_peak_of_attention_is_what_storages_weigh(kind: str) -> None:
    torch.manual_seed(0)
    model = Transformer(Sizes(kind=kind)).eval()
    if kind == "torch":  # a capture runs torch's attention with a forward of its own, which a cut one keeps
        graph = capture(model, tokens())
        model = apply(model, graph.plan(random_removal(graph, 5)))
    assert_as_weighed(model, tokens(), 1)


@given(networks(), st.integers(0, 2**16))
@example(Case(2, ("padded", "shuffle"), 1), 0)
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_the_peak_of_random_networks_is_what_storages_weigh(case: Case, seed: int) -> None:
    assert_as_weighed(*case.build(), seed)


def test_a_sequence_holds_nothing_for_longer_than_it_needs() -> None:
    # The oracle itself: where Python keeps no name, PyTorch as it is and freeing what can be are the same.
    model, x = plain().eval(), torch.randn(IMAGE)
    assert eager_peak(model, x) == live_peak(model, x)
    nested = nn.Sequential(model, nn.Identity())
    assert live_peak(nested, x) == live_peak(model, x)


def test_the_oracle_sees_what_is_held() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        kept = s.one(x)
        return s.two(kept.relu()) + 0 * kept.sum()

    model, x = Net(forward, one=conv(3, 8), two=conv(8, 8)), torch.randn(IMAGE)
    wide = 2 * 8 * 256 * 4
    assert live_peak(model, x) == x.nbytes + 3 * wide


def test_a_small_network_is_as_counted_by_hand() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 10), nn.ReLU(inplace=True), nn.Linear(10, 1))
    graph = capture(net, torch.ones(3, 4))
    cost = peak_activation_bytes(graph)
    # Each point: the input (4), what is read and what is written, for three rows of floats.
    assert cost.total() == 3 * 4 * (4 + 6 + 10)
    peak = cost.peak()
    assert (peak.module, peak.operator) == ("2", "aten.addmm.default")
    assert [(held.module, held.bytes) for held in peak.held] == [("2", 120), ("1", 72), ("", 48)]
    assert cost.by_module() == {"2": 120, "1": 72, "": 48}
    # Without 8 of the 10 the peak is where Tanh reads 6 and writes 6.
    removed = np.zeros(16, dtype=bool)
    (wide,) = (group for group in graph.groups if group.size == 10)
    removed[wide.cells[0][:8]] = True
    assert cost.total(removed) == 3 * 4 * (4 + 6 + 6)
    assert cost.peak(removed).module == "1"


def test_inputs_and_outputs_are_held_to_the_end_and_constants_are_not_counted() -> None:
    def forward(s: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        early = s.one(x)
        return early, s.two(y + s.table)

    net = Net(forward, one=nn.Linear(4, 5), two=nn.Linear(6, 7), table=torch.ones(100, 6))
    cost = peak_activation_bytes(capture(net, torch.ones(100, 4), torch.ones(100, 6)))
    assert cost.total() == 100 * 4 * (4 + 6 + 5 + 6 + 7)


def test_a_model_without_operators_holds_its_inputs() -> None:
    assert profile(nn.Identity(), torch.zeros(3, 4)).peak_activation_bytes == 48


@given(st.integers(0, 2**16))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_along_an_order_the_peak_is_that_of_each_removal(seed: int) -> None:
    graph = capture(joined().eval(), torch.randn(IMAGE))
    rng = np.random.default_rng(seed)
    order = [
        np.stack([rng.permutation(cell)[: group.size] for cell in group.cells]) for group in graph.groups
    ]
    cost = peak_activation_bytes(graph)
    lost = np.stack([rng.integers(0, group.size, 20) for group in graph.groups], axis=-1)
    found = cost.along(order)(lost)
    for row, value in zip(lost, found, strict=True):
        removed = np.zeros(graph.n_units, dtype=bool)
        for cells, count in zip(order, row, strict=True):
            removed[cells[:, :count]] = True
        assert value == cost.total(removed)


def test_flags_of_the_wrong_length_are_refused() -> None:
    cost = peak_activation_bytes(capture(plain().eval(), torch.randn(IMAGE)))
    with pytest.raises(InputError, match="one flag for each"):
        cost.total(np.zeros(3, dtype=bool))
