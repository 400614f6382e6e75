"""Per-class and macro rates of one run on the whole set, with intervals over its samples."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compressor.errors import AbsentClassWarning
from compressor.evaluation.extras import require_metrics
from compressor.evaluation.intervals import Interval, check_level, check_resamples, shown, wilson_interval
from compressor.evaluation.predictions import Predictions
from compressor.tables import aligned

__all__ = ["Classification", "balanced_accuracies", "classification", "macro_f1s"]

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Classification:
    """What `classification` found; one entry for each class, None where a rate is undefined.

    `recall` is the share of a class's samples that are named rightly, `specificity` the share of all
    others that are not given its name, `f1` 2·tp / (2·tp + fp + fn). `balanced_accuracy` and
    `macro_f1` are the means of recall and F1 over the classes that have samples. `confusion`
    [true, predicted] counts samples.
    """

    classes: tuple[str, ...]
    confusion: Counts
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    recall: tuple[Interval | None, ...]
    specificity: tuple[Interval | None, ...]
    f1: tuple[float | None, ...]

    @property
    def support(self) -> tuple[int, ...]:
        """Samples of each class."""
        return tuple(int(n) for n in self.confusion.sum(axis=1))

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes without a sample, which the means leave out."""
        return tuple(name for name, n in zip(self.classes, self.support, strict=True) if n == 0)

    @property
    def worst(self) -> tuple[str, Interval]:
        """The class of the lowest recall, and its recall."""
        found = [(r, name) for r, name in zip(self.recall, self.classes, strict=True) if r is not None]
        recall, name = min(found, key=lambda pair: pair[0].value)
        return name, recall

    def __repr__(self) -> str:
        name, recall = self.worst
        return (
            f"Classification({sum(self.support)} samples, {len(self.classes)} classes: balanced accuracy "
            f"{self.balanced_accuracy.value:.3f}, macro F1 {self.macro_f1.value:.3f}, worst recall "
            f"{recall.value:.3f} of {name!r})"
        )

    def summary(self) -> str:
        """The whole-set rates and a table with one row for each class."""
        names = ("accuracy", "balanced accuracy", "macro F1")
        rates = (self.accuracy, self.balanced_accuracy, self.macro_f1)
        columns = zip(self.classes, self.support, self.recall, self.specificity, self.f1, strict=True)
        rows = [
            (name, str(n), shown(recall), shown(specificity), "-" if f1 is None else f"{f1:.3f}")
            for name, n, recall, specificity, f1 in columns
        ]
        lines = aligned([(name, shown(rate)) for name, rate in zip(names, rates, strict=True)])
        lines += aligned([("class", "samples", "recall", "specificity", "F1"), *rows])
        if self.absent:
            lines.append(f"no sample of {', '.join(self.absent)}: left out of balanced accuracy and macro F1")
        lines.append(f"{100 * self.accuracy.level:g} % intervals over samples")
        return "\n".join(lines)


def classification(
    predictions: Predictions, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Classification:
    """Macro F1, balanced accuracy and the rates of each class, on all samples at once.

    Intervals are over samples, for this one run: Wilson's for shares, the 95 % (`level`) range of
    `resamples` bootstrap draws from `seed` for the two means, each class redrawn by itself, so that
    the class counts stay. They do not say how another training would do (`over_seeds`), and those of
    the two means are too narrow where a class has only a few samples, since samples that are all
    right stay all right in every draw; the class's own interval shows it.

    A class without a sample has no recall: it is left out of both means with an AbsentClassWarning
    and named in the summary. Raises InputError for a level or a number of draws that makes no sense.

    >>> true, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    >>> found = classification(Predictions(true, predicted, ("nv", "mel")))
    >>> found
    Classification(5 samples, 2 classes: balanced accuracy 0.833, macro F1 0.800, worst recall 0.667
                   of 'nv')
    >>> found.specificity[0]
    1.000 (0.342 to 1.000)
    """
    require_metrics()
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    check_level(level)
    check_resamples("classification", resamples)
    true, predicted = predictions.true, predictions.predicted
    labels = list(range(len(predictions.classes)))
    confusion = confusion_matrix(true, predicted, labels=labels).astype(np.int64)
    _, recalls, f1s, support = precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=np.nan
    )
    there = support > 0
    _warn_of_absent([name for name, n in zip(predictions.classes, support, strict=True) if n == 0])
    draws = _redrawn(confusion, resamples, seed)
    right = np.diagonal(confusion)
    others = len(true) - support
    named = confusion.sum(axis=0)
    confusion.flags.writeable = False
    return Classification(
        classes=predictions.classes,
        confusion=confusion,
        accuracy=wilson_interval(int(right.sum()), len(true), level=level),
        balanced_accuracy=_ranged(recalls[there].mean(), balanced_accuracies(draws), level),
        macro_f1=_ranged(f1s[there].mean(), macro_f1s(draws), level),
        recall=_shares(right, support, level),
        specificity=_shares(others - (named - right), others, level),
        f1=tuple(float(f1) if n else None for f1, n in zip(f1s, support, strict=True)),
    )


def balanced_accuracies(confusions_RTP: Counts) -> Floats:
    """Mean recall over the classes that have samples, of each confusion matrix [true, predicted]."""
    support_RT = confusions_RTP.sum(axis=2)
    right_RT = np.diagonal(confusions_RTP, axis1=1, axis2=2)
    return _mean_over_present(right_RT / np.maximum(support_RT, 1), support_RT > 0)


def macro_f1s(confusions_RTP: Counts) -> Floats:
    """Mean F1 over the classes that have samples, of each confusion matrix [true, predicted]."""
    support_RT = confusions_RTP.sum(axis=2)
    right_RT = np.diagonal(confusions_RTP, axis1=1, axis2=2)
    # 2 tp + fp + fn: the samples of the class, and those that are given its name.
    named_or_there_RT = support_RT + confusions_RTP.sum(axis=1)
    return _mean_over_present(2 * right_RT / np.maximum(named_or_there_RT, 1), support_RT > 0)


def _mean_over_present(rates_RT: Floats, present_RT: npt.NDArray[np.bool_]) -> Floats:
    means: Floats = np.where(present_RT, rates_RT, 0.0).sum(axis=1) / present_RT.sum(axis=1)
    return means


def _redrawn(confusion: Counts, resamples: int, seed: int) -> Counts:
    """Confusion matrices [resamples, true, predicted] of sets drawn again, class by class.

    A set's samples of one class drawn with replacement are a multinomial draw of its row.
    """
    rng = np.random.default_rng(seed)
    rows = [
        rng.multinomial(row.sum(), row / max(row.sum(), 1), size=resamples)
        if row.sum()
        else np.zeros((resamples, len(row)), dtype=np.int64)
        for row in confusion
    ]
    return np.stack(rows, axis=1)


def _ranged(value: float, draws: Floats, level: float) -> Interval:
    low, high = np.quantile(draws, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(value), float(low), float(high), level)


def _shares(successes: Counts, trials: Counts, level: float) -> tuple[Interval | None, ...]:
    return tuple(
        wilson_interval(int(k), int(n), level=level) if n else None
        for k, n in zip(successes, trials, strict=True)
    )


def _warn_of_absent(names: Sequence[str]) -> None:
    if names:
        warnings.warn(
            f"no sample of class {', '.join(map(repr, names))}: its recall is undefined, so balanced "
            "accuracy and macro F1 are means over the other classes; compare them only with means over "
            "the same classes",
            AbsentClassWarning,
            stacklevel=3,
        )
