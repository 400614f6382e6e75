"""What is drawn anew, what around it is reset, and what the network computes afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import compressor as cp
from compressor.design import Copies, He, KMeans, Redrawn, ResidualOrthogonal, reinitialise, reinitialise_
from compressor.errors import InputError, ModelError


class Net(nn.Module):
    """A block, a depthwise layer and a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.conv2, self.bn2 = nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv4 = nn.Conv2d(6, 4, 3, padding=1, groups=2)
        self.head = nn.Linear(4 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(functional.relu(self.bn1(self.conv1(x))))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self.bn3(self.conv3(x)) + x)
        out: Tensor = self.head(functional.adaptive_avg_pool2d(self.conv4(x), 4).flatten(1))
        return out


def trained() -> Net:
    """Every tensor scrambled, as a training leaves it."""
    net = Net().eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(
                    torch.rand_like(tensor) + 0.1 if "running_var" in name else torch.randn_like(tensor)
                )
    return net


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(model: nn.Module, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def x_of(n: int = 2) -> Tensor:
    return torch.randn(n, 3, 8, 8)


def flags(count: int, *chosen: int) -> Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(chosen)] = True
    return mask


def test_dead_filters_and_copies_are_found_and_drawn() -> None:
    net = trained()
    with torch.no_grad():
        net.conv1.weight[3] = 0
        net.conv3.weight[5] = 2 * net.conv3.weight[1]
        net.bn3.weight.fill_(1)  # folded in, a negative scale would turn a copy around
    before = state(net)
    small, report = reinitialise(net, x_of())
    assert report.layers == (Redrawn("conv1", (3,), 8), Redrawn("conv3", (5,), 6))
    assert report.norms == ("bn1", "bn3") and report.count == 2
    assert changed(net, before) == set()
    assert changed(small, before) == {"conv1.weight", "conv3.weight", "conv3.bias"} | {
        f"{norm}.{name}"
        for norm in ("bn1", "bn3")
        for name in ("weight", "bias", "running_mean", "running_var")
    } - {"bn3.weight"}
    assert torch.equal(small.conv1.weight[:3], before["conv1.weight"][:3])
    assert float(small.conv1.weight[3].detach().norm()) > 0.5


def test_the_channels_of_the_norms_are_as_in_new_ones() -> None:
    net = trained()
    before = state(net)
    reinitialise_(net, x_of(), where={"conv2": flags(6, 0, 4)})
    fresh = nn.BatchNorm2d(6).state_dict()
    for name in ("weight", "bias", "running_mean", "running_var"):
        now = net.bn2.state_dict()[name]
        assert torch.equal(now[[0, 4]], fresh[name][[0, 4]])
        assert torch.equal(now[[1, 2, 3, 5]], before[f"bn2.{name}"][[1, 2, 3, 5]])
    assert torch.equal(net.bn2.num_batches_tracked, before["bn2.num_batches_tracked"])
    assert changed(net, before) <= {f"bn2.{n}" for n in fresh} | {"conv2.weight", "conv2.bias"}


def test_nothing_flagged_changes_nothing() -> None:
    net = trained()
    before = state(net)
    report = reinitialise_(net, x_of())
    assert report.count == 0 and str(report) == "no filter was drawn anew" and changed(net, before) == set()


def test_a_silent_channel_changes_no_output_until_trained() -> None:
    net, x = trained(), x_of(8)
    with torch.no_grad():  # dead, and its norm shifts it below zero: it says nothing behind the ReLU
        net.conv1.weight[2], net.bn1.running_mean[2], net.bn1.bias[2] = 0, 0, -1
        net.depthwise.bias[2] = 0
    expected = net(x)
    report = reinitialise_(net, x, silent=True)
    assert report.layers == (Redrawn("conv1", (2,), 8),) and report.silenced == ("conv2.weight",)
    torch.testing.assert_close(net(x), expected)
    assert not net.conv2.weight[:, 2].any()
    loss = net.train()(x).square().sum()
    loss.backward()
    assert net.conv2.weight.grad is not None and net.conv2.weight.grad[:, 2].abs().sum() > 0  # it can wake up


def test_silent_channels_are_as_if_they_were_not_there() -> None:
    """The oracle is a plan that removes the channels, applied by the core."""
    net, x = trained(), x_of(8)
    graph = cp.capture(net, x)
    (axis,) = (a for a in graph.axes if a.tensor == "conv1.weight" and a.axis == 0)
    removed = torch.zeros(graph.n_units, dtype=torch.bool)
    removed[axis.units[[1, 6]]] = True
    small = cp.apply(net, graph.plan(removed.numpy()))
    reinitialise_(net, x, where={"conv1": flags(8, 1, 6)}, silent=True)
    torch.testing.assert_close(net(x), small(x), atol=1e-4, rtol=1e-4)


def test_readers_of_grouped_convolutions_and_matrices_are_silenced() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Flatten(), nn.Linear(16, 3))
    report = reinitialise_(
        net, torch.rand(1, 2, 2, 2), where={"0": flags(4, 1), "1": flags(4, 2)}, silent=True
    )
    assert report.silenced == ("1.weight", "3.weight")
    expected = torch.ones(4, 2)
    expected[:2, 1] = 0  # channel 1 is the second input of the first group, which two filters read
    assert torch.equal((net[1].weight != 0).flatten(1).float(), expected)
    assert torch.equal(net[3].weight == 0, flags(16, 8, 9, 10, 11).expand(3, -1))


