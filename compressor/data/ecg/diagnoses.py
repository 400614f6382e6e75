"""Which diagnoses make up the four rhythm classes: the SNOMED CT codes that WFDB headers hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["RHYTHM_CLASSES", "RHYTHM_DIAGNOSES", "Diagnosis", "rhythm_classes"]

RHYTHM_CLASSES = ("SB", "AFIB", "GSVT", "SR")


@dataclass(frozen=True)
class Diagnosis:
    """One rhythm: its acronym in the corpus of Chapman, Shaoxing and Ningbo, name, code, and class."""

    acronym: str
    name: str
    snomed: str
    rhythm_class: str


# The acronyms are the corpus's own (ConditionNames_SNOMED-CT.csv): AF is *flutter* there, AFIB fibrillation,
# while PhysioNet's challenges of 2020 and 2021 write AF for fibrillation and AFL for flutter. So codes are
# compared, never acronyms.
RHYTHM_DIAGNOSES = (
    Diagnosis("SB", "sinus bradycardia", "426177001", "SB"),
    Diagnosis("AFIB", "atrial fibrillation", "164889003", "AFIB"),
    Diagnosis("AF", "atrial flutter", "164890007", "AFIB"),
    Diagnosis("SVT", "supraventricular tachycardia", "426761007", "GSVT"),
    Diagnosis("AT", "atrial tachycardia", "713422000", "GSVT"),
    Diagnosis("SAAWR", "sinus atrium to atrial wandering rhythm", "195101003", "GSVT"),
    Diagnosis("ST", "sinus tachycardia", "427084000", "GSVT"),
    Diagnosis("AVNRT", "atrioventricular node reentrant tachycardia", "233896004", "GSVT"),
    Diagnosis("AVRT", "atrioventricular reentrant tachycardia", "233897008", "GSVT"),
    Diagnosis("SR", "sinus rhythm", "426783006", "SR"),
    Diagnosis("SI", "sinus irregularity", "427393009", "SR"),
)
_CLASS_OF = {diagnosis.snomed: diagnosis.rhythm_class for diagnosis in RHYTHM_DIAGNOSES}


def rhythm_classes(codes: Iterable[str]) -> tuple[str, ...]:
    """The classes of the four that these SNOMED CT codes name, in the order of `RHYTHM_CLASSES`.

    One class is a label. None (codes of other findings only) and several (fibrillation beside sinus rhythm)
    are none: readers leave such recordings out and name them. Two rhythms of one class, as sinus and atrial
    tachycardia, are one class.

    *Source: J. Zheng, J. Zhang, S. Danioko, H. Yao, H. Guo, C. Rakovski 2020, "A 12-lead electrocardiogram
    database for arrhythmia research covering more than 10,000 patients", Scientific Data 7, 48.*

    >>> rhythm_classes(["164889003", "59118001"])  # fibrillation, right bundle branch block
    ('AFIB',)
    >>> rhythm_classes(["426783006", "427084000"])  # sinus rhythm, sinus tachycardia
    ('GSVT', 'SR')
    """
    found = {_CLASS_OF[code] for code in codes if code in _CLASS_OF}
    return tuple(name for name in RHYTHM_CLASSES if name in found)
