from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from unittest import SkipTest

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from compressor.core.graph import Graph
from compressor.scoring import (
    LAMP,
    BatchNormScale,
    BetaRank,
    Fisher,
    GeometricMedian,
    Norm,
    Random,
    Scorer,
    Taylor,
)
from compressor.testing import ScorerContract


class TestL2Norm(ScorerContract):
    def make(self) -> Scorer:
        return Norm()


class TestL1NormOfWriters(ScorerContract):
    def make(self) -> Scorer:
        return Norm(1, roles="writer", reduce="sum", normalize="rank")


class TestMaximumNorm(ScorerContract):
    def make(self) -> Scorer:
        return Norm(math.inf, reduce="max", normalize="max")


class TestOddNorm(ScorerContract):
    def make(self) -> Scorer:
        return Norm(2.5, reduce="first", normalize="none")


class TestGeometricMedian(ScorerContract):
    def make(self) -> Scorer:
        return GeometricMedian()


class TestBatchNormScale(ScorerContract):
    def make(self) -> Scorer:
        return BatchNormScale(otherwise=Norm())


class TestLAMP(ScorerContract):
    def make(self) -> Scorer:
        return LAMP()


class TestRandom(ScorerContract):
    reads_channels = False

    def make(self) -> Scorer:
        return Random(3)


class TestTaylor(ScorerContract):
    def make(self) -> Scorer:
        return Taylor(self.batches(), cross_entropy)


class TestTaylorOfSlices(ScorerContract):
    def make(self) -> Scorer:
        return Taylor(self.batches(), cross_entropy, joint="slice", roles=("writer", "reader"))


class TestFisher(ScorerContract):
    def make(self) -> Scorer:
        return Fisher(self.batches(), cross_entropy)


class TestFisherOfWeights(ScorerContract):
    def make(self) -> Scorer:
        return Fisher(self.batches(), cross_entropy, joint="weight", normalize="mean")


class TestBetaRank(ScorerContract):
    def make(self) -> Scorer:
        return BetaRank(self.batches())


class TestBetaRankOfPooledPositions(ScorerContract):
    def make(self) -> Scorer:
        return BetaRank(self.batches(), direction="paper", balanced=True, positions="pool")


class TestPublishedBetaRank(ScorerContract):
    tolerance = 1e-3  # the published stretching to [0, 1] subtracts nearly equal scores

    def make(self) -> Scorer:
        return BetaRank(self.batches(), published=True, otherwise=Norm())


class TestPlainFunction(ScorerContract):
    def make(self) -> Callable[[torch.Tensor, int], torch.Tensor]:
        return lambda weight, axis: weight.abs().transpose(0, axis).flatten(1).amax(dim=1)


class TestCustomNetwork(ScorerContract):
    """A contract run on a user's own network."""

    def make(self) -> Scorer:
        return Norm()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))

    def example(self) -> tuple[torch.Tensor, ...]:
        return (torch.ones(1, 4, dtype=torch.float32),)

    test_double_precision_makes_no_difference = None  # its example does not follow the precision


# -- each test of the contract fails on a planted mistake ---------------------------------------


class _Planted(Norm):
    """A norm that misbehaves in one way."""

    def __init__(self, mistake: Callable[[Graph, dict[tuple[str, int], torch.Tensor]], object]):
        super().__init__()
        object.__setattr__(self, "mistake", mistake)

    def site_scores(self, graph: Graph) -> dict[tuple[str, int], torch.Tensor]:
        sites = dict(super().site_scores(graph))
        self.mistake(graph, sites)  # type: ignore[attr-defined]
        return sites


def _in_place(graph: Graph, _sites: object) -> None:
    next(graph.model.parameters()).data.mul_(2)


def _mode(graph: Graph, _sites: object) -> None:
    graph.model.eval()


def _gradient(graph: Graph, _sites: object) -> None:
    next(graph.model.parameters()).grad = torch.zeros_like(next(graph.model.parameters()))


def _frozen(graph: Graph, _sites: object) -> None:
    graph.model.requires_grad_(True)