@pytest.mark.parametrize(
    ("layer", "count", "reason"),
    [("conv3", 6, "'conv2.weight' writes to them as well"), ("head", 5, "they cannot be taken away")],
)
def test_what_is_not_the_layers_own_cannot_be_silent(layer: str, count: int, reason: str) -> None:
    net = trained()
    before = state(net)
    with pytest.raises(InputError, match=f"silent=True: .*{reason}"):
        reinitialise_(net, x_of(), where={layer: flags(count, 0)}, silent=True)
    assert changed(net, before) == set()


def test_norms_over_channels_are_no_place_for_silence() -> None:
    net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    with pytest.raises(InputError, match=r"silent=True: the chosen channels of '0\.weight' cannot"):
        reinitialise_(net, torch.rand(3, 4), where={"0": flags(6, 1)}, silent=True)


@pytest.mark.parametrize("kind", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, 1e-12, momentum=0.9)])
def test_state_and_gradients_of_what_was_drawn_start_anew(kind) -> None:  # type: ignore[no-untyped-def]
    net, x = trained(), x_of(4)
    optimizer = kind(net.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
    before = {
        p: {k: v.clone() for k, v in s.items() if isinstance(v, Tensor)} for p, s in optimizer.state.items()
    }
    reinitialise_(net, x, where={"conv1": flags(8, 5)}, silent=True, optimizer=optimizer)
    reset = {net.conv1.weight: (0, 5), net.bn1.weight: (0, 5), net.bn1.bias: (0, 5), net.conv2.weight: (1, 5)}
    for parameter, old in before.items():
        for key, values in old.items():
            now = optimizer.state[parameter][key]
            if parameter in reset and values.dim():
                axis, index = reset[parameter]
                assert values.select(axis, index).abs().sum() > 0 and not now.select(axis, index).any()
                rest = [i for i in range(values.shape[axis]) if i != index]
                assert torch.equal(
                    now.index_select(axis, torch.tensor(rest)), values.index_select(axis, torch.tensor(rest))
                )
            else:
                assert torch.equal(now, values)
    assert (
        net.conv1.weight.grad is not None
        and not net.conv1.weight.grad[5].any()
        and net.conv1.weight.grad[4].any()
    )


def test_optimizers_that_do_not_fit_are_refused_before_anything_changes() -> None:
    net = trained()
    before = state(net)
    with pytest.raises(InputError, match="holds none of the model's parameters"):
        reinitialise_(
            net, x_of(), where=["conv1"], optimizer=torch.optim.SGD(copy.deepcopy(net).parameters(), 0.1)
        )
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    optimizer.state[net.conv1.weight]["factor"] = torch.ones(8)
    with pytest.raises(InputError, match=r"'factor' of 'conv1.weight' has shape \[8\]"):
        reinitialise_(net, x_of(), where=["conv1"], optimizer=optimizer)
    assert changed(net, before) == set()


def test_any_initialiser_draws() -> None:
    net = trained()
    reinitialise_(net, x_of(), where={"conv3": flags(6, 2)}, how=ResidualOrthogonal(1.0))
    rows = net.conv3.weight.detach().flatten(1)
    assert float((rows[[0, 1, 3, 4, 5]] @ rows[2]).abs().max()) < 1e-5
    report = reinitialise_(net, x_of(), where={"conv3": flags(6, 2)}, how=KMeans([x_of(16)]))
    assert report.count == 1


def test_examples_are_needed_where_they_are_read() -> None:
    with pytest.raises(InputError, match="the model has batch norms, and what reads a drawn filter"):
        reinitialise_(Net(), where=["conv1"])
    with pytest.raises(InputError, match="silent=True: what reads"):
        reinitialise_(nn.Conv2d(3, 4, 3), where=[""], silent=True)
    assert reinitialise_(nn.Conv2d(3, 4, 3), where=[""]).count == 4


def test_a_seed_repeats_itself() -> None:
    net = trained()
    first, second = (reinitialise(net, x_of(), where=["conv1"], seed=3)[0] for _ in range(2))
    assert torch.equal(first.conv1.weight, second.conv1.weight)


def test_what_is_refused_leaves_no_trace() -> None:
    net = trained()
    before = state(net)
    with pytest.raises(InputError, match="'conv9' is no convolution"):
        reinitialise_(net, x_of(), where=["conv9"])
    with pytest.raises(InputError, match="the class He"):
        reinitialise_(net, x_of(), where=["conv1"], how=He)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot run on a batch"):
        reinitialise_(net, torch.rand(1, 7, 8, 8), where=["conv1"])
    with pytest.raises(InputError, match="got int"):
        reinitialise(3, x_of())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="lazy"):
        reinitialise_(nn.LazyConv2d(4, 3), where=[""])
    assert changed(net, before) == set() and not net.training


def test_after_a_pruning_the_fans_are_the_pruned_ones() -> None:
    net, x = trained(), x_of()
    small = cp.prune(net, x, budget=cp.budget.Uniform(0.5))
    reinitialise_(small, x, where=["conv2"], how=He(1.0))
    variance = float(small.conv2.weight.detach().var())
    assert small.conv2.in_channels == 4 and variance == pytest.approx(1 / (4 * 9), rel=0.4)
    assert small(x).shape == (2, 5)
    assert Copies(0.9)(cp.filters.FilterBank(small.conv2.weight, "conv2")).sum() == 0
