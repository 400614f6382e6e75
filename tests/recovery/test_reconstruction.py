"""Reconstruction against closed forms, and what it leaves alone."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.core.plan import Plan
from compressor.errors import InputError, PlanMismatchError, RecoveryError
from compressor.models.resnet_cifar import ResNetCifar
from compressor.recovery import Reconstruction, reconstruct_

TINY = 1e-12


def pruned(net: nn.Module, x: Tensor, gone: dict[str, list[int]], *, axis: int = 0) -> tuple[nn.Module, Plan]:
    """The network without these output channels of these tensors, and the plan that says so."""
    graph = cp.capture(net, x)
    removed = np.zeros(graph.n_units, dtype=bool)
    for one in graph.axes:
        if one.tensor in gone and one.axis == axis:
            removed[one.units[gone[one.tensor]]] = True
    plan = graph.plan(removed)
    return cp.apply(net, plan), plan


def randomised(net: nn.Module) -> nn.Module:
    """In float64 and eval mode, with norms that are not the identity."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return net.double().eval()


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_a_matrix_gets_the_least_squares_solution() -> None:
    net = randomised(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3)))
    x = randn(60, 5)
    small, _ = pruned(net, x, {"0.weight": [1, 4]})
    reconstruct_(small, net, [x[:20], x[20:]], ridge=TINY)
    read = F.relu(small[0](x)).detach()  # type: ignore[index]
    ones = torch.cat([read, torch.ones(60, 1)], dim=1).numpy()
    best, *_ = np.linalg.lstsq(ones, net(x).detach().numpy(), rcond=None)
    np.testing.assert_allclose(small[2].weight.detach().numpy(), best[:-1].T, atol=1e-8)  # type: ignore[index]
    np.testing.assert_allclose(small[2].bias.detach().numpy(), best[-1], atol=1e-8)  # type: ignore[index]


def test_without_a_bias_or_norm_there_is_no_intercept() -> None:
    net = randomised(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3, bias=False)))
    x = randn(60, 5)
    small, _ = pruned(net, x, {"0.weight": [1, 4]})
    reconstruct_(small, net, [x], ridge=TINY)
    read = F.relu(small[0](x)).detach().numpy()  # type: ignore[index]
    best, *_ = np.linalg.lstsq(read, net(x).detach().numpy(), rcond=None)
    np.testing.assert_allclose(small[2].weight.detach().numpy(), best.T, atol=1e-8)  # type: ignore[index]


def conv_net() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()),
        *(nn.Conv2d(6, 4, 3, stride=2, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(36, 5)),
    )


def double_(net: nn.Module, tensor: str, norm: str | None, copies: dict[int, int], factor: float) -> None:
    """Make channels of a layer multiples of others, behind its norm, too."""
    state = dict(net.state_dict())
    for channel, source in copies.items():
        state[tensor][channel] = state[tensor][source] * factor
        if norm is not None:
            for name in ("weight", "bias", "running_mean"):
                state[f"{norm}.{name}"][channel] = state[f"{norm}.{name}"][source] * factor
            variance, eps = state[f"{norm}.running_var"], 1e-5
            variance[channel] = (variance[source] + eps) * factor**2 - eps


def test_what_redundant_channels_held_comes_back_exactly() -> None:
    net = randomised(conv_net())
    double_(net, "0.weight", "1", {4: 0, 5: 2}, 2.0)
    x = randn(200, 3, 8, 8)
    small, _ = pruned(net, x, {"0.weight": [4, 5]})
    before = (small(x) - net(x)).abs().max()
    done = reconstruct_(small, net, list(x.split(64)), ridge=TINY, places=None)
    after = (small(x) - net(x)).abs().max()
    assert before > 0.1
    assert after < 1e-8
    assert [layer.weight for layer in done.layers] == ["3.weight", "7.weight"]
    fresh = randn(9, 3, 8, 8)  # not only on the calibration data
    torch.testing.assert_close(small(fresh), net(fresh), rtol=0, atol=1e-8)


def test_a_convolution_gets_the_least_squares_solution_of_its_windows() -> None:
    net = randomised(
        nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3, stride=2, padding=1, bias=True))
    )
    x = randn(6, 2, 9, 9)
    small, _ = pruned(net, x, {"0.weight": [3]})
    reconstruct_(small, net, [x], ridge=TINY, places=None)
    windows = F.unfold(F.relu(small[0](x)), 3, padding=1, stride=2).detach()  # type: ignore[index]
    rows = windows.transpose(1, 2).flatten(0, 1)
    rows = torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
    wanted = net(x).detach().flatten(2).transpose(1, 2).flatten(0, 1)
    best, *_ = np.linalg.lstsq(rows.numpy(), wanted.numpy(), rcond=None)
    np.testing.assert_allclose(
        small[2].weight.detach().flatten(1).numpy(),  # type: ignore[index]
        best[:-1].T,
        atol=1e-7,
    )


KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "depthwise": (
        lambda: nn.Sequential(
            *(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU()),
            *(nn.Conv2d(6, 6, 3, groups=6), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1)),
        ),
        (30, 3, 6, 6),
        "0.weight",
    ),
    "1d": (lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.Tanh(), nn.Conv1d(6, 4, 3)), (30, 3, 9), "0.weight"),
    "3d": (
        lambda: nn.Sequential(nn.Conv3d(2, 6, 2), nn.Tanh(), nn.Conv3d(6, 4, 2)),
        (30, 2, 4, 4, 4),
        "0.weight",
    ),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(3, 6), nn.GELU(), nn.Linear(6, 4)),
        (30, 7, 3),
        "0.weight",
    ),
    "transposed": (
        lambda: nn.Sequential(nn.Conv2d(3, 6, 1), nn.Tanh(), nn.ConvTranspose2d(6, 4, 3, stride=2)),
        (30, 3, 5, 5),
        "0.weight",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_makes_up_for_its_duplicates(kind: str) -> None:
    make, shape, name = KINDS[kind]
    net = randomised(make())
    x = randn(*shape)
    state = dict(net.state_dict())
    for key, value in state.items():  # channels 4 and 5 are 0 and 2 once more, wherever they are written
        if value.dim() and value.shape[0] == 6 and not (kind == "transposed" and key == "2.weight"):
            value[4], value[5] = value[0], value[2]
    small, _ = pruned(net, x, {name: [4, 5]})
    assert (small(x) - net(x)).abs().max() > 1e-3
    reconstruct_(small, net, list(x.split(11)), ridge=TINY, places=None)
    fresh = randn(*shape)
    torch.testing.assert_close(small(fresh), net(fresh), rtol=0, atol=1e-8)


class Residual(nn.Module):
    """Two blocks around a stream of four channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.one, self.norm1, self.two = nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(4)
        self.three, self.four = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.norm4 = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + self.norm2(self.two(F.relu(self.norm1(self.one(x)))))
        out = self.norm4(self.four(F.relu(self.three(x))))
        out += x
        return out


def test_the_error_in_a_residual_stream_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    net = randomised(Residual())
    x = randn(64, 3, 6, 6)
    small, plan = pruned(net, x, {"one.weight": [0, 3, 4, 6, 7], "three.weight": [1]})
    blind = copy.deepcopy(small)
    reconstruct_(small, net, [x], ridge=TINY, places=None)
    monkeypatch.setattr("compressor.observing.sums._ADDS", frozenset())
    reconstruct_(blind, net, [x], plan=plan, ridge=TINY, places=None)
    error, error_of_blind = ((model(x) - net(x)).square().mean() for model in (small, blind))
    assert error < 0.9 * error_of_blind


def test_the_last_layer_of_a_block_has_the_least_squares_solution_of_the_sum() -> None:
    net = randomised(Residual())
    x = randn(64, 3, 6, 6)
    small, _ = pruned(net, x, {"one.weight": [0, 3, 4, 6, 7], "three.weight": [1]})
    reconstruct_(small, net, [x], ridge=TINY, places=None)
    base = (small(x) - net(x)).square().mean()
    with torch.no_grad():
        for _ in range(20):  # no step away from it does better
            other = copy.deepcopy(small)
            weight, mean = other.four.weight, other.norm4.running_mean
            weight.add_(1e-3 * torch.randn_like(weight))  # type: ignore[union-attr, operator, arg-type]
            mean.add_(1e-3 * torch.randn_like(mean))  # type: ignore[union-attr, operator, arg-type]
            assert (other(x) - net(x)).square().mean() > base


@pytest.mark.parametrize("make", [conv_net, Residual, lambda: ResNetCifar(8, width=4)])
def test_passes_that_are_held_give_what_repeated_ones_give(make: Callable[[], nn.Module]) -> None:
    net = randomised(make())
    x = randn(24, 3, 8, 8)
    results = []
    for hold in (False, True):
        small = cp.prune(net, x, budget=cp.budget.Uniform(0.4))
        before, threads = (small(x) - net(x)).abs().max(), threading.active_count()
        done = reconstruct_(small, net, list(x.split(9)), hold=hold)
        assert (small(x) - net(x)).abs().max() < before
        assert len(done.layers) > 1
        assert threading.active_count() == threads
        results.append(small.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("hold", [False, True])
def test_what_a_forward_writes_into_buffers_is_put_back(hold: bool) -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 3)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += len(x)
            return self.down(F.relu(self.up(x)))

    net, x = Counting().double().eval(), randn(20, 3)
    small, _ = pruned(net, x, {"up.weight": [2]})
    reconstruct_(small, net, [x], hold=hold)
    assert net.seen.item() == small.seen.item() == 0


def test_batches_of_any_size_give_the_same() -> None:
    net = randomised(conv_net())
    x = randn(40, 3, 8, 8)
    results = []
    for size in (40, 13, 8):
        small, _ = pruned(net, x, {"0.weight": [0, 5], "3.weight": [2]})
        reconstruct_(small, net, [(part, None) for part in x.split(size)], places=4)
        results.append(small.state_dict())
    for name, value in results[0].items():
        for other in results[1:]:
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-10)


def test_a_batch_without_an_example_adds_nothing() -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3)).eval()
    x = torch.randn(4, 2, 8, 8)
    found = []
    for batches in ([x], [x, torch.ones(0, 2, 8, 8)]):
        small = cp.prune(net, x, budget=cp.budget.Uniform(0.5))
        reconstruct_(small, net, batches)
        found.append(small.get_parameter("2.weight").detach())
    assert torch.equal(*found)


def test_a_second_run_changes_nothing_more() -> None:
    net = randomised(conv_net())
    x = randn(40, 3, 8, 8)
    small, plan = pruned(net, x, {"0.weight": [0, 5]})
    reconstruct_(small, net, [x], ridge=1e-10)
    once = copy.deepcopy(small.state_dict())
    reconstruct_(small, net, [x], plan=plan, ridge=1e-10)
    for name, value in small.state_dict().items():
        torch.testing.assert_close(value, once[name], rtol=1e-5, atol=1e-6)


def test_only_weights_and_running_means_behind_the_cut_change() -> None:
    net = randomised(conv_net()).train()
    x = randn(40, 3, 8, 8)
    original = copy.deepcopy(net.state_dict())
    small, _ = pruned(net, x, {"0.weight": [0, 5]})
    small.train()
    before, state = copy.deepcopy(small.state_dict()), torch.get_rng_state()
    done = reconstruct_(small, net, [x])
    changed = {name for name, value in small.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight", "4.running_mean", "7.weight", "7.bias"}
    assert all(torch.equal(value, original[name]) for name, value in net.state_dict().items())
    assert small.training and net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(layer.after <= layer.before for layer in done.layers)
    assert "3.weight: " in str(done)
    assert all(p.requires_grad and p.grad is None for p in small.parameters())


class Tied(nn.Module):
    """An embedding that is the head's weight, too, and one layer whose weight is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.up = nn.Linear(4, 8)
        self.down = nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))
        self.head = nn.Linear(4, 9, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.down(F.relu(self.up(self.embedding(x)))))


