"""Weights and samplers for rare classes, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from compressor.errors import InputError
from compressor.training import balanced_sampler, class_counts, class_weights, effective_numbers


@pytest.mark.parametrize("labels", [[0, 2, 1, 0], torch.tensor([0, 2, 1, 0]), np.array([0, 2, 1, 0])])
def test_counts(labels: Any) -> None:
    assert class_counts(labels).tolist() == [2, 1, 1]


@pytest.mark.parametrize(
    ("labels", "classes", "text"),
    [
        ([0, 2], None, "no sample of class 1 among 2 labels (counts [1, 0, 1])"),
        ([0, 1], 4, "no sample of class 2, 3"),
        ([0, 5], 4, "labels from 0 to 5"),
        ([-1, 0], None, "labels from -1 to 0"),
        ([], None, "one for each sample"),
        ([0.5, 1.0], None, "class numbers"),
        ([[0, 1]], None, "[1, 2]"),
    ],
)
def test_labels_that_cannot_be_counted(labels: Any, classes: int | None, text: str) -> None:
    with pytest.raises(InputError) as error:
        class_counts(labels, classes=classes)
    assert text in str(error.value)
    with pytest.raises(InputError):
        balanced_sampler(labels, classes=classes)


def test_weights_are_inverse_frequencies_of_mean_one() -> None:
    weights = class_weights([100, 50, 10])
    torch.testing.assert_close(weights, torch.tensor([0.1, 0.2, 1.0]).double() * 3 / 1.3)
    assert float(weights.mean()) == pytest.approx(1)


def test_effective_numbers_are_a_geometric_sum() -> None:
    """(1 − βⁿ) / (1 − β) = 1 + β + … + βⁿ⁻¹."""
    for beta in (0.0, 0.5, 0.99, 0.9999999):
        for n in (1, 2, 7, 300):
            expected = sum(beta**power for power in range(n))
            assert float(effective_numbers([n], beta)[0]) == pytest.approx(expected, rel=1e-9)


def test_class_balanced_weights_go_from_none_to_inverse_frequencies() -> None:
    counts = [1000, 10]
    torch.testing.assert_close(class_weights(counts, beta=0.0), torch.ones(2).double())
    torch.testing.assert_close(
        class_weights(counts, beta=1 - 1e-12), class_weights(counts), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_beta_out_of_range(beta: float) -> None:
    with pytest.raises(InputError, match="beta"):
        effective_numbers([3], beta)


@pytest.mark.parametrize("counts", [[3, 0], [], [[1]], [float("nan")]])
def test_counts_without_sense(counts: Any) -> None:
    with pytest.raises(InputError, match="counts"):
        class_weights(counts)


@pytest.mark.parametrize(("beta", "expected"), [(None, 0.5), (0.0, 0.05), (0.99, None)])
def test_how_often_the_rare_class_is_drawn(beta: float | None, expected: float | None) -> None:
    labels = [0] * 950 + [1] * 50
    if expected is None:
        worth = effective_numbers([950, 50], beta or 0.0)
        share = torch.tensor([950.0, 50.0]).double() / worth
        expected = float(share[1] / share.sum())
    drawn = torch.tensor(list(balanced_sampler(labels, beta=beta, samples=20_000)))
    assert float((drawn >= 950).double().mean()) == pytest.approx(expected, abs=0.015)


def test_a_loader_with_the_sampler_is_repeatable() -> None:
    labels = torch.tensor([0] * 9 + [1] * 3)
    runs = [
        [
            y.tolist()
            for (y,) in DataLoader(TensorDataset(labels), 4, sampler=balanced_sampler(labels, seed=s))
        ]
        for s in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2] and sum(map(len, runs[0])) == 12


def test_samples_of_an_epoch() -> None:
    assert len(balanced_sampler([0, 1], samples=7)) == 7
    with pytest.raises(InputError, match="samples"):
        balanced_sampler([0, 1], samples=0)


def test_what_is_no_number_is_named() -> None:
    words: Any = ["a", "b"]
    with pytest.raises(InputError, match="labels must be class numbers, got <U1"):
        class_counts(words)
    with pytest.raises(InputError, match=r"counts must be one number for each class, got \['a', 'b'\]"):
        class_weights(words)
