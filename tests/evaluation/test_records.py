from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score
from torch import Tensor, nn

from compressor.errors import EvaluationError, InputError
from compressor.evaluation import (
    Predictions,
    RecordMetric,
    balanced_accuracy,
    classify_records,
    macro_f1,
    pooled,
    record_predictions,
)
from compressor.training import Recipe, Validation, fine_tune_


def some(records: int = 30, images: int = 10, classes: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of images that are right more often than not, their labels, their records in shuffled order."""
    labels = torch.randint(0, classes, (records,)).repeat_interleave(images)
    logits = torch.randn(records * images, classes) + 1.2 * nn.functional.one_hot(labels, classes)
    numbers = (7 * torch.arange(records) + 3).repeat_interleave(images)
    order = torch.randperm(records * images)
    return logits[order], labels[order], numbers[order]


def naive(logits: Tensor, labels: Tensor, numbers: Tensor) -> tuple[list[int], list[int]]:
    """True and predicted labels of the records, one by one."""
    true, predicted = [], []
    for number in sorted(set(numbers.tolist())):
        own = numbers == number
        true.append(int(labels[own][0]))
        predicted.append(int(torch.softmax(logits[own].double(), 1).mean(0).argmax()))
    return true, predicted


def test_a_record_is_named_by_the_mean_of_its_softmaxes() -> None:
    logits, labels, numbers = some()
    found = record_predictions(logits, labels, numbers)
    true, predicted = naive(logits, labels, numbers)
    assert found.records.true.tolist() == true and found.records.predicted.tolist() == predicted
    assert (found.images.predicted == logits.argmax(1).numpy()).all()
    rates = found.classification()
    assert (rates.confusion == confusion_matrix(true, predicted)).all()
    assert rates.macro_f1.value == pytest.approx(f1_score(true, predicted, average="macro"))
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(30, dtype=torch.float64))


def test_the_mean_of_softmaxes_is_neither_a_majority_nor_a_mean_of_logits() -> None:
    # Three images: two hardly for class 1, one surely for class 0; and a large logit that softmax caps.
    sure = torch.tensor([[4.0, 0.0], [0.0, 0.2], [0.0, 0.2]])
    assert record_predictions(sure, torch.zeros(3, dtype=torch.long), [0, 0, 0]).records.predicted[0] == 0
    capped = torch.tensor([[100.0, 0.0], [0.0, 3.0], [0.0, 3.0]])
    assert record_predictions(capped, torch.ones(3, dtype=torch.long), [0, 0, 0]).records.predicted[0] == 1


def test_records_may_have_different_numbers_of_images() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    found = record_predictions(logits, torch.tensor([0, 1, 1, 0]), [5, 2, 2, 5])
    assert found.of_image.tolist() == [1, 0, 0, 1] and found.records.true.tolist() == [1, 0]
    assert found.image_accuracy().value == 0.75


def test_batches_of_any_size_on_a_model_give_the_same() -> None:
    logits, labels, numbers = some()
    whole = record_predictions(logits, labels, numbers, classes=("a", "b", "c", "d"))
    for size in (1, 7, 300):
        batches = list(zip(logits.split(size), labels.split(size), strict=True))
        model = nn.Sequential(nn.Dropout(0.9)).train()
        found = classify_records(model, batches, numbers, classes=("a", "b", "c", "d"))
        torch.testing.assert_close(found.probabilities, whole.probabilities)
        assert model.training and found.records.classes == ("a", "b", "c", "d")


def test_the_interval_of_images_is_over_records() -> None:
    # Records whose images are all right or all wrong: as wide as an interval over records.
    right = torch.arange(40) % 4 != 0
    labels = (torch.arange(40) // 4 % 2).repeat_interleave(10)
    logits = torch.eye(2)[torch.where(right.repeat_interleave(10), labels, 1 - labels)]
    found = record_predictions(logits, labels, torch.arange(40).repeat_interleave(10))
    interval = found.image_accuracy()
    half = 1.96 * np.sqrt(0.75 * 0.25 / 40)
    assert interval.value == 0.75
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.1)
    assert "images: accuracy 0.750" in found.summary() and "records:" in found.summary()


@pytest.mark.parametrize("size", [300, 13])
def test_as_the_metric_of_a_validation(size: int) -> None:
    logits, labels, numbers = some()
    true, predicted = naive(logits, labels, numbers)
    batches = list(zip(logits.split(size), labels.split(size), strict=True))
    for rate, expected in (
        (None, np.mean(np.array(true) == predicted)),
        (balanced_accuracy, balanced_accuracy_score(true, predicted)),
        (macro_f1, f1_score(true, predicted, average="macro")),
    ):
        validation = Validation(batches=batches, metric=RecordMetric(numbers, rate))
        assert validation.measure(nn.Identity()) == pytest.approx(expected)


def test_a_training_keeps_the_epoch_that_is_best_for_records() -> None:
    x, labels = torch.randn(60, 4), torch.randint(0, 2, (6,)).repeat_interleave(10)
    validation = Validation(batches=[(x, labels)], metric=RecordMetric(torch.arange(6).repeat_interleave(10)))
    net = nn.Linear(4, 2)
    history = fine_tune_(
        net,
        [(x, labels)],
        nn.functional.cross_entropy,
        Recipe(epochs=3),
        validation=validation,
        progress=False,
    )
    assert validation.measure(net) == max(history.metrics)


@pytest.mark.parametrize(
    ("labels", "records", "message"),
    [
        ([0, 1, 1], [4, 4, 5], "the images of record 4 have several labels"),
        ([0, 0, 1], [0, 0], r"records must be whole numbers \[3\]"),
        ([0, 0, 1], [0.0, 0.0, 1.0], r"one for each image, got torch.float32"),
    ],
)
def test_records_that_do_not_fit(labels: list[int], records: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        record_predictions(torch.randn(3, 2), torch.tensor(labels), records)


def test_faults_are_those_of_classify() -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        record_predictions(torch.full((2, 2), float("nan")), torch.tensor([0, 1]), [0, 1])
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        record_predictions(torch.eye(2), torch.tensor([0, 2]), [0, 1])


def test_folds_are_pooled_sample_by_sample() -> None:
    folds = [Predictions(np.array(t), np.array(p), ("a", "b")) for t, p in (([0, 0], [0, 1]), ([1], [1]))]
    whole = pooled(folds)
    assert whole.true.tolist() == [0, 0, 1] and whole.predicted.tolist() == [0, 1, 1]
    with pytest.raises(InputError, match="all with the same classes"):
        pooled([*folds, Predictions(np.array([0]), np.array([0]), ("a", "c"))])
    with pytest.raises(InputError, match="one part or more"):
        pooled([])


def test_an_interval_needs_draws() -> None:
    logits, labels = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1])
    found = record_predictions(logits, labels, [0, 1])
    with pytest.raises(InputError, match="image_accuracy: an interval needs at least 100 resamples, got 0"):
        found.image_accuracy(resamples=0)