def test_tied_and_computed_weights_are_left_and_named() -> None:
    net = Tied().double().eval()
    x = torch.randint(0, 9, (20, 3))
    small, _ = pruned(net, x, {"up.weight": [1, 2]})
    before = copy.deepcopy(small.state_dict())
    done = reconstruct_(small, net, [x])
    assert done.layers == ()
    assert set(done.left.values()) == {
        "its weight is computed from others",
        "its weight is used in another way, too",
    }
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_a_layer_that_is_called_twice_is_fitted_to_both() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(F.relu(self.up(x))) + self.down(F.relu(self.up(-x)))

    net = Twice().double().eval()
    x = randn(50, 3)
    small, _ = pruned(net, x, {"up.weight": [2]})
    reconstruct_(small, net, [x], ridge=TINY)
    read = torch.cat([F.relu(small.up(sign * x)) for sign in (1, -1)]).detach()
    wanted = torch.cat([net.down(F.relu(net.up(sign * x))) for sign in (1, -1)]).detach()
    # The sum is no target: what is added is written by the same weights.
    rows = torch.cat([read, torch.ones(100, 1)], dim=1).numpy()
    best, *_ = np.linalg.lstsq(rows, wanted.numpy(), rcond=None)
    np.testing.assert_allclose(small.down.weight.detach().numpy(), best[:-1].T, atol=1e-8)
    with pytest.raises(RecoveryError, match="is called 2 times in one forward pass"):
        reconstruct_(small, net, [x], hold=True)


