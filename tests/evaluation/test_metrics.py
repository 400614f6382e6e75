from __future__ import annotations

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score
from torch import nn

from compressor.errors import EvaluationError, InputError
from compressor.evaluation import balanced_accuracy, macro_f1
from compressor.training import Validation


def test_they_are_scikit_learns_on_the_whole_split() -> None:
    outputs, targets = torch.randn(90, 3), torch.randint(0, 3, (90,))
    batches = list(zip(outputs.split(7), targets.split(7), strict=True))
    true, named = targets.numpy(), outputs.argmax(1).numpy()
    for metric, expected in (
        (balanced_accuracy, balanced_accuracy_score(true, named)),
        (macro_f1, f1_score(true, named, average="macro")),
    ):
        assert Validation(batches=batches, metric=metric).measure(nn.Identity()) == pytest.approx(expected)


def test_faults_are_those_of_classify() -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        balanced_accuracy(torch.full((2, 2), float("nan")), torch.tensor([0, 1]))
    with pytest.raises(InputError, match=r"expected 0\.\.1"):
        macro_f1(torch.eye(2), torch.tensor([0, 2]))
