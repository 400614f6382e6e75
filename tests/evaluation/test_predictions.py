from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.errors import EvaluationError, InputError
from compressor.evaluation import Predictions, classify

LABELS = torch.tensor([0, 2, 1, 1, 0, 2, 0])


class Known(nn.Module):
    """Its logits are its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, affine=False)
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


def batches(logits: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(logits.split(size), labels.split(size), strict=True))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_batches_of_any_size_give_the_same_predictions(size: int) -> None:
    logits = torch.randn(7, 3)
    found = classify(Known(), batches(logits, LABELS, size))
    assert found.true.tolist() == LABELS.tolist()
    assert found.predicted.tolist() == [max(range(3), key=row.__getitem__) for row in logits.tolist()]
    assert found.classes == ("0", "1", "2")


def test_a_model_in_training_mode_is_run_in_eval_mode_and_left_as_it_was() -> None:
    model = Known().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # One sample in training mode would be an error of BatchNorm.
    classify(model, batches(torch.randn(7, 3), LABELS, 1))
    assert model.training and model.norm.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_max_batches_and_names() -> None:
    found = classify(Known(), batches(torch.randn(7, 3), LABELS, 2), classes=("a", "b", "c"), max_batches=2)
    assert (len(found), found.classes) == (4, ("a", "b", "c"))


def test_outputs_and_targets_of_other_forms_are_taken_out_by_functions() -> None:
    class Wrapped(nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> Any:
            return SimpleNamespace(logits=x, labels=labels)

    logits = torch.randn(4, 3)
    items = [{"x": logits, "labels": LABELS[:4]}]
    found = classify(
        Wrapped(), items, logits=lambda output: output.logits, labels=lambda batch: batch["labels"]
    )
    assert found.predicted.tolist() == logits.argmax(1).tolist()


def test_labels_may_be_a_column() -> None:
    found = classify(Known(), [(torch.randn(7, 3), LABELS[:, None])])
    assert found.true.tolist() == LABELS.tolist()


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (torch.randn(2, 3), torch.tensor([0, 3]), InputError, r"batch 0 reach from 0 to 3, expected 0\.\.2"),
        (
            torch.randn(2, 3),
            torch.tensor([-100, 1]),
            InputError,
            r"reach from -100 .* be ignored must be left",
        ),
        (torch.randn(2, 3), torch.tensor([0, 1, 2]), InputError, r"are 3, expected one for each of 2 rows"),
        (torch.randn(2, 3), torch.tensor([0.0, 1.0]), InputError, r"are torch\.float32 \[2\], expected int"),
        (torch.randn(2, 3), torch.eye(2, 3), InputError, r"of one-hot labels take labels=lambda"),
        (torch.randn(2, 3), None, InputError, r"are NoneType, expected integers \[2\] as a tensor"),
        (
            torch.tensor([[0.0, float("nan")]]),
            torch.tensor([0]),
            EvaluationError,
            r"1 of 1 samples of batch 0",
        ),
        (torch.randn(2, 1), torch.tensor([0, 1]), EvaluationError, r"has 1 column, .* torch\.cat\(\[-z, z\]"),
        (
            torch.randn(2, 3, 4),
            torch.tensor([0, 1]),
            EvaluationError,
            r"is shape \[2, 3, 4\], expected logits",
        ),
    ],
)
def test_a_faulty_batch_is_named(logits: Tensor, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        classify(nn.Identity(), [(logits, labels)])


def test_the_number_of_classes_may_not_change_nor_differ_from_the_names() -> None:
    later = [(torch.randn(2, 3), torch.tensor([0, 1])), (torch.randn(2, 4), torch.tensor([0, 1]))]
    with pytest.raises(EvaluationError, match=r"batch 1 has 4 columns, expected logits \[N, 3\]"):
        classify(nn.Identity(), later)
    with pytest.raises(EvaluationError, match=r"batch 0 has 3 columns, expected logits \[N, 2\]"):
        classify(nn.Identity(), later, classes=("nv", "mel"))


def test_a_fault_in_the_last_batch_leaves_the_model_as_it_was() -> None:
    model = Known().train()
    items = [*batches(torch.randn(4, 3), LABELS[:4], 2), (torch.randn(2, 3), torch.tensor([0, 9]))]
    with pytest.raises(InputError, match="batch 2"):
        classify(model, items)
    assert model.training and int(model.norm.num_batches_tracked) == 0


def test_an_empty_and_a_used_up_loader_are_refused() -> None:
    with pytest.raises(InputError, match="gave no batch"):
        classify(Known(), [])
    once = iter(batches(torch.randn(7, 3), LABELS, 4))
    classify(Known(), once)
    with pytest.raises(InputError, match="may be used up"):
        classify(Known(), once)


@pytest.mark.parametrize(
    ("true", "predicted", "classes", "message"),
    [
        ([], [], ("a", "b"), r"true must be integers \[N\], N at least 1, got"),
        ([0, 1], [0], ("a", "b"), r"got 1 for 2 samples"),
        ([0, 2], [0, 1], ("a", "b"), r"true must lie in 0\.\.1 \(2 classes\), got 0\.\.2"),
        ([0, 1], [0, -1], ("a", "b"), r"predicted must lie in .* got -1\.\.0"),
        ([0.0, 1.0], [0, 1], ("a", "b"), r"true must be integers .* got float64"),
        ([0, 1], [0, 1], ("a", "a"), r"two or more different names"),
        ([0, 0], [0, 0], ("a",), r"two or more different names"),
    ],
)
def test_arrays_that_are_no_predictions_are_refused(
    true: list[int], predicted: list[int], classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Predictions(np.array(true), np.array(predicted), classes)


def test_predictions_keep_their_own_read_only_arrays() -> None:
    mine = np.array([0, 1])
    found = Predictions(mine, mine, ("a", "b"))
    mine[0] = 1
    assert found.true.tolist() == [0, 1]
    with pytest.raises(ValueError, match="read-only"):
        found.true[0] = 1