def test_a_layer_with_too_many_inputs_is_left_and_named() -> None:
    net = randomised(conv_net())
    x = randn(10, 3, 8, 8)
    small, _ = pruned(net, x, {"0.weight": [0]})
    done = reconstruct_(small, net, [x], max_inputs=40)
    assert done.left == {"3.weight": "it has 45 inputs, more than max_inputs = 40"}
    assert [layer.weight for layer in done.layers] == ["7.weight"]


def test_prune_recovers_after_every_step_and_proves_the_cut_first() -> None:
    net = randomised(conv_net())
    x = randn(40, 3, 8, 8)
    seen: list[Plan] = []

    def recover(small: nn.Module, original: nn.Module, plan: Plan) -> None:
        assert original is net
        assert plan.result.first_mismatch(cp.apply(net, plan) and plan.result) is None
        seen.append(plan)
        Reconstruction([x])(small, original, plan)

    small = cp.prune(net, x, budget=cp.budget.Macs(0.4), steps=2, recover=recover)
    plain = cp.prune(net, x, budget=cp.budget.Macs(0.4), steps=2)
    assert len(seen) == 2
    assert (small(x) - net(x)).square().mean() < (plain(x) - net(x)).square().mean()


@pytest.mark.parametrize(
    ("batches", "options", "error", "words"),
    [
        ([], {}, InputError, "gave no batch"),
        (iter([1]), {}, InputError, "list_iterator can be run through only once"),
        (3, {}, InputError, "must be iterable"),
        ("nan", {}, RecoveryError, "batch 1: what '.*weight' .* is not finite"),
        ("nan", {"hold": True}, RecoveryError, "batch 1: what '.*weight' .* is not finite"),
        ([], {"hold": True}, InputError, "gave no batch"),
        ("odd", {"hold": True}, InputError, "cannot run on a batch"),
        ("odd", {}, InputError, "cannot run on a batch"),
        ("good", {"ridge": 0}, InputError, "ridge must be above 0"),
        ("good", {"places": 0}, InputError, "at least one place"),
        ("good", {"max_batches": 0}, InputError, "max_batches must be at least 1"),
    ],
)
def test_bad_input_leaves_the_model_as_it_was(
    batches: object, options: dict[str, int], error: type[Exception], words: str
) -> None:
    net = randomised(conv_net())
    x = randn(8, 3, 8, 8)
    chosen = {"nan": [x, x * float("nan")], "good": [x], "odd": [x, x[:, :1]]}
    given = chosen[batches] if isinstance(batches, str) else batches
    small, _ = pruned(net, x, {"0.weight": [0, 5]})
    before, threads = copy.deepcopy(small.state_dict()), threading.active_count()
    with pytest.raises(error, match=words):
        reconstruct_(small, net, given, **options)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())
    assert threading.active_count() == threads


def test_an_error_in_a_later_layer_leaves_the_earlier_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    net = randomised(conv_net())
    x = randn(8, 3, 8, 8)
    small, _ = pruned(net, x, {"0.weight": [0, 5]})
    before = copy.deepcopy(small.state_dict())

    def fail(done: int, steps: int) -> None:
        assert not torch.equal(small.state_dict()["3.weight"], before["3.weight"])
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        reconstruct_(small, net, [x], progress=fail)
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_one_example_is_enough_to_stay_finite() -> None:
    net = randomised(conv_net())
    x = randn(1, 3, 8, 8)
    small, _ = pruned(net, x, {"0.weight": [0, 5]})
    reconstruct_(small, net, [x])
    assert torch.isfinite(small(x)).all()
    assert (small(x) - net(x)).abs().max() < 0.05  # what it knows of, it gets right


def test_models_that_the_plan_does_not_join_are_refused() -> None:
    net = randomised(conv_net())
    x = randn(8, 3, 8, 8)
    small, plan = pruned(net, x, {"0.weight": [0, 5]})
    another = randomised(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(PlanMismatchError, match="the original does not fit the plan"):
        reconstruct_(small, another, [x], plan=plan)
    with pytest.raises(PlanMismatchError, match="the pruned model does not fit the plan"):
        reconstruct_(net, net, [x], plan=plan)
    with pytest.raises(InputError, match="give it: reconstruct_"):
        reconstruct_(copy.deepcopy(small), net, [x])
