"""Recordings that passed, and those that did not with the reason: what every reader of many files returns."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compressor.data.ecg.diagnoses import RHYTHM_CLASSES, rhythm_classes
from compressor.data.ecg.quality import Fault, QualityLimits, signal_fault
from compressor.data.ecg.recordings import LEADS, Recording, Recordings
from compressor.errors import FileError, InputError

__all__ = ["Collection", "LeftOut", "collect", "fit_length"]

logger = logging.getLogger(__name__)
_NAMED = 5  # of each fault, in messages


@dataclass(frozen=True)
class LeftOut:
    """A recording that was not taken: its name or file, the fault, and what exactly."""

    name: str
    fault: Fault
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.fault.value} ({self.detail})"


@dataclass(frozen=True, eq=False, repr=False)
class Collection:
    """What was read: the `recordings`, what was `left_out` and why, and which were padded or cropped."""

    recordings: Recordings
    left_out: tuple[LeftOut, ...] = ()
    refitted: tuple[str, ...] = ()

    def __repr__(self) -> str:
        counts = Counter(one.fault.value for one in self.left_out)
        out = ", ".join(f"{count} {fault}" for fault, count in counts.items())
        return f"Collection({self.recordings}; left out: {out or 'none'}; {len(self.refitted)} refitted)"


def fit_length(recording: Recording, samples: int) -> Recording:
    """The recording with so many samples: its middle if it is longer, zeros after its end if it is shorter.

    >>> long = Recording(name="a", signals_mV=torch.arange(7.0).expand(12, 7), sampling_hz=500)
    >>> fit_length(long, 3).signals_mV[0], fit_length(long, 9).signals_mV[0, -3:]
    (tensor([2., 3., 4.]), tensor([6., 0., 0.]))
    """
    if samples < 1:
        raise InputError(f"fit_length: samples must be positive, got {samples}")
    signals = recording.signals_mV
    surplus = signals.shape[1] - samples
    if surplus >= 0:
        fitted = signals[:, surplus // 2 : surplus // 2 + samples]
    else:
        fitted = torch.nn.functional.pad(signals, (0, -surplus))
    return replace(recording, signals_mV=fitted)


def collect(
    read: Iterable[Recording | LeftOut],
    *,
    source: str,
    sampling_hz: int,
    samples: int,
    limits: QualityLimits | None = None,
    skip_broken: bool = False,
) -> Collection:
    """The recordings of one length, labelled with the rhythm class that their diagnoses name.

    Signals are judged by `signal_fault`, then padded or cropped by `fit_length`. Recordings of none or
    several of the four classes are always left out: they are sound but have no label. Broken ones are an
    error, once all are seen, so that one run names them all; with `skip_broken` they are left out and
    logged. Raises FileError for broken recordings and where nothing is left, InputError for a recording of
    another sampling rate than `sampling_hz`.
    """
    taken: list[Recording] = []
    labels: list[int] = []
    out: list[LeftOut] = []
    refitted: list[str] = []
    for one in read:
        verdict = one if isinstance(one, LeftOut) else _verdict(one, sampling_hz, limits)
        if isinstance(verdict, LeftOut):
            out.append(verdict)
            continue
        label, recording = verdict
        if recording.signals_mV.shape[1] != samples:
            refitted.append(recording.name)
        taken.append(fit_length(recording, samples))
        labels.append(label)
    _report(source, out, refitted, samples, skip_broken=skip_broken)
    if not taken:
        raise FileError(f"{source}: no recording is left, {_summary(out) or 'there are none'}")
    names = tuple(one.name for one in taken)
    recordings = Recordings(
        signals_mV=_stacked(taken, samples),
        labels=torch.tensor(labels),
        names=names,
        classes=RHYTHM_CLASSES,
        sampling_hz=sampling_hz,
    )
    return Collection(recordings, tuple(out), tuple(refitted))


def _stacked(taken: list[Recording], samples: int) -> Tensor:
    """The signals [N, 12, samples]; the list is emptied on the way, so that a corpus is not held twice."""
    signals = torch.empty(len(taken), len(LEADS), samples)
    for position in reversed(range(len(taken))):
        signals[position] = taken.pop().signals_mV
    return signals


def _verdict(
    one: Recording, sampling_hz: int, limits: QualityLimits | None
) -> tuple[int, Recording] | LeftOut:
    """The recording with its label, or why it has none."""
    if one.sampling_hz != sampling_hz:
        raise InputError(f"recording {one.name}: {one.sampling_hz} Hz among those of {sampling_hz} Hz")
    fault = signal_fault(one.signals_mV, sampling_hz=sampling_hz, limits=limits)
    if fault:
        return LeftOut(one.name, *fault)
    found = rhythm_classes(one.diagnoses)
    if len(found) == 1:
        return RHYTHM_CLASSES.index(found[0]), one
    if found:
        return LeftOut(one.name, Fault.SEVERAL_RHYTHMS, " ".join(found))
    return LeftOut(one.name, Fault.NO_RHYTHM, " ".join(one.diagnoses) or "no diagnosis")


def _report(
    source: str, out: Sequence[LeftOut], refitted: Sequence[str], samples: int, *, skip_broken: bool
) -> None:
    broken = [one for one in out if one.fault.broken]
    if broken and not skip_broken:
        raise FileError(
            f"{source}: {len(broken)} recordings are broken: {_summary(broken)}; mend them, or leave "
            "them out with skip_broken=True"
        )
    if out:
        logger.warning("%s: %d recordings left out: %s", source, len(out), _summary(out))
    if refitted:
        logger.warning(
            "%s: %d recordings were padded or cropped to %d samples: %s",
            *(source, len(refitted), samples, _first(refitted)),
        )


def _summary(out: Sequence[LeftOut]) -> str:
    """Each fault with its count and the first recordings that have it."""
    by_fault: dict[Fault, list[str]] = {}
    for one in out:
        by_fault.setdefault(one.fault, []).append(f"{one.name} ({one.detail})")
    return "; ".join(f"{len(names)} {fault.value}: {_first(names)}" for fault, names in by_fault.items())


def _first(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
