"""PerClass against scores taken class by class by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.scoring import APoZ, HRank, MeanActivation, Norm, PerClass, Scorer, Taylor, score
from compressor.testing import ScorerContract

Data = list[tuple[Tensor, Tensor]]


def taylor(batches: Iterable[object]) -> Scorer:
    return Taylor(batches, cross_entropy)


class TestPerClass(ScorerContract):
    def make(self) -> Scorer:
        return PerClass(taylor, [*self.batches(), *_one_of_each()], 5)


class TestTheWorstClass(ScorerContract):
    def make(self) -> Scorer:
        return PerClass(taylor, _one_of_each(), 5, combine="max", batch_size=2, normalize="max")


def _one_of_each() -> Data:
    images = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    return [(images, torch.arange(5))]


@pytest.fixture
def images() -> Data:
    """Four classes, of which the last is rare: one sample in each batch, and none in the second."""
    torch.manual_seed(1)
    labels = [torch.tensor(x) for x in ([0, 1, 2, 0, 3, 1, 0], [2, 1, 0, 0, 0, 2], [3, 2, 1, 0, 0])]
    return [(torch.randn(len(own), 3, 6, 6), own) for own in labels]


def of_class(data: Data, number: int) -> tuple[Tensor, Tensor]:
    images, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    return images[labels == number], labels[labels == number]


def test_the_mean_is_that_of_scores_on_one_batch_of_each_class(residual: Graph, images: Data) -> None:
    each = [score(residual, taylor([of_class(images, number)])).values for number in range(4)]
    found = score(residual, PerClass(taylor, images, 4)).values
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6)
    assert not np.allclose(found, score(residual, taylor(images)).values, rtol=0.05)


def test_the_largest_is_that_of_the_class_that_needs_a_unit_most(residual: Graph, images: Data) -> None:
    each = [score(residual, taylor([of_class(images, number)])).values for number in range(4)]
    found = score(residual, PerClass(taylor, images, 4, combine="max")).values
    np.testing.assert_allclose(found, np.max(each, axis=0), rtol=1e-6)
    np.testing.assert_allclose(PerClass(taylor, images, 4).scores_of_classes(residual), each, rtol=1e-6)


def test_classes_can_be_weighted(residual: Graph, images: Data) -> None:
    each = PerClass(taylor, images, 4).scores_of_classes(residual)
    found = score(residual, PerClass(taylor, images, 4, weights=[1, 0, 0, 3])).values
    np.testing.assert_allclose(found, (each[0] + 3 * each[3]) / 4, rtol=1e-9)


def test_weighting_by_frequency_is_the_plain_mean_of_activations(residual: Graph, images: Data) -> None:
    """What is a mean over samples does not depend on batches: classes by their counts give it back."""
    counts = [len(of_class(images, number)[0]) for number in range(4)]
    options: dict[str, Any] = {"normalize": "none"}
    found = PerClass(lambda b: MeanActivation(b, **options), images, 4, weights=counts)
    expected = score(residual, MeanActivation(images, **options)).values
    np.testing.assert_allclose(score(residual, found).values, expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_each_class_comes_in_batches_of_one_size_over_the_whole_loader(images: Data, size: int) -> None:
    seen: list[list[tuple[Tensor, Tensor]]] = []

    class Seeing(Norm):
        def __init__(self, batches: Iterable[object]) -> None:
            super().__init__()
            seen.append(list(batches))  # type: ignore[arg-type]

    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4))
    score(capture(net, torch.randn(1, 3)), PerClass(Seeing, images, 4, batch_size=size))
    for number, batches in enumerate(seen):
        expected = of_class(images, number)
        for which in range(2):
            assert torch.equal(torch.cat([batch[which] for batch in batches]), expected[which])
        assert [len(batch[1]) for batch in batches[:-1]] == [size] * (len(batches) - 1)
        assert 0 < len(batches[-1][1]) <= size


def test_inputs_may_be_several_or_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.last(torch.relu(self.first(x) + self.first(y)))

    x, y, labels = torch.randn(6, 3), torch.randn(6, 3), torch.tensor([0, 1, 1, 1, 1, 1])
    graph = capture(Two(), x, y)
    values = [
        score(graph, PerClass(taylor, batches, 2)).values
        for batches in ([(x, y, labels)], [((x, y), labels)], [({"x": x, "y": y}, labels)])
    ]
    np.testing.assert_allclose(values[1], values[0])
    np.testing.assert_allclose(values[2], values[0])


@pytest.mark.parametrize("kind", [APoZ, lambda batches: HRank(batches, otherwise=Norm())])
def test_any_scorer_of_batches_will_do(residual: Graph, images: Data, kind: Any) -> None:
    assert np.isfinite(score(residual, PerClass(kind, images, 4)).values).all()


# -- bad input ------------------------------------------------------------------------------------


def test_a_label_out_of_range_is_named(residual: Graph, images: Data) -> None:
    with pytest.raises(
        InputError, match=r"batch 0 has the label 3 \(1 of 7 are out of range\), expected 0 to 2"
    ):
        score(residual, PerClass(taylor, images, 3))


def test_a_class_without_a_sample_is_named(residual: Graph, images: Data) -> None:
    with pytest.raises(
        InputError, match=r"class 4 has no sample among 18, expected .* each of the 5 classes"
    ):
        score(residual, PerClass(taylor, images, 5))


def test_no_batch_at_all_is_an_error(residual: Graph) -> None:
    with pytest.raises(InputError, match="gave no batch"):
        score(residual, PerClass(taylor, [], 4))


def test_the_model_is_restored_after_an_error(residual: Graph, images: Data) -> None:
    residual.model.train()
    with pytest.raises(InputError):
        score(residual, PerClass(taylor, images, 5))
    assert residual.model.training


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((torch.randn(2, 3, 6, 6), torch.rand(2)), r"class numbers \[N\], got torch.float32 of shape \[2\]"),
        ((torch.randn(2, 3, 6, 6), torch.zeros(2, 1).long()), r"got torch.int64 of shape \[2, 1\]"),
        ({"x": torch.randn(2, 3, 6, 6)}, "got dict"),
        ((torch.randn(3, 3, 6, 6), torch.tensor([0, 1])), r"2 labels and an input of shape \[3, 3, 6, 6\]"),
        ((torch.randn(2, 3, 6, 6), 1.5, torch.tensor([0, 1])), "2 labels and an input of float"),
    ],
)
def test_batches_that_have_no_classes_are_named(residual: Graph, item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(residual, PerClass(taylor, [item], 2))


def test_options_are_checked_when_they_are_given(images: Data) -> None:
    with pytest.raises(InputError, match="classes must be a number of at least 1, got 0"):
        PerClass(taylor, images, 0)
    with pytest.raises(InputError, match="batch_size must be a number of at least 1, got 0"):
        PerClass(taylor, images, 4, batch_size=0)
    with pytest.raises(InputError, match="generator can be run through only once"):
        PerClass(taylor, (item for item in images), 4)
    with pytest.raises(InputError, match="combine must be one of 'mean', 'max'; got 'least'"):
        PerClass(taylor, images, 4, combine="least")  # type: ignore[arg-type]
    for weights in ([1, 2], [1, -1, 1, 1], [0, 0, 0, 0], [1, float("nan"), 1, 1]):
        with pytest.raises(InputError, match="weights must be 4 numbers of at least 0"):
            PerClass(taylor, images, 4, weights=weights)
    with pytest.raises(InputError, match="the largest score needs none"):
        PerClass(taylor, images, 4, combine="max", weights=[1, 1, 1, 1])


def test_what_makes_no_scorer_is_named(residual: Graph, images: Data) -> None:
    with pytest.raises(InputError, match="scorer_of must return a Scorer, got list"):
        score(residual, PerClass(list, images, 4))  # type: ignore[arg-type]
