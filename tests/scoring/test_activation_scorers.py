"""HRank, APoZ, MeanActivation and CHIP against naive loops, hooks and golden scores."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.models import ResNetCifar
from compressor.scoring import CHIP, APoZ, HRank, MeanActivation, Norm, Random, Scorer, score
from compressor.scoring.activation_scorer import ActivationScorer
from compressor.scoring.chip import independence
from compressor.scoring.hrank import map_ranks
from compressor.testing import ScorerContract

KINDS = [HRank, APoZ, MeanActivation, CHIP]


class TestHRank(ScorerContract):
    def make(self) -> Scorer:
        return HRank(self.batches(), otherwise=Norm())


class TestAPoZ(ScorerContract):
    def make(self) -> Scorer:
        return APoZ(self.batches(), otherwise=Norm())


class TestMeanActivation(ScorerContract):
    def make(self) -> Scorer:
        return MeanActivation(self.batches(), otherwise=Norm())


class TestCHIP(ScorerContract):
    def make(self) -> Scorer:
        return CHIP(self.batches(), otherwise=Norm(), normalize="rank")


# -- the formulas, on maps that hooks see ---------------------------------------------------------


def naive_rank(map_HW: np.ndarray) -> float:
    return float(np.linalg.matrix_rank(map_HW.astype(np.float32)))


def naive_active(map_HW: np.ndarray) -> float:
    return sum(value != 0 for value in map_HW.flat) / map_HW.size


def naive_size(map_HW: np.ndarray) -> float:
    return sum(abs(value) for value in map_HW.flat) / map_HW.size


def naive_independence(maps_CHW: np.ndarray, channel: int) -> float:
    matrix = maps_CHW.reshape(len(maps_CHW), -1)
    masked = matrix.copy()
    masked[channel] = 0
    return float(np.linalg.norm(matrix, "nuc") - np.linalg.norm(masked, "nuc"))


def of_each(measure: Any) -> Any:
    return lambda maps_CHW, channel: measure(maps_CHW[channel])


@pytest.mark.parametrize(
    ("kind", "naive"),
    [
        (HRank, of_each(naive_rank)),
        (APoZ, of_each(naive_active)),
        (MeanActivation, of_each(naive_size)),
        (CHIP, naive_independence),
    ],
)
def test_a_site_has_the_mean_over_all_samples_of_what_is_read(residual: Graph, kind: Any, naive: Any) -> None:
    """Batches of unequal sizes: the mean is over samples, not over batches."""
    batches = [torch.randn(3, 3, 6, 6), torch.randn(1, 3, 6, 6)]
    read: dict[str, list[np.ndarray]] = {"inner": [], "outer": [], "last": []}
    handles = [
        residual.model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: read[name].extend(args[0].detach().double().numpy())
        )
        for name in read
    ]
    with torch.no_grad():
        for batch in batches:
            residual.model(batch)
    for handle in handles:
        handle.remove()
    sites = kind(batches, otherwise=Norm()).site_scores(residual)
    for name, maps in read.items():
        expected = [np.mean([naive(m, channel) for m in maps]) for channel in range(maps[0].shape[0])]
        np.testing.assert_allclose(sites[f"{name}.weight", 1], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", [APoZ, MeanActivation])
def test_a_unit_has_the_mean_over_its_readers(residual: Graph, kind: Any) -> None:
    scorer = kind([torch.randn(4, 3, 6, 6)], normalize="none")
    sites = scorer.site_scores(residual)
    expected = (sites["inner.weight", 1] + sites["last.weight", 1]) / 2
    stream = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("stem.weight", 0))
    np.testing.assert_allclose(score(residual, scorer).values[stream], expected)


def test_ranks_of_the_published_script_on_resnet56(shared: Path) -> None:
    """What each convolution reads is the ReLU behind the one before it."""
    golden = np.load(shared / "golden" / "betarank_resnet56_16.npz")
    model = ResNetCifar(56)
    weights = {k[3:].replace("fc.", "linear."): golden[k] for k in golden.files if k.startswith("sd/")}
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    images = torch.from_numpy(golden["x"])
    sites = HRank([images]).site_scores(capture(model.eval(), images))
    names = golden["conv_names"].tolist()
    assert len(names) == 55
    for writer, reader in pairwise(names):
        expected = golden[f"score_Hrank/{writer}"]
        np.testing.assert_allclose(sites[f"{reader}.weight", 1], expected, atol=0.13, err_msg=writer)
        assert np.mean(sites[f"{reader}.weight", 1].numpy() == expected) > 0.95, writer


@pytest.mark.parametrize("shape", [(5, 12), (12, 5), (7, 7), (1, 4), (4, 1)])
def test_independence_is_the_fall_of_the_nuclear_norm(shape: tuple[int, int]) -> None:
    features = torch.randn(shape, dtype=torch.float64)
    expected = [naive_independence(features.numpy(), row) for row in range(shape[0])]
    np.testing.assert_allclose(independence(features), expected, rtol=1e-6, atol=1e-7)


def test_a_channel_that_others_span_is_least_independent() -> None:
    features = torch.randn(4, 30, dtype=torch.float64)
    features[2] = (features[0] + features[1]) / 2
    assert independence(features).argmin() == 2


def test_rows_are_masked_in_several_parts_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(6, 9)
    expected = independence(features)
    monkeypatch.setattr("compressor.scoring.chip._ENTRIES_AT_ONCE", 40)
    np.testing.assert_allclose(independence(features), expected, rtol=1e-12)


def test_volumes_have_the_mean_rank_of_their_slices() -> None:
    volume = torch.stack([torch.eye(3), torch.zeros(3, 3)])[None, None]
    assert map_ranks(volume).tolist() == [[1.5]]


def test_sequences_and_tokens_are_measured_along_their_length() -> None:
    convolutions = nn.Sequential(nn.Conv1d(2, 3, 1), nn.ReLU(), nn.Conv1d(3, 2, 1))
    tokens = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for one, other in zip(convolutions.parameters(), tokens.parameters(), strict=True):
            one.copy_(other.reshape(one.shape))
    sequence = torch.randn(4, 2, 7)
    for kind in (APoZ, MeanActivation, CHIP):
        values = [
            score(capture(net, data), kind([data])).values
            for net, data in ((convolutions, sequence), (tokens, sequence.movedim(1, 2)))
        ]
        np.testing.assert_allclose(*values, rtol=1e-5)


def test_a_layer_that_runs_twice_counts_both_times() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.write, self.read = nn.Linear(2, 3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            first = self.read(torch.relu(self.write(x)))
            return first + self.read(torch.relu(self.write(10 * x)))

    net, points = Twice(), torch.randn(5, 2)
    with torch.no_grad():
        both = torch.cat([torch.relu(net.write(points)), torch.relu(net.write(10 * points))])
    found = score(capture(net, points), MeanActivation([points], normalize="none")).values
    np.testing.assert_allclose(found, both.double().mean(0), rtol=1e-6)


# -- groups that nothing measured reads -----------------------------------------------------------


def test_channels_that_no_map_is_read_of_need_another_scorer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2))
    images = torch.randn(2, 1, 5, 5)
    graph = capture(net, images)
    with pytest.raises(ScoreError, match=r"1 of the 1 groups are read by no layer.*'0.weight'.*otherwise="):
        score(graph, HRank([images]))
    other = Norm(1)
    np.testing.assert_array_equal(
        score(graph, HRank([images], otherwise=other)).values, score(graph, other).values
    )
    assert score(graph, APoZ([images])).values.shape == (4,), "a matrix reads pixels, which APoZ measures"


def test_a_map_of_any_depth_is_not_kept(residual: Graph) -> None:
    """Fed by a generator, so that batches cannot be kept either."""
    batches = (torch.randn(2, 3, 6, 6) for _ in range(3))
    assert np.isfinite(score(residual, MeanActivation(batches)).values).all()


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_no_batch_at_all_is_an_error(residual: Graph, kind: Any) -> None:
    with pytest.raises(InputError, match="gave no batch"):
        score(residual, kind([], otherwise=Norm()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_sample_is_enough(residual: Graph, kind: Any) -> None:
    assert np.isfinite(score(residual, kind([torch.randn(1, 3, 6, 6)], otherwise=Norm())).values).all()


@pytest.mark.parametrize("kind", KINDS)
def test_activations_that_are_not_finite_are_named(residual: Graph, kind: Any) -> None:
    images = [torch.randn(2, 3, 6, 6) for _ in range(2)]
    images[1][0, 0, 0, 0] = float("nan")
    with pytest.raises(ScoreError, match=r"batch 1: \d+ of \d+ activations read by 'inner.weight'"):
        score(residual, kind(images, otherwise=Norm()))


def test_apoz_of_a_model_without_zeros_is_an_error() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 1))
    with pytest.raises(ScoreError, match=r"not one activation of 3 units is exactly zero.*MeanActivation"):
        score(capture(net, torch.ones(1, 2)), APoZ([torch.randn(8, 2)]))


def test_options_are_checked_when_they_are_given() -> None:
    with pytest.raises(InputError, match="HRank: max_batches must be at least 1, got 0"):
        HRank([], max_batches=0)
    with pytest.raises(InputError, match="otherwise must be a Scorer"):
        CHIP([], otherwise=3)  # type: ignore[arg-type]


def test_at_most_so_many_batches_are_read_and_each_is_told(residual: Graph) -> None:
    batches, told = [torch.randn(2, 3, 6, 6) for _ in range(3)], []
    found = score(residual, MeanActivation(batches, max_batches=2, progress=told.append)).values
    assert told == [1, 2]
    np.testing.assert_array_equal(found, score(residual, MeanActivation(batches[:2])).values)


def test_a_scorer_of_ones_own_measures_in_one_method(residual: Graph) -> None:
    class Largest(ActivationScorer):
        def measure(self, maps: Tensor) -> Tensor:
            return maps.flatten(2).amax(dim=2).sum(dim=0)

    values = score(residual, Largest([torch.randn(2, 3, 6, 6)], otherwise=Random())).values
    assert len(np.unique(values)) == residual.n_units


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_an_example_adds_nothing(residual: Graph, kind: Any) -> None:
    batches = [torch.randn(2, 3, 6, 6)]
    expected = score(residual, kind(batches, otherwise=Norm())).values
    found = score(residual, kind([*batches, torch.ones(0, 3, 6, 6)], otherwise=Norm())).values
    np.testing.assert_array_equal(found, expected)


def test_an_error_of_a_measure_is_not_blamed_on_the_model(residual: Graph) -> None:
    class Wrong(ActivationScorer):
        def measure(self, maps: Tensor) -> Tensor:
            raise ValueError("no such axis")

    with pytest.raises(
        ScoreError, match=r"Wrong\(\): the measure of what .* reads.* failed with ValueError: no"
    ):
        score(residual, Wrong([torch.randn(2, 3, 6, 6)]))