def _hook(graph: Graph, _sites: object) -> None:
    graph.model.register_forward_hook(lambda *_: None)


def _buffer(graph: Graph, _sites: object) -> None:
    next(b for b in graph.model.buffers() if b.is_floating_point()).add_(1)


def _draw(_graph: Graph, _sites: object) -> None:
    torch.rand(1)


def _noise(_graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    for key, values in sites.items():
        sites[key] = values + torch.rand(len(values))


def _by_position(_graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    for key, values in sites.items():
        sites[key] = values + torch.arange(len(values))


def _by_mode(graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    if graph.model.training:
        _by_position(graph, sites)


def _by_dtype(graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    if next(graph.model.parameters()).dtype is torch.float64:
        _by_position(graph, sites)


def _by_memory(graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    for name, weight in graph.model.named_parameters():
        for key in sites:
            if key[0] == name and weight.ndim == 4:
                flat = torch.as_strided(weight.detach(), (weight.numel(),), (1,))
                sites[key] = flat[: len(sites[key])].abs()


def _by_head(graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    for axis in graph.axes:
        key = axis.tensor, axis.axis
        if key in sites and axis.units.ndim > 1:
            sites[key] = sites[key] + torch.arange(axis.size) // 5


def _half_of_the_factors(graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    for axis in graph.axes:
        if axis.units.ndim > 1:
            sites[axis.tensor, axis.axis] = torch.zeros(1, axis.size)


def _too_short(_graph: Graph, sites: dict[tuple[str, int], torch.Tensor]) -> None:
    sites.update({key: values[:-1] for key, values in sites.items()})


UNTOUCHED = "test_the_model_is_left_untouched"
MISTAKES = [
    (_in_place, UNTOUCHED),
    (_mode, UNTOUCHED),
    (_gradient, UNTOUCHED),
    (_frozen, UNTOUCHED),
    (_hook, UNTOUCHED),
    (_buffer, UNTOUCHED),
    (_draw, UNTOUCHED),
    (_noise, "test_the_same_scores_come_twice"),
    (_by_position, "test_scores_follow_permuted_channels"),
    (_by_head, "test_scores_follow_permuted_heads_and_dims"),
    (_half_of_the_factors, "test_heads_and_their_dims_get_finite_scores"),
    (_by_mode, "test_mode_and_frozen_weights_make_no_difference"),
    (_by_dtype, "test_double_precision_makes_no_difference"),
    (_by_memory, "test_memory_format_makes_no_difference"),
    (_too_short, "test_every_scored_axis_has_one_score_for_each_channel"),
]


@pytest.mark.parametrize(("mistake", "test"), MISTAKES)
def test_the_contract_finds_a_planted_mistake(mistake: Callable[..., None], test: str) -> None:
    class Contract(ScorerContract):
        def make(self) -> Scorer:
            return _Planted(mistake)

    with pytest.raises(AssertionError):
        getattr(Contract(), test)()


def test_a_random_scorer_that_claims_to_read_channels_is_found() -> None:
    class Contract(ScorerContract):
        def make(self) -> Scorer:
            return Random()

    with pytest.raises(AssertionError, match="after a permutation"):
        Contract().test_scores_follow_permuted_channels()


def test_an_address_in_the_label_is_found() -> None:
    class Nameless(Norm):
        def __repr__(self) -> str:
            return object.__repr__(self)

    class Contract(ScorerContract):
        def make(self) -> Scorer:
            return Nameless()

    with pytest.raises(AssertionError, match="0x"):
        Contract().test_it_says_what_it_is_in_one_line()


def test_the_contract_says_what_is_missing() -> None:
    with pytest.raises(NotImplementedError, match="ScorerContract must say how to make"):
        ScorerContract().test_the_same_scores_come_twice()


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests the skip on machines without CUDA")
def test_the_device_test_is_skipped_with_a_reason() -> None:
    with pytest.raises(SkipTest, match="no CUDA device"):
        TestL2Norm().test_the_device_makes_no_difference()


def test_the_package_does_not_import_pytest() -> None:
    code = "import sys, compressor.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
