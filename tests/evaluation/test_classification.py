"""Oracles: torchmetrics, loops over samples, and closed forms; the code computes with scikit-learn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_f1_score,
    multiclass_recall,
    multiclass_specificity,
)

from compressor.errors import AbsentClassWarning, InputError, MissingExtraError
from compressor.evaluation import Classification, Predictions, classification
from compressor.evaluation.classification import _redrawn, balanced_accuracies, macro_f1s

NAMES = ("a", "b", "c", "d")


def drawn(seed: int, n: int = 200) -> Predictions:
    rng = np.random.default_rng(seed)
    true = rng.choice(4, n, p=[0.7, 0.2, 0.07, 0.03])
    true[:4] = range(4)
    predicted = np.where(rng.random(n) < 0.6, true, rng.integers(0, 4, n))
    return Predictions(true, predicted, NAMES)


def report(true: list[int], predicted: list[int], classes: tuple[str, ...] = NAMES) -> Classification:
    return classification(Predictions(np.array(true), np.array(predicted), classes))


@pytest.mark.parametrize("seed", range(5))
def test_all_rates_are_those_of_torchmetrics(seed: int) -> None:
    predictions = drawn(seed)
    found = classification(predictions)
    true, predicted = torch.tensor(predictions.true), torch.tensor(predictions.predicted)
    for value, metric, average in (
        (found.accuracy.value, multiclass_accuracy, "micro"),
        (found.balanced_accuracy.value, multiclass_recall, "macro"),
        (found.macro_f1.value, multiclass_f1_score, "macro"),
    ):
        assert value == pytest.approx(float(metric(predicted, true, 4, average=average)), abs=1e-6)
    for rates, metric in ((found.recall, multiclass_recall), (found.specificity, multiclass_specificity)):
        expected = metric(predicted, true, 4, average="none").tolist()
        assert [rate.value for rate in rates if rate is not None] == pytest.approx(expected, abs=1e-6)
    assert list(found.f1) == pytest.approx(
        multiclass_f1_score(predicted, true, 4, average="none").tolist(), abs=1e-6
    )


def test_the_whole_set_is_not_the_average_of_its_batches() -> None:
    # Two batches, of which the second has no sample of class b: means over batches would be 3/4 or 1/2.
    found = report([0, 1, 0, 0], [0, 1, 1, 1], ("a", "b"))
    assert found.balanced_accuracy.value == pytest.approx((1 / 3 + 1) / 2)


def test_rates_by_hand() -> None:
    found = report([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 1], ("a", "b", "c"))
    assert found.confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert found.support == (4, 2, 1)
    assert [r.value for r in found.recall if r] == pytest.approx([3 / 4, 1 / 2, 0])
    assert [s.value for s in found.specificity if s] == pytest.approx([2 / 3, 3 / 5, 1])
    assert found.f1 == pytest.approx((6 / 8, 2 / 5, 0))
    assert found.accuracy.value == pytest.approx(4 / 7)
    assert found.worst[0] == "c" and found.worst[1].value == 0


def test_a_class_without_samples_is_left_out_loudly() -> None:
    with pytest.warns(AbsentClassWarning, match=r"no sample of class 'c', 'd': its recall is undefined"):
        found = report([0, 0, 1, 1], [0, 2, 1, 1])
    assert found.balanced_accuracy.value == pytest.approx((1 / 2 + 1) / 2)
    assert found.macro_f1.value == pytest.approx((2 / 3 + 1) / 2)
    assert found.recall[2:] == (None, None) and found.f1[2:] == (None, None)
    assert found.specificity[2] is not None and found.specificity[2].value == 3 / 4
    assert found.absent == ("c", "d")
    assert "no sample of c, d: left out" in found.summary()
    assert found.macro_f1.low <= found.macro_f1.value <= found.macro_f1.high


def test_one_class_alone_has_no_specificity() -> None:
    with pytest.warns(AbsentClassWarning):
        found = report([1, 1], [1, 0], ("a", "b"))
    assert found.specificity[1] is None and found.recall[0] is None


def test_redrawn_sets_keep_the_class_counts_and_scatter_as_resampling_does() -> None:
    predictions = drawn(3)
    found = classification(predictions)
    draws = _redrawn(found.confusion, 4000, 1)
    assert (draws.sum(axis=2) == np.array(found.support)).all()
    rng = np.random.default_rng(2)
    naive = []
    for _ in range(2000):  # resample the samples of each class themselves
        recalls = []
        for label in range(4):
            own = predictions.predicted[predictions.true == label]
            recalls.append(np.mean(rng.choice(own, len(own)) == label))
        naive.append(np.mean(recalls))
    for q in (0.025, 0.5, 0.975):
        expected = np.quantile(naive, q)
        assert np.quantile(balanced_accuracies(draws), q) == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("seed", range(5))
def test_the_rates_of_many_confusions_are_those_of_each(seed: int) -> None:
    found = [classification(drawn(s)) for s in (seed, seed + 50)]
    confusions = np.stack([each.confusion for each in found])
    assert balanced_accuracies(confusions).tolist() == pytest.approx(
        [f.balanced_accuracy.value for f in found]
    )
    assert macro_f1s(confusions).tolist() == pytest.approx([f.macro_f1.value for f in found])


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    recalls = np.array([0.9, 0.6, 0.75])
    counts = (150, 60, 40)
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        true = np.repeat(range(3), counts)
        right = np.concatenate([rng.random(n) < p for n, p in zip(counts, recalls, strict=True)])
        predicted = np.where(right, true, (true + 1) % 3)
        interval = classification(
            Predictions(true, predicted, NAMES[:3]), resamples=300, seed=trial
        ).balanced_accuracy
        held += interval.low <= recalls.mean() <= interval.high
    assert 0.90 <= held / 200 <= 0.99  # 95 % give or take three standard errors


def test_the_same_seed_gives_the_same_interval() -> None:
    predictions = drawn(1)
    again = classification(predictions, seed=5).balanced_accuracy
    assert classification(predictions, seed=5).balanced_accuracy == again
    assert classification(predictions, seed=6).balanced_accuracy != again


def test_a_wider_level_gives_a_wider_interval() -> None:
    narrow, wide = (classification(drawn(1), level=level).macro_f1 for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_senseless_options_are_refused() -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1"):
        classification(drawn(1), level=95)
    with pytest.raises(InputError, match="at least 100 resamples, got 10"):
        classification(drawn(1), resamples=10)


def test_the_summary_has_a_row_for_each_class() -> None:
    text = report([0, 0, 1, 1], [0, 1, 1, 1], ("nv", "mel")).summary()
    assert text.splitlines() == [
        "accuracy           0.750 (0.301 to 0.954)",
        "balanced accuracy  0.750 (0.500 to 1.000)",
        "macro F1           0.733 (0.333 to 1.000)",
        "class  samples                  recall             specificity     F1",
        "nv           2  0.500 (0.095 to 0.905)  1.000 (0.342 to 1.000)  0.667",
        "mel          2  1.000 (0.342 to 1.000)  0.500 (0.095 to 0.905)  0.800",
        "95 % intervals over samples",
    ]


def test_a_missing_extra_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtraError, match=r"needs scikit-learn, .*pip install 'compressor\[metrics\]'"):
        classification(drawn(1))
