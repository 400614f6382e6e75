from __future__ import annotations

import logging

import pytest
import torch

from compressor.data.ecg import (
    Recordings,
    StackedImages,
    folds_by_record,
    split_by_record,
    split_images_leaking_records,
)
from compressor.errors import InputError

COUNTS = (40, 11, 4, 25)


def recordings(
    counts: tuple[int, ...] = COUNTS, subjects: list[int] | None = None, signals: torch.Tensor | None = None
) -> Recordings:
    number = sum(counts)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Recordings(
        signals_mV=torch.randn(number, 12, 4) if signals is None else signals,
        labels=labels[torch.randperm(number)] if subjects is None and signals is None else labels,
        names=tuple(f"r{index}" for index in range(number)),
        classes=("SB", "AFIB", "GSVT", "SR")[: len(counts)],
        sampling_hz=500,
        subjects=None if subjects is None else torch.tensor(subjects),
    )


def test_a_split_keeps_each_classs_proportion() -> None:
    whole = recordings()
    fold = split_by_record(whole, test_fraction=0.2, seed=1)
    assert sorted([*fold.train.tolist(), *fold.test.tolist()]) == list(range(80))
    assert whole.select(fold.test).labels.bincount().tolist() == [8, 2, 1, 5]
    assert whole.select(fold.train).labels.bincount().tolist() == [32, 9, 3, 20]


def test_folds_test_every_recording_once_in_equal_shares() -> None:
    whole = recordings()
    folds = folds_by_record(whole, folds=4)
    assert torch.cat([fold.test for fold in folds]).sort().values.tolist() == list(range(80))
    for fold in folds:
        assert not set(fold.train.tolist()) & set(fold.test.tolist())
        counts = whole.select(fold.test).labels.bincount(minlength=4).tolist()
        assert counts[0] == 10 and counts[1] in (2, 3) and counts[2] == 1 and counts[3] in (6, 7)
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_seeds_decide_and_repeat() -> None:
    whole = recordings()
    first = split_by_record(whole, seed=3).test
    assert torch.equal(first, split_by_record(whole, seed=3).test)
    assert not torch.equal(first, split_by_record(whole, seed=4).test)


@pytest.mark.parametrize("seed", range(5))
def test_a_person_is_on_one_side(seed: int) -> None:
    subjects = [index // 3 for index in range(18)] + [100 + index // 2 for index in range(12)]
    whole = recordings((18, 12), subjects)
    splits = [
        split_by_record(whole, test_fraction=0.3, seed=seed),
        *folds_by_record(whole, folds=3, seed=seed),
    ]
    for fold in splits:
        sides = [{subjects[position] for position in side.tolist()} for side in (fold.train, fold.test)]
        assert not sides[0] & sides[1]
        assert whole.select(fold.test).labels.unique().tolist() == [0, 1]


def test_identical_signals_and_persons_stay_together_through_each_other() -> None:
    """0 and 1 share samples, 1 and 2 a person: so 0, 1 and 2 are one group."""
    signals = torch.randn(8, 12, 4)
    signals[1] = signals[0]
    whole = recordings((8,), [0, 1, 1, 2, 3, 4, 5, 6], signals)
    for seed in range(10):
        test = set(split_by_record(whole, test_fraction=0.4, seed=seed).test.tolist())
        assert len(test & {0, 1, 2}) in (0, 3)


def test_a_rare_class_is_on_both_sides_or_refused() -> None:
    whole = recordings((30, 2))
    assert whole.select(split_by_record(whole, test_fraction=0.01).test).labels.bincount().tolist() == [1, 1]
    with pytest.raises(InputError, match="class AFIB has recordings of one person only"):
        split_by_record(recordings((30, 1)))
    with pytest.raises(InputError, match="class AFIB has recordings of one person only"):
        folds_by_record(recordings((30, 1)))


def test_folds_that_lack_a_class_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="compressor"):
        folds = folds_by_record(recordings((30, 3)), folds=5)
    assert "class AFIB has 3 persons for 5 folds; some tests lack it" in caplog.text
    assert len(folds) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2])
def test_fractions_that_make_no_sense_are_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="test_fraction must lie between 0 and 1"):
        split_by_record(recordings(), test_fraction=fraction)


@pytest.mark.parametrize("folds", [1, 81])
def test_numbers_of_folds_that_make_no_sense_are_refused(folds: int) -> None:
    with pytest.raises(InputError, match=rf"folds must be 2 to 80 \(persons\), got {folds}"):
        folds_by_record(recordings(), folds=folds)


def test_the_leaking_split_leaks() -> None:
    images = StackedImages(
        images=torch.zeros(200, 2, 2),
        labels=torch.zeros(200).long(),
        records=torch.arange(20).repeat_interleave(10),
        names=tuple(map(str, range(20))),
        classes=("SR",),
    )
    fold = split_images_leaking_records(images, test_fraction=0.25)
    assert (len(fold.train), len(fold.test)) == (150, 50)
    both = set(images.records[fold.train].tolist()) & set(images.records[fold.test].tolist())
    assert len(both) > 10
    with pytest.raises(InputError, match="two images or more"):
        split_images_leaking_records(images, test_fraction=1)
