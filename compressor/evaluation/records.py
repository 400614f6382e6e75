"""Rates of records (ECGs, films, volumes) that a classifier sees image by image.

A record is named by the mean of the softmaxes of its images. Images of one record are no independent
samples, so intervals here are over records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.evaluation.classification import Classification, classification
from compressor.evaluation.intervals import Interval, check_level, check_resamples
from compressor.evaluation.predictions import Predictions, collected

__all__ = ["RecordMetric", "RecordPredictions", "classify_records", "record_predictions"]

Rate = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True, eq=False, repr=False)
class RecordPredictions:
    """What a classifier names every image and every record.

    `images` and `records` are `Predictions`, the records in rising order of their numbers; `of_image`,
    int64 [N], says which record an image is of, by its position in `records`; `probabilities` [R, n_classes]
    are the means of softmaxes that the records are named by.
    """

    images: Predictions
    records: Predictions
    of_image: Tensor
    probabilities: Tensor

    def __repr__(self) -> str:
        return f"RecordPredictions(images: {self.images}, records: {self.records})"

    def image_accuracy(self, *, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> Interval:
        """The share of images that are named rightly, and its interval over records.

        Whole records are drawn again (`resamples` times, from `seed`), as the images of one are right or
        wrong together: an interval over images would be too narrow by far.
        """
        check_level(level)
        check_resamples("image_accuracy", resamples)
        right = torch.from_numpy(self.images.true == self.images.predicted).double()
        count = len(self.records)
        right_R = torch.zeros(count, dtype=torch.float64).index_add_(0, self.of_image, right).numpy()
        images_R = self.of_image.bincount(minlength=count).double().numpy()
        draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        low, high = np.quantile((draws @ right_R) / (draws @ images_R), ((1 - level) / 2, (1 + level) / 2))
        return Interval(float(right.mean()), float(low), float(high), level)

    def classification(self, *, level: float = 0.95) -> Classification:
        """Accuracy, balanced accuracy, macro F1, confusion and the rates of each class, over records."""
        return classification(self.records, level=level)

    def summary(self) -> str:
        """The rate of the images in one line, then the table of the records."""
        images = f"images: accuracy {self.image_accuracy()}, an interval over records"
        return f"{images}\nrecords:\n{self.classification().summary()}"


def record_predictions(
    logits: Tensor, labels: Tensor, records: Tensor | Sequence[int], *, classes: Sequence[str] | None = None
) -> RecordPredictions:
    """What logits [N, n_classes] of images say about the records [N] that these are of.

    `records` numbers each image's record; `labels` [N] are the same for all images of a record. Raises
    InputError where they are not, and for other lengths; else as `classify` does.

    >>> logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.0, 2.0]])
    >>> record_predictions(logits, torch.tensor([0, 0, 1, 1]), [7, 7, 9, 9])
    RecordPredictions(images: Predictions(4 samples of 2 classes, 3 right), records: Predictions(2
    samples of 2 classes, 2 right))
    """
    return classify_records(nn.Identity(), [(logits, labels)], records, classes=classes)


def classify_records(
    model: nn.Module,
    batches: Iterable[object],
    records: Tensor | Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    autocast: torch.dtype | None = None,
    logits: Callable[[Any], Tensor] | None = None,
    labels: Callable[[Any], Tensor] | None = None,
) -> RecordPredictions:
    """What a model names the images of all batches and the records that these are of.

    `records` [N] numbers the record of each image in the order of the batches, so the loader must not
    shuffle. Options and faults are those of `classify`, further faults those of `record_predictions`.

    >>> x, y = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([1, 1])
    >>> classify_records(nn.Identity(), [(x, y)], [0, 0]).probabilities
    tensor([[0.4251, 0.5749]], dtype=torch.float64)
    """
    probabilities_NC, true_N, n_classes = collected(
        model,
        batches,
        lambda found: found.double().softmax(dim=1),
        n_classes=None if classes is None else len(classes),
        autocast=autocast,
        logits=logits,
        labels=labels,
    )
    numbers = _numbers(records, len(true_N))
    _, of_image, counts = torch.unique(numbers, return_inverse=True, return_counts=True)
    total_RC = torch.zeros(len(counts), n_classes, dtype=torch.float64).index_add_(
        0, of_image, probabilities_NC
    )
    mean_RC = total_RC / counts[:, None]
    true_R = _labels_of_records(true_N, numbers, of_image, len(counts))
    names = tuple(map(str, range(n_classes))) if classes is None else tuple(classes)
    return RecordPredictions(
        images=Predictions(true_N.numpy(), probabilities_NC.argmax(1).numpy(), names),
        records=Predictions(true_R.numpy(), mean_RC.argmax(1).numpy(), names),
        of_image=of_image,
        probabilities=mean_RC,
    )


@dataclass(frozen=True, eq=False)
class RecordMetric:
    """A rate over records instead of images.

    For `training.Validation(batches=..., metric=RecordMetric(records))`. `records` [N] numbers the record of
    each image in the order of the batches. `rate` sees the mean softmax of each record [R, n_classes] and
    its label [R]: the share named rightly by default, or `balanced_accuracy`, `macro_f1`. Faults are those of
    `record_predictions`.

    >>> metric = RecordMetric(torch.tensor([0, 0, 1, 1]))
    >>> metric(torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 2.0], [2.0, 0.0]]), torch.tensor([0, 0, 1, 1]))
    0.5
    """

    records: Tensor
    rate: Rate | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> float:
        found = record_predictions(outputs, targets, self.records)
        true = torch.from_numpy(found.records.true.copy())
        if self.rate is not None:
            return self.rate(found.probabilities, true)
        return float((found.probabilities.argmax(1) == true).double().mean())


def _numbers(records: Tensor | Sequence[int], images: int) -> Tensor:
    numbers = torch.as_tensor(records).cpu()
    if numbers.ndim != 1 or numbers.is_floating_point() or len(numbers) != images:
        raise InputError(
            f"records must be whole numbers [{images}], one for each image, got {numbers.dtype} "
            f"{list(numbers.shape)}"
        )
    return numbers.long()


def _labels_of_records(labels_N: Tensor, numbers_N: Tensor, of_image_N: Tensor, records: int) -> Tensor:
    """The label of each record [R]; raises InputError where its images have several."""
    empty = torch.empty(records, dtype=torch.int64)
    low, high = (
        empty.scatter_reduce(0, of_image_N, labels_N, reduce=side, include_self=False)
        for side in ("amin", "amax")
    )
    if not torch.equal(low, high):
        several = numbers_N[(low != high)[of_image_N]].unique().tolist()
        raise InputError(
            f"the images of record {', '.join(map(str, several[:5]))} have several labels, expected one for "
            "each record; does the loader shuffle?"
        )
    return low
