"""Mean rates of runs that differ by their seed, with t intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.errors import InputError
from compressor.evaluation.classification import Classification
from compressor.evaluation.intervals import Interval, shown, t_interval
from compressor.tables import aligned

__all__ = ["OverSeeds", "over_seeds"]


@dataclass(frozen=True, repr=False)
class OverSeeds:
    """What `over_seeds` found: means over runs on the same set.

    `worst_recall` is the mean of each run's lowest recall, whichever class it is of.
    """

    seeds: int
    classes: tuple[str, ...]
    accuracy: Interval
    balanced_accuracy: Interval
    macro_f1: Interval
    worst_recall: Interval
    recall: tuple[Interval | None, ...]
    specificity: tuple[Interval | None, ...]

    def __repr__(self) -> str:
        return (
            f"OverSeeds({self.seeds} seeds: balanced accuracy {self.balanced_accuracy}, "
            f"macro F1 {self.macro_f1}, worst recall {self.worst_recall})"
        )

    def summary(self) -> str:
        """The means over seeds and a table with one row for each class."""
        names = ("accuracy", "balanced accuracy", "macro F1", "worst recall")
        rates = (self.accuracy, self.balanced_accuracy, self.macro_f1, self.worst_recall)
        columns = zip(self.classes, self.recall, self.specificity, strict=True)
        rows = [(name, shown(recall), shown(specificity)) for name, recall, specificity in columns]
        lines = aligned([(name, shown(rate)) for name, rate in zip(names, rates, strict=True)])
        lines += aligned([("class", "recall", "specificity"), *rows])
        return "\n".join([*lines, f"{100 * self.accuracy.level:g} % t intervals over {self.seeds} seeds"])


def over_seeds(runs: Sequence[Classification], *, level: float = 0.95) -> OverSeeds:
    """Means of the runs' rates with t intervals: how another seed would do on the same set.

    The samples' own uncertainty is not in them: all seeds share the set. Raises InputError for
    fewer than two runs, or runs on other sets.

    >>> from compressor.evaluation import Predictions, classification
    >>> import numpy as np
    >>> true, names = np.array([0, 0, 0, 1, 1]), ("nv", "mel")
    >>> predicted = (np.array([0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 0]))
    >>> runs = [classification(Predictions(true, p, names)) for p in predicted]
    >>> over_seeds(runs).balanced_accuracy
    0.792 (0.262 to 1.321)
    """
    if len(runs) < 2:
        raise InputError(f"over_seeds: expected the reports of two or more runs, got {len(runs)}")
    first = runs[0]
    for number, run in enumerate(runs):
        if (run.classes, run.support) != (first.classes, first.support):
            raise InputError(
                f"over_seeds: run {number} is on {_described(run)}, run 0 on {_described(first)}; expected "
                "runs on the same set"
            )
    return OverSeeds(
        seeds=len(runs),
        classes=first.classes,
        accuracy=t_interval([run.accuracy.value for run in runs], level=level),
        balanced_accuracy=t_interval([run.balanced_accuracy.value for run in runs], level=level),
        macro_f1=t_interval([run.macro_f1.value for run in runs], level=level),
        worst_recall=t_interval([run.worst[1].value for run in runs], level=level),
        recall=_per_class([run.recall for run in runs], level),
        specificity=_per_class([run.specificity for run in runs], level),
    )


def _per_class(runs: Sequence[Sequence[Interval | None]], level: float) -> tuple[Interval | None, ...]:
    """The mean over runs for each class; what is undefined in one run is so in all."""
    found = []
    for rates in zip(*runs, strict=True):
        known = [rate.value for rate in rates if rate is not None]
        found.append(t_interval(known, level=level) if known else None)
    return tuple(found)


def _described(run: Classification) -> str:
    return ", ".join(f"{n} {name}" for name, n in zip(run.classes, run.support, strict=True))
