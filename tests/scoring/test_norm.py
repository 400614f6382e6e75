from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import Norm, score
from compressor.scoring.weights import BOTH


def weight(graph: Graph, name: str) -> torch.Tensor:
    return graph.model.get_parameter(name).detach().double()


@pytest.mark.parametrize("p", [0.5, 1, 2, 3, 7.5, math.inf])
def test_site_scores_are_norms_of_rows_and_columns(residual: Graph, p: float) -> None:
    sites = Norm(p).site_scores(residual)
    assert ("inner.weight", 1) in sites
    for (tensor, axis), values in sites.items():
        for channel, value in enumerate(values.tolist()):
            slice_ = weight(residual, tensor).select(axis, channel)
            expected = torch.linalg.vector_norm(slice_, p)
            assert value == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("p", "power"), [(2, 2), (1, 0.5), (math.inf, 3)])
def test_the_power_is_taken_of_every_slices_norm(residual: Graph, p: float, power: float) -> None:
    plain, found = Norm(p).site_scores(residual), Norm(p, power=power).site_scores(residual)
    for key, values in plain.items():
        np.testing.assert_allclose(found[key].numpy(), values.double().numpy() ** power, rtol=1e-12)


@pytest.mark.parametrize("power", [0, -1, math.inf, math.nan, "2"])
def test_a_power_that_orders_nothing_is_refused(power: object) -> None:
    with pytest.raises(InputError, match="the power of a norm is a finite number above 0"):
        Norm(power=power)  # type: ignore[arg-type]


def test_a_grouped_convolution_is_read_block_by_block(grouped: Graph) -> None:
    found = Norm(2).site_scores(grouped)["2.weight", 1]
    w = weight(grouped, "2.weight")
    expected = [w[3 * (i // 2) : 3 * (i // 2) + 3, i % 2].norm().item() for i in range(6)]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_li_et_al_is_the_l1_norm_of_the_filters(residual: Graph) -> None:
    scores = score(residual, Norm(1, roles="writer", reduce="first", normalize="none"))
    units = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("stem.weight", 0))
    expected = weight(residual, "stem.weight").abs().sum((1, 2, 3))
    np.testing.assert_allclose(scores.values[units], expected.numpy(), rtol=1e-6)


def test_the_default_is_the_mean_over_a_units_slices_over_the_groups_mean(chain: Graph) -> None:
    rows, columns = weight(chain, "0.weight").norm(dim=1), weight(chain, "2.weight").norm(dim=0)
    mean = (rows + columns) / 2
    np.testing.assert_allclose(score(chain, Norm()).values, (mean / mean.mean()).numpy(), rtol=1e-6)


def test_the_model_may_be_in_half_precision() -> None:
    net = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1)).to(torch.bfloat16)
    with torch.no_grad():
        net[0].weight.fill_(3.0)
    graph = capture(net, torch.ones(1, 64, dtype=torch.bfloat16))
    # 64 · 9 = 576 and its root 24: a sum in bfloat16 would round on the way.
    found = score(graph, Norm(roles="writer", normalize="none")).values
    np.testing.assert_allclose(found, np.full(8, 24.0), rtol=1e-6)


def test_large_powers_of_small_weights_do_not_vanish() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1e-6, 0.0], [2e-6, 0.0]]))
    graph = capture(net, torch.ones(1, 2))  # 1e-60 is zero in float32
    found = score(graph, Norm(10, roles="writer", normalize="none")).values
    np.testing.assert_allclose(found, [1e-6, 2e-6], rtol=1e-6)


def test_complex_weights_count_by_both_parts() -> None:
    class Rotation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Parameter(torch.tensor([[3 + 4j, 0], [5 + 12j, 0]]))
            self.second = nn.Parameter(torch.ones(1, 2, dtype=torch.complex64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x @ self.first.T) @ self.second.T

    graph = capture(Rotation(), torch.ones(1, 2, dtype=torch.complex64))
    if graph.n_units == 0:
        pytest.skip("the capture pins complex channels")
    found = score(graph, Norm(2, roles="writer", normalize="none")).values
    np.testing.assert_allclose(found, [5.0, 13.0])


@pytest.mark.parametrize("p", [0, -1, float("nan"), "2"])
def test_a_power_that_is_no_norm_is_refused(p: float) -> None:
    with pytest.raises(InputError, match=r"the p of a norm is a number above 0"):
        Norm(p)


def test_a_nan_weight_is_named(residual: Graph) -> None:
    with torch.no_grad():
        residual.model.get_parameter("last.weight")[4, 2, 1, 1] = float("nan")
    with pytest.raises(ScoreError) as error:
        score(residual, Norm())
    text = str(error.value)
    assert "'last.weight' axis 0: expected finite scores, got nan for channel 4 (1 of 7" in text
    assert "look for NaN or infinite weights" in text


def test_the_text_shows_what_differs_from_the_default() -> None:
    assert repr(Norm()) == "Norm(p=2)"
    assert repr(Norm(roles=BOTH)) == repr(Norm(roles=("reader", "writer"))) == "Norm(p=2)"
    assert repr(Norm(1, reduce="max")) == "Norm(p=1, reduce='max')"
