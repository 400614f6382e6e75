"""SynFlow against closed forms and the authors' steps done by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import ScoreError
from compressor.models import ResNetCifar
from compressor.scoring import Scorer, SynFlow, score
from compressor.testing import ScorerContract


class TestSynFlow(ScorerContract):
    def make(self) -> Scorer:
        return SynFlow()


def test_the_flow_of_a_chain_is_what_its_positive_weights_carry(chain: Graph) -> None:
    """A unit takes Σ|w_in| from an input of ones and gives Σ|w_out| of it to the outputs."""
    inputs, outputs = chain.model[0].weight.detach().abs(), chain.model[2].weight.detach().abs()  # type: ignore[index]
    expected = inputs.sum(1) * outputs.sum(0) * len(chain.args[0])
    np.testing.assert_allclose(score(chain, SynFlow()).values, expected, rtol=1e-6)


def by_hand(graph: Graph) -> np.ndarray:
    """The authors' steps on a copy: |state|, ones, backward; then sums over readers in a naive loop."""
    model = copy.deepcopy(graph.model).double().eval()
    for name, tensor in model.state_dict().items():
        if name.endswith("running_mean"):
            tensor.zero_()
        elif tensor.is_floating_point():
            tensor.abs_()
    model(torch.ones_like(graph.args[0], dtype=torch.float64)).sum().backward()
    weights = dict(model.named_parameters())
    sums = np.zeros(graph.n_units)
    for axis in graph.axes:
        if axis.role == "reader" and axis.blocks == 1:
            weight = weights[axis.tensor]
            for channel, unit in enumerate(axis.units.tolist()):
                if unit >= 0:
                    own = (weight.grad * weight).abs().select(axis.axis, channel)  # type: ignore[operator]
                    sums[unit] += own.sum().item()
    return sums


def test_the_steps_of_the_authors_give_the_same_on_a_residual_network(residual: Graph) -> None:
    np.testing.assert_allclose(score(residual, SynFlow()).values, by_hand(residual), rtol=1e-9)


def test_float32_would_overflow_and_float64_does_not() -> None:
    graph = capture(ResNetCifar(20).eval(), torch.randn(1, 3, 16, 16))
    with torch.no_grad():
        for parameter in graph.model.parameters():
            parameter.mul_(100)
    values = score(graph, SynFlow()).values
    assert np.isfinite(values).all() and values.max() > torch.finfo(torch.float32).max
    np.testing.assert_allclose(values, by_hand(graph), rtol=1e-9)


def test_flow_is_conserved_from_layer_to_layer() -> None:
    """Without biases as much flows through every layer as comes out."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.ReLU(),
        nn.Flatten(), nn.Linear(6, 2, bias=False),
    )  # fmt: skip
    graph = capture(net, torch.randn(1, 1, 5, 5))
    values = score(graph, SynFlow()).values
    layers = [
        values[next(a.units for a in graph.axes if (a.tensor, a.axis) == (f"{i}.weight", 0))] for i in (0, 2)
    ]
    assert layers[0].sum() == pytest.approx(layers[1].sum(), rel=1e-9)


def test_signs_and_means_of_a_trained_network_make_no_difference(residual: Graph) -> None:
    expected = score(residual, SynFlow()).values
    with torch.no_grad():
        for name, tensor in residual.model.state_dict().items():
            if name.endswith("weight"):
                tensor.neg_()
            if name.endswith("running_mean"):
                tensor.fill_(100.0)
    np.testing.assert_allclose(score(residual, SynFlow()).values, expected, rtol=1e-9)


def test_token_ids_stay_those_of_the_capture() -> None:
    net = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    ids = torch.tensor([[3, 6, 1]])
    embedded = net[0].weight.detach()[ids[0]].abs().sum(0)
    inner = net[1].weight.detach().abs() @ embedded + 3 * net[1].bias.detach().abs()
    expected = inner * net[3].weight.detach().abs().sum(0)
    graph = capture(net, ids)
    units = next(a.units for a in graph.axes if (a.tensor, a.axis) == ("1.weight", 0))
    np.testing.assert_allclose(score(graph, SynFlow()).values[units], expected, rtol=1e-5)


def test_nothing_that_flows_is_an_error() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.zeros_(net[2].weight)
    with pytest.raises(ScoreError, match="nothing flows through Sequential"):
        score(capture(net, torch.ones(1, 3)), SynFlow())


def test_weights_that_are_not_finite_are_named() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x)))

    net = Net()
    graph = capture(net, torch.ones(1, 3))
    with torch.no_grad():
        net.first.weight[0, 0] = float("nan")
    with pytest.raises(ScoreError, match="the flow through Net is nan"):
        score(graph, SynFlow())
