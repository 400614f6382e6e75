"""Channels that were trained to zero are removed without a change of what the network computes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.optim import SGD

import compressor as cp
from compressor.core.plan import Plan
from compressor.errors import InputError, ModelError, PlanMismatchError
from compressor.recovery import remove_silenced
from compressor.training.sparsity import Decay, MaskSparsity, silence_
from tests.core.driver import random_removal
from tests.core.networks import NAMES, Case
from tests.training.sparsity.nets import Planned, planned, train_step

# Not exact: constants that a gate multiplies, a layer that is called twice, phases that lose their
# neighbours, statistics over fewer channels.
APART = {"mask", "attention", "shared", "transposed", "pixels", "group_norm", "layer_norm", "next_block"}


def _settled(net: nn.Module) -> nn.Module:
    """In float64, norms with statistics of some training, and padding that goes on as it is at the border."""
    for module in net.modules():
        if isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd):
            module.padding_mode = "replicate"
        if isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
            module.count_include_pad = False
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.double()


def _exact_everywhere(case: Case) -> None:
    net, x = case.build()
    net, x = _settled(net), x.double()
    graph = cp.capture(net, x)
    removed = random_removal(graph, case.seed)
    if not removed.any():
        return
    plan = graph.plan(removed)
    silence_(plan, graph, tolerance=1e9)  # a training that came to its end
    removal = remove_silenced(plan, graph, [torch.randn(3, *x.shape[1:], dtype=torch.float64)])
    assert removal.difference < 1e-9 * max(1.0, removal.size), str(removal)
    assert removal.border < 1e-12 and not removal.unfolded


@pytest.mark.parametrize("name", sorted(set(NAMES) - APART))
def test_exact_whatever_stands_between_writer_and_reader(name: str) -> None:
    for seed in range(3):
        for dims in (1, 2):
            _exact_everywhere(Case(dims, (name,), seed))


@pytest.mark.parametrize("seed", range(8))
def test_exact_in_networks_of_several_blocks(seed: int) -> None:
    kinds = np.random.default_rng(seed).choice(sorted(set(NAMES) - APART - {"tied"}), 3)
    _exact_everywhere(Case(2, tuple(kinds.tolist()), seed))


def test_the_check_sees_a_channel_that_is_not_silent() -> None:
    net, x = Case(2, ("plain",), 1).build()
    graph = cp.capture(net.double(), x.double())
    plan = graph.plan(random_removal(graph, 1))
    with pytest.raises(InputError, match=r"is not silent: from example to example.*Train it to zero first"):
        remove_silenced(plan, graph, [torch.randn(3, *x.shape[1:], dtype=torch.float64)])


@pytest.mark.parametrize("name", ["mask", "shared"])
def test_a_constant_that_no_bias_can_hold_is_refused(name: str) -> None:
    net, x = Case(2, (name,), 0).build()
    net = _settled(net)
    graph = cp.capture(net, x.double())
    plan = graph.plan(random_removal(graph, 0))
    silence_(plan, graph, tolerance=1e9)
    with pytest.raises(InputError, match=r"shift=Decay"):
        remove_silenced(plan, graph, [torch.randn(3, *x.shape[1:], dtype=torch.float64)])


# -- after sparse training -------------------------------------------------------------------------


def _trained(shift: Decay | None) -> Planned:
    p = planned()
    optimizer = SGD(p.net.parameters(), 0.05, momentum=0.9)
    with MaskSparsity(p.plan, p.graph, Decay(15), shift=shift).attach(optimizer):
        for _ in range(16):
            train_step(p.net, optimizer, torch.rand(8, 3, 8, 8))
    p.net.eval()
    return p


def test_a_cut_after_sparse_training_changes_nothing() -> None:
    p = _trained(Decay(15))
    before = {name: tensor.clone() for name, tensor in p.net.state_dict().items()}
    x = torch.rand(16, 3, 8, 8)
    removal = remove_silenced(p.plan, p.graph, [x[:4], x[4:]])
    assert removal.difference < 1e-5 and not removal.readers  # the constants are zero as well
    with torch.no_grad():
        torch.testing.assert_close(removal.model.eval()(x), p.net(x), rtol=0, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in p.net.state_dict().items())
    assert removal.model.stem[0].out_channels == 5


def test_zero_padding_is_reported_where_it_meets_constants(caplog: pytest.LogCaptureFixture) -> None:
    """Of the last layer of a network the difference is what is reported for its border, and none inside."""
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1)
    )
    with torch.no_grad():
        net[1].bias.fill_(0.7)
    p = Planned(net.eval(), torch.rand(2, 3, 8, 8), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    with caplog.at_level(logging.WARNING, logger="compressor"):
        removal = remove_silenced(p.plan, p.graph, [p.x])
    assert "not exact at the zero-padded borders of 1 of them" in caplog.text
    with torch.no_grad():
        apart = (removal.model(p.x) - net(p.x)).abs()
    assert float(apart[:, :, 1:-1, 1:-1].max()) < 1e-6
    assert float(apart.max()) == pytest.approx(removal.border, rel=1e-4) and removal.border > 0.1
    assert removal.difference == pytest.approx(removal.border, rel=1e-4)


def test_an_average_of_weights_is_cut_as_well() -> None:
    p = _trained(Decay(15))
    other = copy.deepcopy(p.net)
    with torch.no_grad():
        other.head.bias.add_(1.0)
    x = torch.rand(4, 3, 8, 8)
    removal = remove_silenced(p.plan, p.graph, [x], model=other)
    with torch.no_grad():
        torch.testing.assert_close(removal.model.eval()(x), other(x), rtol=0, atol=1e-5)


# -- where constants go ----------------------------------------------------------------------------


class Two(nn.Module):
    """A writer with a norm, and a reader of each kind behind it."""

    def __init__(self, *, bias: bool, norm: bool, twice: bool = False) -> None:
        super().__init__()
        self.writer, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.reader = nn.Conv2d(6, 5, 3, bias=bias)
        self.after = nn.BatchNorm2d(5) if norm else nn.Identity()
        self.twice = twice
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reader(torch.sigmoid(self.norm(self.writer(x))))
        y = self.after(x)
        return self.head((y + x if self.twice else y).relu().mean((2, 3)))


class Shown(nn.Module):
    """The reader's output is an output of the model, beside what a norm makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
        self.reader, self.after = nn.Linear(6, 3, bias=False), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.reader(torch.sigmoid(self.norm(self.writer(x))))
        return y, self.after(y)


