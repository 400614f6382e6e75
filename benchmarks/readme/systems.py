"""The README's lines of the four systems."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.readme.statement import Content, percent, row_of

__all__ = ["clutter", "ecg", "espcn", "faces"]


def ecg(content: Content) -> Iterable[str]:
    """Rhythms, one line."""
    rows = content["rows"]
    whole, half, fifth = (
        row_of(rows, network=n) for n in ("original", *(f"{p}% of the MACs" for p in (50, 20)))
    )
    right = [percent(float(row["records"].split()[0])) for row in (whole, half, fifth)]
    faster = [row["speedup"].split()[0] for row in (half, fifth)]
    people = content["facts"]["options"]["test_records"]
    yield (
        f"| ECG rhythms, CNN-LSTM (simulated, {people:,} people) | {right[0]} % of recordings | {right[1]} % "
        f"with 50 % of the MACs, {right[2]} % with 20 % | {faster[0]}, {faster[1]} faster |"
    )


def espcn(content: Content) -> Iterable[str]:
    """Super-resolution, one line."""
    rows = content["rows"]
    whole, longer, small = (next(row for row in rows if row["network"].startswith(n)) for n in _ESPCN)
    faster = small["ms"].split(", ")[1].split()[0]
    yield (
        f"| ESPCN, x3 on Set5 | {whole['Set5, dB']} dB; {longer['Set5, dB']} dB trained as long | "
        f"{small['Set5, dB']} dB with 30 % | {faster} |"
    )


_ESPCN = ("ESPCN", "ESPCN, trained on", "30% of the MACs")


def clutter(content: Content) -> Iterable[str]:
    """Echocardiograms, one line."""
    names = ("cluttered", "ours", "ours, 50% of the MACs")
    cluttered, ours, half = (row_of(content["rows"], sequence=f"Toshiba: {name}") for name in names)
    yield (
        f"| clutter filter, vendor held out | error {cluttered['MAE']:.2f} -> {ours['MAE']:.2f} grey levels "
        f"| {half['MAE']:.2f} with 50 % | {half['faster']:.2f}x |"
    )


def faces(content: Content) -> Iterable[str]:
    """Restored faces, one line."""
    names = ("original", "uncut, trained on", "50% of the MACs", "35% of the MACs")
    rows = [row_of(content["rows"], PMRF=name) for name in names]
    mse = [f"{row['MSE']:.4f}" for row in rows]
    yield (
        f"| PMRF on faces, both stages, {content['facts']['k']} steps | MSE {mse[0]}; {mse[1]} trained as "
        f"long | {mse[2]} with 50 %, {mse[3]} with 35 %, Fréchet distance as before | {rows[2]['faster']}, "
        f"{rows[3]['faster']} |"
    )
