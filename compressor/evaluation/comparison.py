"""Which classes a change to a model hurts most: recall before and after on the same samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from compressor.errors import InputError
from compressor.evaluation.extras import require_metrics
from compressor.evaluation.intervals import Interval, check_level, wilson_interval
from compressor.evaluation.predictions import Predictions
from compressor.tables import aligned

__all__ = ["ClassChange", "ClassComparison", "compare_classes"]


@dataclass(frozen=True)
class ClassChange:
    """One class: recall before and after, and their paired difference (negative: it was hurt).

    `lost` samples were right before and are wrong after, `gained` the other way round. `p_value` is
    McNemar's exact one for lost and gained alike; `p_adjusted` is Holm's for all classes together.
    """

    name: str
    samples: int
    before: Interval
    after: Interval
    change: Interval
    lost: int
    gained: int
    p_value: float
    p_adjusted: float


@dataclass(frozen=True, repr=False)
class ClassComparison:
    """The classes that have samples, the most hurt first; `absent` names the others."""

    changes: tuple[ClassChange, ...]
    absent: tuple[str, ...]

    @property
    def balanced_accuracy_change(self) -> float:
        """The mean change of recall over the classes."""
        return sum(change.change.value for change in self.changes) / len(self.changes)

    def __repr__(self) -> str:
        worst = self.changes[0]
        return (
            f"ClassComparison({len(self.changes)} classes, balanced accuracy "
            f"{self.balanced_accuracy_change:+.3f}; most hurt: {worst.name!r}, recall "
            f"{worst.before.value:.3f} to {worst.after.value:.3f}, p {worst.p_adjusted:.2g})"
        )

    def summary(self) -> str:
        """A table with one row for each class, the most hurt first."""
        titles = ("class", "samples", "before", "after", "change", "lost", "gained", "p (Holm)")
        rows = [
            (
                *(c.name, str(c.samples), f"{c.before.value:.3f}", f"{c.after.value:.3f}"),
                f"{c.change.value:+.3f} ({c.change.low:+.3f} to {c.change.high:+.3f})",
                *(str(c.lost), str(c.gained), f"{c.p_adjusted:.2g}"),
            )
            for c in self.changes
        ]
        lines = aligned([titles, *rows])
        if self.absent:
            lines.append(f"no sample of {', '.join(self.absent)}")
        level = 100 * self.changes[0].change.level
        lines.append(
            f"balanced accuracy {self.balanced_accuracy_change:+.3f}; {level:g} % intervals of the paired "
            "difference over samples"
        )
        return "\n".join(lines)


def compare_classes(before: Predictions, after: Predictions, *, level: float = 0.95) -> ClassComparison:
    """How the recall of each class changed between two models on the same samples in the same order.

    Differences are paired, sample by sample, which finds smaller harm than two separate intervals.
    The interval is that of Agresti and Min (the four counts plus one half each, then Wald); it may
    leave −1..1 for a handful of samples. Raises InputError for predictions on other samples.

    *Sources: Q. McNemar 1947, Psychometrika 12, 153-157 (the exact, binomial form); A. Agresti,
    Y. Min 2005, "Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 729-740; S. Holm 1979, Scandinavian Journal of Statistics 6, 65-70.*

    >>> true = np.repeat([0, 1], 8)
    >>> before = Predictions(true, true, ("nv", "mel"))
    >>> after = Predictions(true, np.array([0] * 15 + [1]), ("nv", "mel"))
    >>> compare_classes(before, after)
    ClassComparison(2 classes, balanced accuracy -0.438; most hurt: 'mel', recall 1.000 to 0.125, p 0.031)
    """
    require_metrics()
    check_level(level)
    _check_paired(before, after)
    was, now = before.true == before.predicted, after.true == after.predicted
    counts: list[tuple[str, _Counts]] = []
    for label, name in enumerate(before.classes):
        own = before.true == label
        if own.any():
            pairs = ((was, now), (was, ~now), (~was, now), (~was, ~now))
            counts.append((name, _Counts(*(int((own & a & b).sum()) for a, b in pairs))))
    p_values = [_mcnemar(found.lost, found.gained) for _, found in counts]
    changes = [
        _change(name, found, p, adjusted, level)
        for (name, found), p, adjusted in zip(counts, p_values, holm(p_values), strict=True)
    ]
    changes.sort(key=lambda change: change.change.value)
    there = {change.name for change in changes}
    return ClassComparison(tuple(changes), tuple(name for name in before.classes if name not in there))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, which bound the chance of any false finding among all.

    >>> holm([0.04, 0.01, 0.03])
    [0.06, 0.03, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


class _Counts(NamedTuple):
    """Samples of one class: right in both, right before only, right after only, wrong in both."""

    kept: int
    lost: int
    gained: int
    wrong: int


def _change(name: str, counts: _Counts, p: float, adjusted: float, level: float) -> ClassChange:
    kept, lost, gained, _ = counts
    samples = sum(counts)
    return ClassChange(
        name=name,
        samples=samples,
        before=wilson_interval(kept + lost, samples, level=level),
        after=wilson_interval(kept + gained, samples, level=level),
        change=_paired_difference(samples, lost, gained, level),
        lost=lost,
        gained=gained,
        p_value=p,
        p_adjusted=adjusted,
    )


def _mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value of as many losses among all changes, if both were as likely."""
    from scipy.stats import binomtest

    return float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0


def _paired_difference(samples: int, lost: int, gained: int, level: float) -> Interval:
    """(gained − lost) / samples with the interval of Agresti and Min."""
    from scipy.stats import norm

    n, b, c = samples + 2, gained + 0.5, lost + 0.5
    middle = (b - c) / n
    half = float(norm.ppf((1 + level) / 2)) * math.sqrt((b + c) - (b - c) ** 2 / n) / n
    return Interval((gained - lost) / samples, middle - half, middle + half, level)


def _check_paired(before: Predictions, after: Predictions) -> None:
    if before.classes != after.classes:
        raise InputError(
            f"compare_classes: expected the same classes, got {before.classes} before, {after.classes} after"
        )
    if not np.array_equal(before.true, after.true):
        raise InputError(
            f"compare_classes: the labels before ({len(before.true)} samples) and after ({len(after.true)}) "
            "differ; expected the same samples in the same order: does the loader shuffle?"
        )
