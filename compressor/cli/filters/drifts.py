"""A drift as a row of a table, and as plain data."""

from __future__ import annotations

from compressor.filters import Drift

__all__ = ["HEAD", "cells", "plain"]

HEAD = ["before", "after", "D", "noise", "up to", ""]


def cells(found: Drift) -> list[str]:
    """The columns of `HEAD`."""
    return [
        *(f"{count:,}" for count in found.counts),
        f"{found.value:.4f}",
        f"{found.noise.expected:.4f}",
        f"{found.noise.high:.4f}",
        "above noise" if found.above_noise else "within noise",
    ]


def plain(found: Drift) -> dict[str, object]:
    """The same ready for JSON."""
    return {
        "drift": found.value,
        "noise": found.noise.expected,
        "noise_up_to": found.noise.high,
        "above_noise": found.above_noise,
        "kernels": list(found.counts),
        "zeros": list(found.zeros),
        "basis": found.basis,
    }
