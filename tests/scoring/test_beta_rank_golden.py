"""Beta-Rank against the scores that the authors' code computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import ScoreError
from compressor.models import create
from compressor.observing.moments import moments_of
from compressor.scoring import BetaRank
from compressor.scoring.beta import Direction, betas, stretched
from compressor.scoring.receptive_fields import Field, field_moments, published_moments

CASES = (
    "c3s1p1_C8_H8",
    "c3s1p1_C3_H8",
    "c3s2p1_C16_H16",
    "c1s1p0_C8_H6",
    "c1s2p0_C8_H8",
    "c5s1p2_C6_H6_W10",
    "c3s1p0_C8_H8",
    "c3s2p1_H7_odd",
    "grouped_g2",
    "depthwise_g8",
    "bias",
)
DEGENERATE = ("dead_inputs", "batch1", "one_filter")


@pytest.fixture(scope="module")
def units(shared: Path) -> Any:
    with np.load(shared / "golden" / "betarank_units.npz") as arrays:
        yield dict(arrays)


@pytest.fixture(scope="module")
def resnet(shared: Path) -> Any:
    with np.load(shared / "golden" / "betarank_resnet56_16.npz") as arrays:
        yield dict(arrays)


def published(inputs: Tensor, weight: Tensor, outputs: Tensor) -> Tensor:
    """The published score of one layer before it is stretched."""
    read = published_moments(
        moments_of(inputs, (0, 3)), weight.shape[2:], inputs.shape[-1], outputs.shape[2:]
    )
    sigma_out, sigma_in = moments_of(outputs, (0,)).variance.sqrt(), read.variance.sqrt()
    ratios = betas(sigma_out.flatten(1), sigma_in.flatten(1), Direction.CODE)
    return weight.abs().double().flatten(1).mean(1) * ratios.sum(1)


def tensors(units: Any, case: str) -> tuple[Tensor, Tensor, Tensor]:
    inputs, weight, outputs = (torch.from_numpy(units[f"{case}/{name}"]) for name in ("inp", "weight", "out"))
    return inputs, weight, outputs


def test_every_case_is_looked_at(units: Any) -> None:
    assert sorted(units["cases"]) == sorted(CASES + DEGENERATE)


@pytest.mark.parametrize("case", CASES)
def test_the_published_score_of_one_layer(units: Any, case: str) -> None:
    raw = published(*tensors(units, case))
    np.testing.assert_allclose(raw, units[f"{case}/derived_raw"], rtol=2e-5)
    np.testing.assert_allclose(stretched(raw), units[f"{case}/score"], atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_spreads_that_the_published_code_takes(units: Any, case: str) -> None:
    inputs, weight, outputs = tensors(units, case)
    read = published_moments(
        moments_of(inputs, (0, 3)), weight.shape[2:], inputs.shape[-1], outputs.shape[2:]
    )
    expected = units[f"{case}/derived_sigma_in"]
    skipped = np.isnan(expected)
    np.testing.assert_allclose(read.variance.sqrt()[0][~skipped], expected[~skipped], rtol=2e-5)
    assert not read.variance[0][skipped].any()
    written = moments_of(outputs, (0,)).variance.sqrt()
    np.testing.assert_allclose(written, units[f"{case}/derived_sigma_out"], atol=1e-5)


def test_dead_inputs_are_infinite_in_the_code_and_left_out_here(units: Any) -> None:
    inputs, weight, outputs = tensors(units, "dead_inputs")
    assert np.isnan(units["dead_inputs/score"]).all()
    assert np.isinf(units["dead_inputs/derived_raw"]).all()
    alive = units["dead_inputs/derived_sigma_in"] > 0
    assert 0 < alive.sum() < alive.size
    ratios = units["dead_inputs/derived_sigma_out"][:, alive] / units["dead_inputs/derived_sigma_in"][alive]
    expected = np.abs(weight.numpy()).mean((1, 2, 3)) * ratios.sum(1)
    np.testing.assert_allclose(published(inputs, weight, outputs), expected, rtol=2e-5)


def test_one_filter_keeps_its_raw_score(units: Any) -> None:
    raw = published(*tensors(units, "one_filter"))
    assert np.isnan(units["one_filter/score"]).all()
    np.testing.assert_allclose(stretched(raw), units["one_filter/derived_raw"], rtol=2e-5)


def test_one_sample_has_no_spread_and_is_refused(units: Any) -> None:
    inputs, weight, outputs = tensors(units, "batch1")
    assert np.isnan(units["batch1/score"]).all()
    assert not published(inputs, weight, outputs).any()
    net = nn.Sequential(nn.Conv2d(8, 7, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(7, 1, 1))
    net[0].weight.data.copy_(weight)
    graph = capture(net, inputs)
    for scorer in (BetaRank([inputs], published=True), BetaRank([inputs])):
        with pytest.raises(ScoreError, match=r"'0.weight' saw a single sample .* two or more"):
            scorer.unit_scores(graph)


# -- a whole network -------------------------------------------------------------------------------


def golden_model(arrays: Any) -> nn.Module:
    """The golden ResNet-56, whose classifier is called `fc` there."""
    model = create("resnet56_cifar")
    own = {name[3:]: torch.from_numpy(array) for name, array in arrays.items() if name.startswith("sd/")}
    model.load_state_dict({name.replace("fc.", "linear."): tensor for name, tensor in own.items()})
    return model.eval()


@pytest.fixture(scope="module")
def graph(resnet: Any) -> Graph:
    return capture(golden_model(resnet), torch.from_numpy(resnet["x"]))


def scores_of_layers(graph: Graph, resnet: Any, **options: Any) -> dict[str, Tensor]:
    """The raw scores of all convolutions, from our own forward pass."""
    found = BetaRank([torch.from_numpy(resnet["x"])], **options).layer_scores(graph)
    return {name.removesuffix(".weight"): values for (name, _), values in found.items()}


def assert_close(found: Tensor, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_the_published_scores_of_resnet_56(graph: Graph, resnet: Any) -> None:
    raw = scores_of_layers(graph, resnet, published=True)
    assert sorted(raw) == sorted(resnet["conv_names"])
    for name, values in raw.items():
        assert_close(values, resnet[f"derived_raw/{name}"])
        np.testing.assert_allclose(stretched(values), resnet[f"score/{name}"], atol=1e-3)


@pytest.mark.parametrize(("direction", "golden"), [("code", "fixed_axes"), ("paper", "paper_eq5")])
def test_the_scores_with_true_receptive_fields(
    graph: Graph, resnet: Any, direction: str, golden: str
) -> None:
    raw = scores_of_layers(graph, resnet, direction=direction)
    assert sorted(raw) == sorted(resnet["conv_names"])
    for name, values in raw.items():
        positions = {"1": 256, "2": 64, "3": 16}[name[5] if name.startswith("layer") else "1"]
        assert_close(values * positions, resnet[f"derived_{golden}/{name}"])


def test_published_sites_are_the_published_scores(graph: Graph, resnet: Any) -> None:
    sites = BetaRank([torch.from_numpy(resnet["x"])], published=True).site_scores(graph)
    found = sites["layer2.0.conv1.weight", 0]
    np.testing.assert_allclose(found, resnet["score/layer2.0.conv1"], atol=1e-3)


@pytest.mark.parametrize(
    "name", ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1", "layer3.8.conv2"]
)
def test_scores_from_the_recorded_activations(resnet: Any, name: str) -> None:
    inputs, outputs = (torch.from_numpy(resnet[f"raw/{name}/{what}"]) for what in ("inp", "out"))
    weight = torch.from_numpy(resnet[f"sd/{name}.weight"])
    raw = published(inputs, weight, outputs)
    np.testing.assert_allclose(raw, resnet[f"derived_raw/{name}"], rtol=1e-4)
    np.testing.assert_allclose(stretched(raw), resnet[f"score/{name}"], atol=1e-4)
    stride = inputs.shape[-1] // outputs.shape[-1]
    pixels = moments_of(inputs.unflatten(1, (1, -1)), (0, 2))
    read = field_moments(pixels, Field((3, 3), (stride, stride), (1, 1), (1, 1)))
    sigmas = [moments.variance.sqrt().flatten(1) for moments in (moments_of(outputs, (0,)), read)]
    sizes = weight.abs().double().flatten(1).mean(1)
    for direction, golden in ((Direction.CODE, "fixed_axes"), (Direction.PAPER, "paper_eq5")):
        found = sizes * betas(*sigmas, direction).sum(1)
        np.testing.assert_allclose(found, resnet[f"derived_{golden}/{name}"], rtol=1e-4)
