"""Twelve-lead ECGs as values: one recording as it was read, and many of one length with their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import InputError

__all__ = ["LEADS", "Recording", "Recordings", "positions"]

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Recording:
    """One ECG: `signals_mV` is float32 [12, T], its rows in the order of `LEADS`, in millivolt.

    `diagnoses` are the codes its file names (SNOMED CT in the PhysioNet corpora). A sample that was not
    measured is NaN here: this is what a file holds. `Recordings` refuses it.
    """

    name: str
    signals_mV: Tensor
    sampling_hz: int
    diagnoses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = list(self.signals_mV.shape), self.signals_mV.dtype
        if len(shape) != 2 or shape[0] != len(LEADS) or not shape[1] or dtype != torch.float32:
            raise InputError(
                f"recording {self.name}: signals_mV must be float32 [12, T], one row for each of "
                f"{' '.join(LEADS)}, got {dtype} {shape}"
            )
        if self.sampling_hz < 1:
            raise InputError(f"recording {self.name}: sampling_hz must be positive, got {self.sampling_hz}")

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.signals_mV.shape[1] / self.sampling_hz

    def __repr__(self) -> str:
        return f"Recording({self.name}: 12 leads, {self.seconds:g} s at {self.sampling_hz} Hz)"


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Recordings:
    """ECGs of one length and sampling rate with the class of each, checked when they are made.

    `signals_mV` is float32 [N, 12, T], rows in the order of `LEADS`; `labels` int64 [N]; `names` names
    each recording, and `classes[label]` each class. `subjects`, int64 [N], numbers the persons where they
    are known: recordings of one person must not be on two sides of a split. Raises InputError for other
    shapes or types, a label without a class, two recordings of one name, and samples that are NaN or infinite
    (each recording named): they would spread over every window's spectrum.

    >>> two = Recordings(
    ...     signals_mV=torch.zeros(2, 12, 5000), labels=torch.tensor([0, 2]), names=("a", "b"),
    ...     classes=("SB", "AFIB", "GSVT", "SR"), sampling_hz=500,
    ... )
    >>> two
    Recordings(2 of 10 s at 500 Hz: 1 SB, 0 AFIB, 1 GSVT, 0 SR)
    >>> two.select([1]).names
    ('b',)
    """

    signals_mV: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]
    sampling_hz: int
    subjects: Tensor | None = None

    def __post_init__(self) -> None:
        _check_signals(self)
        _check_labels(self)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        seconds = self.signals_mV.shape[2] / self.sampling_hz
        counts = ", ".join(f"{count} {name}" for name, count in self.counts().items())
        return f"Recordings({len(self)} of {seconds:g} s at {self.sampling_hz} Hz: {counts})"

    def counts(self) -> dict[str, int]:
        """How many recordings each class has."""
        numbers = self.labels.bincount(minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, numbers, strict=True))

    def select(self, indices: Sequence[int] | Tensor) -> Recordings:
        """The recordings at these positions, in this order."""
        chosen = positions(indices, len(self))
        return Recordings(
            signals_mV=self.signals_mV[chosen.to(self.signals_mV.device)],
            labels=self.labels[chosen.to(self.labels.device)],
            names=tuple(self.names[index] for index in chosen.tolist()),
            classes=self.classes,
            sampling_hz=self.sampling_hz,
            subjects=None if self.subjects is None else self.subjects[chosen.to(self.subjects.device)],
        )

    def duplicates(self) -> tuple[tuple[str, ...], ...]:
        """The names of recordings whose samples are the same to the bit, one tuple for each such set."""
        sets: dict[bytes, list[str]] = {}
        for name, digest in zip(self.names, self.digests(), strict=True):
            sets.setdefault(digest, []).append(name)
        return tuple(tuple(names) for names in sets.values() if len(names) > 1)

    def digests(self) -> list[bytes]:
        """One fingerprint of the samples of each recording."""
        rows = self.signals_mV.detach().cpu().numpy()
        return [hashlib.sha256(row.tobytes()).digest() for row in rows]


def positions(indices: Sequence[int] | Tensor, count: int) -> Tensor:
    """The positions as int64 on the CPU; raises InputError for those beyond `count`, and for masks.

    >>> positions([2, 0], 3)
    tensor([2, 0])
    """
    chosen = torch.as_tensor(indices, device="cpu")
    if chosen.ndim != 1 or (len(chosen) and (chosen.dtype == torch.bool or chosen.is_floating_point())):
        raise InputError(
            f"takes positions as integers [n], got {chosen.dtype} {list(chosen.shape)}; "
            "the positions of a mask are mask.nonzero().flatten()"
        )
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < count:
        raise InputError(
            f"positions must lie in 0..{count - 1}, got {int(chosen.min())}..{int(chosen.max())}"
        )
    return chosen.to(torch.int64)


def _check_signals(value: Recordings) -> None:
    signals = value.signals_mV
    if signals.ndim != 3 or signals.shape[1] != len(LEADS) or not signals.shape[2]:
        raise InputError(
            f"Recordings: signals_mV must be [N, 12, T], leads in the order {' '.join(LEADS)}, "
            f"got {list(signals.shape)}"
        )
    if signals.dtype != torch.float32:
        raise InputError(
            f"Recordings: signals_mV must be float32 in millivolt, got {signals.dtype}; "
            "divide what a converter counted by its gain"
        )
    if value.sampling_hz < 1:
        raise InputError(f"Recordings: sampling_hz must be positive, got {value.sampling_hz}")
    if len(value.names) != len(signals):
        raise InputError(f"Recordings: {len(signals)} signals, but {len(value.names)} names")
    broken = (~signals.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise InputError(
            f"Recordings: {len(broken)} of {len(signals)} hold samples that are NaN or infinite, the first "
            f"{', '.join(value.names[index] for index in broken[:5])}; leave them out or fill them in before"
        )


def _check_labels(value: Recordings) -> None:
    count, classes = len(value.names), value.classes
    numbers = {"labels": value.labels, "subjects": value.subjects}
    for name, tensor in numbers.items():
        if tensor is not None and (tensor.dtype != torch.int64 or tensor.shape != (count,)):
            raise InputError(
                f"Recordings: {name} must be int64 [{count}], got {tensor.dtype} {list(tensor.shape)}"
            )
    if count and not 0 <= int(value.labels.min()) <= int(value.labels.max()) < len(classes):
        raise InputError(
            f"Recordings: labels must lie in 0..{len(classes) - 1} ({', '.join(classes)}), "
            f"got {int(value.labels.min())}..{int(value.labels.max())}"
        )
    if len(set(value.names)) < count:
        twice = next(name for name in value.names if value.names.count(name) > 1)
        raise InputError(f"Recordings: two recordings are named {twice}; give each its own name")
