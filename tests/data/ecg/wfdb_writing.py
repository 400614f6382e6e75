"""WFDB files for tests, written byte by byte as the arrhythmia corpus has them (not by the wfdb library)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
Counts = npt.NDArray[np.integer]


def counts(seed: int = 0, samples: int = 5000, leads: int = 12) -> Counts:
    """Noise that no limit of quality objects to."""
    return np.random.default_rng(seed).integers(-900, 900, (leads, samples)).astype(np.int16)


def matlab_4(signals: Counts) -> bytes:
    """A MATLAB level-4 file: five integers, the name, then int16 in column-major order."""
    leads, samples = signals.shape
    header = struct.pack("<5i", 30, leads, samples, 0, 4)
    return header + b"val\x00" + signals.astype("<i2").tobytes(order="F")


def write(
    folder: Path,
    name: str,
    signals: Counts,
    *,
    codes: str = "426177001,59118001",
    leads: Sequence[str] = LEADS,
    hz: object = 500,
    gain: str = "1000/mV",
    sums: Sequence[int] | None = None,
    data: bytes | None = None,
) -> Path:
    """A header and its .mat; the path of the header."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} {len(leads)} {hz} {signals.shape[1]}"]
    for row, lead in enumerate(leads):
        total = int(signals[row].astype(np.int64).sum()) if sums is None else sums[row]
        checksum = (total + 32768) % 65536 - 32768  # the low 16 bits, signed
        lines.append(f"{name}.mat 16+24 {gain} 16 0 {signals[row, 0]} {checksum} 0 {lead}")
    lines += ["#Age: 59", "#Sex: Female", f"#Dx: {codes}"]
    header = folder / f"{name}.hea"
    header.write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mat").write_bytes(matlab_4(signals) if data is None else data)
    return header
