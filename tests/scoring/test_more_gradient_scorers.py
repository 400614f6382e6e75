"""GraSP, Hessian and GateTaylor against explicit Hessians, gates in the forward, and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import GateTaylor, GraSP, Hessian, Norm, Scorer, score
from compressor.scoring.second_order import along
from compressor.testing import ScorerContract

Data = list[tuple[Tensor, Tensor]]


class TestGraSP(ScorerContract):
    def make(self) -> Scorer:
        return GraSP(self.batches(), cross_entropy)


class TestGraSPOfSlices(ScorerContract):
    def make(self) -> Scorer:
        return GraSP(self.batches(), cross_entropy, joint="slice", roles=("writer", "reader"))


class TestHessian(ScorerContract):
    reads_channels = False  # its signs are drawn by position: scores move with a channel on average only

    def make(self) -> Scorer:
        return Hessian(self.batches(), cross_entropy)


class TestGateTaylor(ScorerContract):
    def make(self) -> Scorer:
        return GateTaylor(self.batches(), cross_entropy, otherwise=Norm())


@pytest.fixture
def smooth() -> Graph:
    """Tanh, so that there are second derivatives within units and between them; in float64."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
    return capture(net.double(), torch.randn(1, 3, dtype=torch.float64))


@pytest.fixture
def points() -> Data:
    def draw(size: int) -> Tensor:
        return torch.randn(6, size, dtype=torch.float64)

    return [(draw(3), draw(2)) for _ in range(2)]


def readers(graph: Graph) -> list[tuple[str, int, np.ndarray]]:
    return [(a.tensor, a.axis, a.units) for a in graph.axes if a.role == "reader" and (a.units >= 0).any()]


def shrunk(graph: Graph, unit: int, factor: Tensor) -> dict[str, Tensor]:
    """All parameters, those slices that read a unit multiplied by the factor."""
    weights = {name: p.detach().clone() for name, p in graph.model.named_parameters()}
    for name, axis, units in readers(graph):
        scale = torch.ones(len(units), dtype=torch.float64)
        scale = torch.where(torch.from_numpy(units == unit), factor, scale)
        weights[name] = weights[name] * scale.view([-1 if a == axis else 1 for a in range(2)])
    return weights


def loss_of(graph: Graph, weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
    return mse_loss(torch.func.functional_call(graph.model, weights, (batch[0],)), batch[1])


def half_squared_gradient(graph: Graph, weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> float:
    wanted = [weights[name].detach().requires_grad_() for name in weights if name.endswith("weight")]
    names = [name for name in weights if name.endswith("weight")]
    value = loss_of(graph, {**weights, **dict(zip(names, wanted, strict=True))}, batch)
    return sum(g.square().sum().item() / 2 for g in torch.autograd.grad(value, wanted))


def test_grasp_is_the_slope_of_the_gradients_norm_as_a_unit_shrinks(smooth: Graph, points: Data) -> None:
    found, step = score(smooth, GraSP(points, mse_loss)).values, 1e-5
    for unit in range(smooth.n_units):
        slopes = []
        for batch in points:
            up, down = (
                half_squared_gradient(
                    smooth, shrunk(smooth, unit, torch.tensor(1 + s, dtype=torch.float64)), batch
                )
                for s in (step, -step)
            )
            slopes.append((up - down) / (2 * step))
        assert found[unit] == pytest.approx(np.mean(slopes), rel=1e-6, abs=1e-9)
    assert (found < 0).any() and (found > 0).any(), "signs are kept"


def second_derivative(graph: Graph, unit: int, batch: tuple[Tensor, Tensor]) -> float:
    """Of the loss by a factor on all weights that read a unit."""
    one = torch.ones((), dtype=torch.float64)
    return torch.func.hessian(lambda f: loss_of(graph, shrunk(graph, unit, f), batch))(one).item()


def test_hessian_is_on_average_half_the_second_derivative_by_a_gate(smooth: Graph, points: Data) -> None:
    exact = np.array(
        [np.mean([second_derivative(smooth, u, b) for b in points]) / 2 for u in range(smooth.n_units)]
    )
    draws = 400
    found = score(smooth, Hessian(points * draws, mse_loss)).values
    np.testing.assert_allclose(found, exact, atol=0.1 * np.abs(exact).max())
    few = score(smooth, Hessian(points, mse_loss)).values
    assert np.abs(found - exact).mean() < np.abs(few - exact).mean() / 3, "more draws come closer"


def test_hessian_is_exact_where_units_do_not_act_on_one_another() -> None:
    """Each of two units has an output of its own: one draw is enough, whatever the signs."""
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        net[2].weight.copy_(torch.diag(torch.randn(2, dtype=torch.float64)))
    batch = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    graph = capture(net, batch[0])
    exact = [second_derivative(graph, unit, batch) / 2 for unit in range(2)]
    for seed in range(4):
        found = score(graph, Hessian([batch], mse_loss, seed=seed)).values
        np.testing.assert_allclose(found, exact, rtol=1e-9)


def test_hessian_draws_other_signs_with_another_seed(smooth: Graph, points: Data) -> None:
    values = [score(smooth, Hessian(points, mse_loss, seed=seed)).values for seed in (0, 1)]
    assert not np.allclose(*values)


def test_second_derivatives_along_a_direction_are_those_of_the_explicit_hessian() -> None:
    matrix = torch.randn(3, 3, dtype=torch.float64)
    matrix = matrix + matrix.T
    point, direction = torch.randn(2, 3, dtype=torch.float64)
    weight, other = point.clone().requires_grad_(), torch.ones(2, requires_grad=True)
    found = along(lambda _: [direction, other.detach()], weight @ matrix @ weight / 2, [weight, other])
    np.testing.assert_allclose(found[0], matrix @ direction)
    assert found[1] is None


def test_a_kernel_without_second_derivative_is_named() -> None:
    query = torch.randn(1, 1, 4, 8, requires_grad=True)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        attended = nn.functional.scaled_dot_product_attention(query, query, query)
    with pytest.raises(ScoreError, match=r"cannot be differentiated twice .*flash_attention"):
        along(lambda gradients: gradients, attended.square().sum(), [query])


def test_gate_taylor_is_the_squared_derivative_by_gates_behind_the_norms() -> None:
    class Net(nn.Module):
        """A stream that two norms write, and a branch."""

        def __init__(self) -> None:
            super().__init__()
            self.stem, self.bn1 = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)
            self.inner, self.bn2 = nn.Conv2d(5, 4, 1), nn.BatchNorm2d(4)
            self.outer, self.bn3 = nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor, gates: list[Tensor] | None = None) -> Tensor:
            stream, branch = gates or [torch.ones(5), torch.ones(4)]
            stream, branch = stream[:, None, None], branch[:, None, None]
            x = torch.relu(self.bn1(self.stem(x)) * stream)
            y = torch.relu(self.bn2(self.inner(x)) * branch)
            return self.head(torch.relu(x + self.bn3(self.outer(y)) * stream).mean((2, 3)))

    net = Net().eval()
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor) + 0.5 if tensor.ndim == 1 else torch.randn_like(tensor))
    data = [(torch.randn(4, 3, 6, 6), torch.randint(0, 3, (4,))) for _ in range(3)]
    graph = capture(net, data[0][0])
    expected = []
    for images, labels in data:
        gates = [torch.ones(5, requires_grad=True), torch.ones(4, requires_grad=True)]
        slopes = torch.autograd.grad(cross_entropy(net(images, gates), labels), gates)
        expected.append([slope.square().numpy() for slope in slopes])
    values = score(graph, GateTaylor(data, cross_entropy)).values
    for position, name in enumerate(("stem.weight", "inner.weight")):
        units = next(a.units for a in graph.axes if (a.tensor, a.axis) == (name, 0))
        np.testing.assert_allclose(
            values[units], np.mean([e[position] for e in expected], axis=0), rtol=1e-3, atol=1e-7
        )


