"""Losses for rare classes: closed forms, naive loops, and what they are the optimum of."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.training import Focal, LogitAdjusted, Recipe, WeightedCrossEntropy, class_weights, fine_tune_
from compressor.training.losses import focal, logit_adjusted

LOSSES = [
    WeightedCrossEntropy((6, 3, 1)),
    LogitAdjusted((6, 3, 1)),
    Focal(),
    Focal(counts=(6, 3, 1), beta=0.9),
]


def logits_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(10, 3).double(), torch.tensor([0] * 6 + [1] * 3 + [2])


def test_weighted_cross_entropy_by_a_loop() -> None:
    logits, labels = logits_and_labels()
    weights = class_weights((6, 3, 1), beta=0.9).tolist()
    total = sum(
        -weights[y] * math.log(F.softmax(z, 0)[y]) for z, y in zip(logits, labels.tolist(), strict=True)
    )
    expected = total / sum(weights[y] for y in labels.tolist())
    assert float(WeightedCrossEntropy((6, 3, 1), beta=0.9)(logits, labels)) == pytest.approx(expected)


def test_adjusted_logits_by_a_loop() -> None:
    logits, labels = logits_and_labels()
    prior = [0.6, 0.3, 0.1]
    total = 0.0
    for z, y in zip(logits.tolist(), labels.tolist(), strict=True):
        powers = [p**1.5 * math.exp(value) for p, value in zip(prior, z, strict=True)]
        total -= math.log(powers[y] / sum(powers))
    assert float(LogitAdjusted((6, 3, 1), tau=1.5)(logits, labels)) == pytest.approx(total / 10)


def test_without_evidence_the_adjusted_optimum_prefers_no_class() -> None:
    """Scores that know nothing but the prior: cross entropy learns the prior, the adjusted loss does not."""
    _, labels = logits_and_labels()
    for loss, flat in ((LogitAdjusted((6, 3, 1)), True), (F.cross_entropy, False)):
        scores = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
        loss(scores.expand(10, 3), labels).backward()
        assert scores.grad is not None
        assert bool((scores.grad.abs() < 1e-12).all()) is flat


def test_a_uniform_prior_adjusts_nothing() -> None:
    logits, labels = logits_and_labels()
    torch.testing.assert_close(LogitAdjusted((5, 5, 5))(logits, labels), F.cross_entropy(logits, labels))
    torch.testing.assert_close(
        LogitAdjusted((6, 3, 1), tau=0)(logits, labels), F.cross_entropy(logits, labels)
    )


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_by_a_loop(gamma: float) -> None:
    logits, labels = logits_and_labels()
    expected = 0.0
    for z, y in zip(logits, labels.tolist(), strict=True):
        p = float(F.softmax(z, 0)[y])
        expected -= (1 - p) ** gamma * math.log(p) / 10
    assert float(focal(logits, labels, gamma)) == pytest.approx(expected)


def test_focal_of_a_sure_sample_has_a_finite_gradient() -> None:
    for gamma in (0.0, 0.5, 2.0):
        logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
        focal(logits, torch.tensor([0]), gamma).backward()
        assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_gradients_agree_with_finite_differences(loss: Any) -> None:
    logits, labels = logits_and_labels()
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), (logits.requires_grad_(),))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_pixels_are_samples(loss: Any) -> None:
    logits, labels = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    flat = logits.permute(0, 2, 3, 1).reshape(-1, 3), labels.flatten()
    torch.testing.assert_close(loss(logits, labels), loss(*flat))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_half_precision_is_widened(loss: Any) -> None:
    logits, labels = logits_and_labels()
    found = loss(logits.bfloat16(), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(logits.bfloat16().float(), labels))


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_labels_out_of_range_are_named(loss: Any) -> None:
    with pytest.raises(InputError, match="labels from 0 to 3"):
        loss(torch.zeros(2, 3), torch.tensor([0, 3]))
    net = nn.Linear(2, 3)
    with pytest.raises(InputError, match="epoch 1, batch 1: labels must lie in 0 to 2"):
        fine_tune_(net, [(torch.zeros(2, 2), torch.tensor([0, -1]))], loss, Recipe(epochs=1))


@pytest.mark.parametrize("loss", [WeightedCrossEntropy((3, 1)), LogitAdjusted((3, 1)), Focal(counts=(3, 1))])
def test_counts_of_other_classes(loss: Any) -> None:
    with pytest.raises(InputError, match="counts are of 2 classes, and the model has 3 outputs"):
        loss(torch.zeros(1, 3), torch.tensor([0]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: WeightedCrossEntropy((3, 0)),
        lambda: LogitAdjusted((3, 0)),
        lambda: LogitAdjusted((3, 1), tau=-1),
        lambda: Focal(gamma=-1),
        lambda: Focal(beta=0.9),
        lambda: Focal(counts=(0, 1)),
        lambda: LogitAdjusted("31"),  # type: ignore[arg-type]
    ],
)
def test_constants_without_sense(make: Any) -> None:
    with pytest.raises(InputError):
        make()


def test_counts_of_any_kind_make_equal_values() -> None:
    assert LogitAdjusted(torch.tensor([3, 1])) == LogitAdjusted([3, 1]) == LogitAdjusted((3, 1))  # type: ignore[arg-type]
    assert hash(Focal(counts=[1, 2])) == hash(Focal(counts=(1, 2)))


def test_a_prior_of_the_wrong_device_or_type_is_moved() -> None:
    logits, labels = logits_and_labels()
    prior = torch.tensor([0.6, 0.3, 0.1])
    assert logit_adjusted(logits, labels, prior).dtype == torch.float64


@pytest.mark.parametrize("loss", [Focal(), WeightedCrossEntropy((1, 2, 3)), LogitAdjusted((1, 2, 3))])
def test_targets_of_another_form(loss: Any) -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    for narrow in (torch.uint8, torch.int32):
        assert torch.equal(loss(logits, labels.to(narrow)), loss(logits, labels))
    for target in (
        labels[:2],
        labels[:, None],
        labels.float(),
        F.one_hot(labels, 3),
        labels > 0,
        labels.tolist(),
    ):
        with pytest.raises(InputError, match=r"expected logits \[N, C, ...\] and class numbers \[N, ...\]"):
            loss(logits, target)
    with pytest.raises(InputError, match=r"got torch.float32 \[4\]"):
        loss(logits[:, 0], labels)