def test_no_norm_takes_a_constant_that_an_output_shows() -> None:
    p = Planned(_settled(Shown()).eval(), torch.rand(4, 4, dtype=torch.float64), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    removal = remove_silenced(p.plan, p.graph, [p.x])
    assert [reader.into for reader in removal.readers] == ["reader.bias"]
    assert removal.difference < 1e-12


@pytest.mark.parametrize(
    ("options", "into"),
    [
        ({"bias": True, "norm": False}, "reader.bias"),
        ({"bias": True, "norm": True}, "reader.bias"),
        ({"bias": False, "norm": True}, "after.running_mean"),
        ({"bias": False, "norm": False}, "reader.bias"),
        ({"bias": False, "norm": True, "twice": True}, "reader.bias"),
    ],
)
def test_a_constant_goes_where_there_is_a_place(options: dict[str, bool], into: str) -> None:
    p = Planned(_settled(Two(**options)).eval(), torch.rand(2, 3, 8, 8, dtype=torch.float64), ratio=0.5)
    (cut,) = (cut for cut in p.plan.cuts if (cut.tensor, cut.role) == ("reader.weight", "reader"))
    silence_(p.plan, p.graph, tolerance=9)
    removal = remove_silenced(p.plan, p.graph, [p.x])
    folded = {reader.reader: reader for reader in removal.readers}
    assert folded["reader.weight"].into == into and folded["reader.weight"].channels == len(cut.removed)
    assert removal.difference < 1e-12
    # By hand: sigmoid(β) of each removed channel times the sum of its taps.
    emitted = torch.sigmoid(p.net.norm.bias[list(cut.removed)])
    added = (p.net.reader.weight[:, list(cut.removed)].sum((2, 3)) * emitted).sum(1)
    assert folded["reader.weight"].largest == pytest.approx(added.abs().max().item())


def test_the_features_of_a_flattened_map_are_folded_one_by_one() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Flatten(), nn.Linear(96, 3))
    )
    p = Planned(_settled(net).eval(), torch.rand(2, 3, 4, 4, dtype=torch.float64), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    removal = remove_silenced(p.plan, p.graph, [p.x])
    assert removal.difference < 1e-12 and removal.border == 0.0
    assert [reader.channels for reader in removal.readers] == [48]


class Bare(nn.Module):
    """A filter without a module that could hold a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)
        self.matrix = nn.Parameter(torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.sigmoid(self.norm(self.writer(x))), self.matrix)


def test_a_reader_without_a_place_for_a_constant_is_refused() -> None:
    p = Planned(Bare().eval(), torch.rand(4, 3), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    with pytest.raises(ModelError, match=r"'matrix' is used without a bias.*shift=Decay"):
        remove_silenced(p.plan, p.graph, [p.x])


class Recurrent(nn.Module):
    """A reader that is neither a convolution nor a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.writer, self.norm = nn.Linear(3, 6), nn.LayerNorm(6)
        self.rnn = nn.GRU(6, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(torch.sigmoid(self.writer(x)))[0]


@pytest.mark.parametrize("constant", [0.0, -1000.0])
def test_what_cannot_be_folded_is_refused_where_it_matters(constant: float) -> None:
    net = Recurrent().eval()
    graph = cp.capture(net, torch.rand(4, 5, 3))
    removed = np.zeros(graph.n_units, dtype=bool)
    (axis,) = (axis for axis in graph.axes if axis.tensor == "writer.weight" and axis.axis == 0)
    removed[axis.units[:3]] = True
    plan = graph.plan(removed)
    with torch.no_grad():
        net.writer.weight[:3] = 0
        net.writer.bias[:3] = constant  # sigmoid(-1000) is 0
    if constant == 0.0:
        with pytest.raises(ModelError, match=r"rnn\.weight_ih_l0.*no convolutions or matrices"):
            remove_silenced(plan, graph, [torch.rand(4, 5, 3)])
    else:
        removal = remove_silenced(plan, graph, [torch.rand(4, 5, 3)])
        assert removal.unfolded == ("rnn.weight_ih_l0",) and removal.difference < 1e-6


def test_norms_over_fewer_channels_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)).eval()
    p = Planned(net, torch.rand(4, 4), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    with caplog.at_level(logging.WARNING, logger="compressor"):
        removal = remove_silenced(p.plan, p.graph, [p.x])
    assert removal.statistics == ("0.weight",) and removal.difference > 1e-3
    assert "norms over fewer channels now: 0.weight" in caplog.text


# -- faults ----------------------------------------------------------------------------------------


def _silent() -> Planned:
    p = Planned(Two(bias=True, norm=True).eval(), torch.rand(2, 3, 8, 8), ratio=0.5)
    silence_(p.plan, p.graph, tolerance=9)
    return p


Faulty = Callable[[Planned], tuple[Plan, list[object]]]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: (p.plan, [p.x[:1]]), InputError, "a single example"),
        (lambda p: (p.plan, []), InputError, "no batch"),
        (lambda p: (planned().plan, [p.x]), PlanMismatchError, "another NormedNet"),
    ],
)
def test_faults_are_named(make: Faulty, error: type[Exception], message: str) -> None:
    p = _silent()
    plan, batches = make(p)
    with pytest.raises(error, match=message):
        remove_silenced(plan, p.graph, batches)


