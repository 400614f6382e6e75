"""The grouping against the numbers published with it (Zheng et al. 2020), copied out by hand."""

from __future__ import annotations

import pytest

from compressor.data.ecg import RHYTHM_CLASSES, RHYTHM_DIAGNOSES, rhythm_classes

# acronym: (class, recordings among the first 10,646)
PUBLISHED = {
    "SB": ("SB", 3889),
    "AFIB": ("AFIB", 1780),
    "AF": ("AFIB", 445),
    "SVT": ("GSVT", 587),
    "AT": ("GSVT", 121),
    "SAAWR": ("GSVT", 7),
    "ST": ("GSVT", 1568),
    "AVNRT": ("GSVT", 16),
    "AVRT": ("GSVT", 8),
    "SR": ("SR", 1826),
    "SI": ("SR", 399),
}
TOTALS = {"SB": 3889, "AFIB": 2225, "GSVT": 2307, "SR": 2225}


def test_the_groups_sum_to_the_published_totals() -> None:
    found = dict.fromkeys(RHYTHM_CLASSES, 0)
    for diagnosis in RHYTHM_DIAGNOSES:
        group, count = PUBLISHED[diagnosis.acronym]
        assert diagnosis.rhythm_class == group
        found[diagnosis.rhythm_class] += count
    assert found == TOTALS and sum(found.values()) == 10_646
    assert len(RHYTHM_DIAGNOSES) == len(PUBLISHED) == len({one.snomed for one in RHYTHM_DIAGNOSES})


def test_af_is_flutter_in_this_corpus() -> None:
    names = {one.acronym: (one.name, one.snomed) for one in RHYTHM_DIAGNOSES}
    assert names["AF"] == ("atrial flutter", "164890007")
    assert names["AFIB"] == ("atrial fibrillation", "164889003")


@pytest.mark.parametrize(
    ("codes", "classes"),
    [
        (["164890007"], ("AFIB",)),
        (["59118001", "427393009"], ("SR",)),
        (["427084000", "713422000"], ("GSVT",)),
        (["426783006", "426177001"], ("SB", "SR")),
        (["164934002"], ()),
        ([], ()),
    ],
)
def test_codes_name_classes(codes: list[str], classes: tuple[str, ...]) -> None:
    assert rhythm_classes(codes) == classes
