"""How much of a model's outputs is left in a file that computes them less exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compressor.errors import ExportError

__all__ = ["Fidelity", "Tally", "decibels"]


@dataclass(frozen=True)
class Fidelity:
    """How far outputs are from those of the first file, on `examples` examples; by output name.

    `sqnr_db` is the power of the output over the power of the difference, in dB, of real outputs (20 dB: the
    difference is a tenth of the output; infinite: none). `agreement` is the share of examples with the same
    largest entry, of outputs [N, C] as classifiers have; of whole numbers the share that is equal.
    """

    examples: int
    sqnr_db: Mapping[str, float]
    agreement: Mapping[str, float]

    def __str__(self) -> str:
        parts = [f"{name} {value:.1f} dB SQNR" for name, value in self.sqnr_db.items()]
        parts += [f"{name} top-1 agreement {100 * value:.1f} %" for name, value in self.agreement.items()]
        return ", ".join(parts)


def decibels(signal: float, noise: float) -> float:
    """Signal over noise, both powers, in dB; infinite without noise, -infinite where that is no number.

    >>> decibels(100.0, 1.0), decibels(1.0, 0.0), decibels(1.0, float("nan"))
    (20.0, inf, -inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 and math.isfinite(noise) else -math.inf


class Tally:
    """Sums over batches of the outputs of two files; `fidelity` says what they amount to."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self._outputs = tuple(outputs)
        self._powers: dict[str, list[float]] = {}
        self._same: dict[str, list[int]] = {}
        self._examples = 0

    def add(
        self, expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]], examples: int
    ) -> None:
        """Take in one batch; raises ExportError where outputs differ in number or shape."""
        for name, a, b in zip(self._outputs, expected, found, strict=True):
            if a.shape != b.shape:
                raise ExportError(f"the output {name!r} is {list(b.shape)}, expected {list(a.shape)}")
            if np.issubdtype(a.dtype, np.floating):
                self._real(name, a.astype(np.float64), b.astype(np.float64))
            else:
                _add(self._same.setdefault(name, [0, 0]), int((a == b).sum()), a.size)
        self._examples += examples

    @property
    def fidelity(self) -> Fidelity:
        """What was found so far."""
        return Fidelity(
            self._examples,
            {name: decibels(*powers) for name, powers in self._powers.items()},
            {name: same / of for name, (same, of) in self._same.items()},
        )

    def _real(self, name: str, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
        # Where the first is not finite either, both have to be the same; else the noise is not a number.
        alike = ~np.isfinite(a) & ((a == b) | (np.isnan(a) & np.isnan(b)))
        with np.errstate(invalid="ignore"):
            signal, noise = np.where(alike, 0.0, a), np.where(alike, 0.0, a - b)
        _add(self._powers.setdefault(name, [0.0, 0.0]), float((signal**2).sum()), float((noise**2).sum()))
        if a.ndim == 2 and a.shape[1] > 1:
            same = int((a.argmax(axis=1) == b.argmax(axis=1)).sum())
            _add(self._same.setdefault(name, [0, 0]), same, len(a))


def _add(sums: list[Any], first: float, second: float) -> None:
    sums[0] += first
    sums[1] += second