def test_examples_one_by_one_are_enough() -> None:
    p = _silent()
    removal = remove_silenced(p.plan, p.graph, [p.x[:1], p.x[1:]])
    assert removal.difference < 1e-5


def test_not_a_number_is_not_silent() -> None:
    p = _silent()
    with torch.no_grad():
        p.net.norm.bias.fill_(float("nan"))
    with pytest.raises(InputError, match="not silent"):
        remove_silenced(p.plan, p.graph, [p.x])


class Attending(nn.Module):
    """Heads whose values are constant give a constant, wherever they look."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0])


def test_values_of_attention_are_folded_into_its_projection() -> None:
    net = Attending().eval().double()
    nn.init.normal_(net.attention.in_proj_bias)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    graph = cp.capture(net, x)
    removed = np.zeros(graph.n_units, dtype=bool)
    # Of the values alone: a query and key that are constant still shift the logits of where to look.
    values = next(a for a in graph.axes if (a.tensor, a.axis) == ("attention.out_proj.weight", 1))
    dims = np.unique(values.units[-1])
    for cell in graph.groups[int(graph.group_of[dims[0]])].cells:
        removed[cell[:1]] = True
    plan = graph.plan(removed)
    silence_(plan, graph, tolerance=9)
    removal = remove_silenced(plan, graph, [x])
    assert [reader.into for reader in removal.readers] == ["attention.out_proj.bias"]
    assert removal.difference < 1e-12
