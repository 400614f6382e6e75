"""Splits of ECGs by recording and person, stratified by class; and the split by image that leaks.

Legend: positions are those of recordings (or images, where said), int64 and ascending.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.data.ecg.images import StackedImages
from compressor.data.ecg.recordings import Recordings
from compressor.errors import InputError

__all__ = ["Fold", "folds_by_record", "split_by_record", "split_images_leaking_records"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class Fold:
    """Two parts of a data set as positions: to train on, and to test on."""

    train: Tensor
    test: Tensor

    def __repr__(self) -> str:
        return f"Fold({len(self.train)} to train, {len(self.test)} to test)"


def split_by_record(recordings: Recordings, *, test_fraction: float = 0.2, seed: int = 0) -> Fold:
    """Positions of recordings to train on and to test on, each class in the same proportion on both sides.

    Recordings of one person (`subjects`), and those whose samples are the same to the bit, go to one side. A
    class keeps at least one recording (or person) on either side. The positions fit `Recordings.select` and
    `StackedImages.select_records`. Raises InputError where a class cannot be on both sides.

    >>> four = Recordings(
    ...     signals_mV=torch.randn(8, 12, 50), labels=torch.tensor([0, 1] * 4), names=tuple("abcdefgh"),
    ...     classes=("SB", "SR"), sampling_hz=500,
    ... )
    >>> split_by_record(four, test_fraction=0.25)
    Fold(6 to train, 2 to test)
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"split_by_record: test_fraction must lie between 0 and 1, got {test_fraction:g}")
    groups = _drawn(recordings, seed)
    _check_classes(recordings, groups, "split_by_record")
    labels = recordings.labels.tolist()
    test: list[int] = []
    for of_class in _by_class(groups, labels).values():
        wanted = min(max(1, round(test_fraction * len(of_class))), len(of_class) - 1)
        test += [position for group in of_class[:wanted] for position in group]
    return _fold(test, len(recordings))


def folds_by_record(recordings: Recordings, *, folds: int = 5, seed: int = 0) -> tuple[Fold, ...]:
    """Folds for cross-validation: every recording is tested once, trained on in all the others.

    Stratified and grouped as `split_by_record`: with one recording for each person the folds' counts of a
    class differ by one at most. A class of fewer persons than folds is missing from some tests, which is
    logged: take measures over all folds together there, not means of folds. Raises InputError for a class
    of one person, fewer than two folds, and more folds than persons.

    >>> ten = Recordings(
    ...     signals_mV=torch.randn(10, 12, 50), labels=torch.tensor([0, 1] * 5), names=tuple("abcdefghij"),
    ...     classes=("SB", "SR"), sampling_hz=500,
    ... )
    >>> [len(fold.test) for fold in folds_by_record(ten, folds=5)]
    [2, 2, 2, 2, 2]
    """
    groups = _drawn(recordings, seed)
    if not 2 <= folds <= len(groups):
        raise InputError(f"folds_by_record: folds must be 2 to {len(groups)} (persons), got {folds}")
    _check_classes(recordings, groups, "folds_by_record", wanted=folds)
    labels = recordings.labels.tolist()
    tests: list[list[int]] = [[] for _ in range(folds)]
    for of_class in _by_class(groups, labels).values():
        counts = [0] * folds  # of this class
        for group in sorted(of_class, key=len, reverse=True):
            least = min(range(folds), key=lambda fold: (counts[fold], len(tests[fold])))
            tests[least] += group
            counts[least] += len(group)
    return tuple(_fold(test, len(recordings)) for test in tests)


def split_images_leaking_records(images: StackedImages, *, test_fraction: float = 0.2, seed: int = 0) -> Fold:
    """Positions of *images* to train and to test on, whatever recording they show. For comparison only.

    Seconds of one recording come on both sides, so a network can recognise the person, and its test accuracy
    says little about other persons. Some published accuracies were measured like this, and the paper that
    this package follows does not say which way it split; so both can be run, and both should be reported.
    """
    if not 0 < test_fraction < 1 or len(images) < 2:
        raise InputError(
            "split_images_leaking_records: takes two images or more and a test_fraction between 0 and 1, "
            f"got {len(images)} and {test_fraction:g}"
        )
    drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    wanted = min(max(1, round(test_fraction * len(images))), len(images) - 1)
    return _fold(drawn[:wanted].tolist(), len(images))


def _drawn(recordings: Recordings, seed: int) -> list[list[int]]:
    """The recordings in groups that must stay together, in a random order of groups."""
    groups = _together(recordings)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))
    return [groups[index] for index in order.tolist()]


def _together(recordings: Recordings) -> list[list[int]]:
    """Groups of positions that share a person or all samples, directly or through others."""
    keys: list[Sequence[Hashable]] = [recordings.digests()]
    if recordings.subjects is not None:
        keys.append(recordings.subjects.tolist())
    root = list(range(len(recordings)))

    def root_of(position: int) -> int:
        while root[position] != position:
            root[position] = root[root[position]]
            position = root[position]
        return position

    for of_recording in keys:
        first: dict[Hashable, int] = {}
        for position, key in enumerate(of_recording):
            root[root_of(position)] = root_of(first.setdefault(key, position))
    groups: dict[int, list[int]] = {}
    for position in range(len(recordings)):
        groups.setdefault(root_of(position), []).append(position)
    return list(groups.values())


def _by_class(groups: Sequence[list[int]], labels: Sequence[int]) -> dict[int, list[list[int]]]:
    """The groups of each class; one whose recordings are of several classes counts for that of its first."""
    found: dict[int, list[list[int]]] = {}
    for group in groups:
        found.setdefault(labels[group[0]], []).append(group)
    return dict(sorted(found.items()))


def _check_classes(recordings: Recordings, groups: Sequence[list[int]], who: str, *, wanted: int = 2) -> None:
    persons = {label: len(of) for label, of in _by_class(groups, recordings.labels.tolist()).items()}
    if not persons:
        raise InputError(f"{who}: there are no recordings")
    for label, count in persons.items():
        name = recordings.classes[label]
        if count < 2:
            raise InputError(
                f"{who}: class {name} has recordings of one person only and cannot be on both sides: "
                "leave the class out, or find more of it"
            )
        if count < wanted:
            logger.warning(
                "%s: class %s has %d persons for %d folds; some tests lack it", who, name, count, wanted
            )


def _fold(test: Sequence[int], count: int) -> Fold:
    tested = torch.zeros(count, dtype=torch.bool)
    tested[torch.as_tensor(test, dtype=torch.int64)] = True
    return Fold((~tested).nonzero().flatten(), tested.nonzero().flatten())