def test_channels_without_a_gate_need_another_scorer(residual: Graph) -> None:
    data = [(torch.randn(4, 3, 6, 6), torch.randint(0, 4, (4,)))]
    with pytest.raises(ScoreError, match=r"1 of the 3 groups meet no BatchNorm.*'last.weight'"):
        score(residual, GateTaylor(data, cross_entropy))
    values = score(residual, GateTaylor(data, cross_entropy, otherwise=Norm())).values
    last = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("last.weight", 0))
    np.testing.assert_array_equal(values[last], score(residual, Norm()).values[last])


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Hessian, GateTaylor])
def test_other_sums_than_those_of_units_are_refused(kind: Any) -> None:
    with pytest.raises(InputError, match="joint must be 'unit', got 'slice'"):
        kind([], mse_loss, joint="slice")


@pytest.mark.parametrize("kind", [GraSP, Hessian])
def test_a_loss_without_second_derivative_is_named(kind: Any) -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = capture(net, torch.randn(1, 3))

    def linear(_output: Tensor, _target: Tensor) -> Tensor:
        return sum(p.sum() for p in net.parameters())

    with pytest.raises(ScoreError, match="the loss has no second derivative"):
        score(graph, kind([torch.randn(2, 3)], linear))


@pytest.mark.parametrize("kind", [GraSP, Hessian])
def test_an_operator_that_bends_once_only_is_named(kind: Any) -> None:
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.square()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad * 2 * ctx.saved_tensors[0]

    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = capture(net, torch.randn(1, 3))
    with pytest.raises(ScoreError, match=r"cannot be differentiated twice .*score with Fisher"):
        score(graph, kind([torch.randn(2, 3)], lambda output, _: Once.apply(output).square().sum()))


@pytest.mark.parametrize("kind", [GraSP, Hessian])
def test_attention_and_recurrence_are_differentiated_twice(kind: Any) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.rnn = nn.Linear(3, 8), nn.GRU(8, 8, batch_first=True)
            self.attention, self.last = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x, _ = self.rnn(torch.relu(self.first(x)))
            x, _ = self.attention(x, x, x, need_weights=False)
            return self.last(x).mean(1)

    tokens = torch.randn(2, 4, 3)
    values = score(capture(Net(), tokens), kind([(tokens, torch.tensor([0, 1]))], cross_entropy)).values
    assert np.isfinite(values).all() and (values != 0).any()


@pytest.mark.parametrize("kind", [GraSP, Hessian, GateTaylor])
def test_no_batch_at_all_is_an_error(residual: Graph, kind: Any) -> None:
    options = {"otherwise": Norm()} if kind is GateTaylor else {}
    with pytest.raises(InputError, match="gave no batch"):
        score(residual, kind([], cross_entropy, **options))
