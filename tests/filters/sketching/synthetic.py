"""Layers that are made when they are read, so that other processes can make the same ones."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compressor.filters.basis import Basis
from compressor.filters.sketching import SketchSetting
from compressor.filters.store.layer import Layer

KERNELS = 64 * 32


def basis_of(width: int = 9, *, seed: int = 0) -> Basis:
    generator = torch.Generator().manual_seed(seed)
    square = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return Basis(torch.full((width,), 0.01), torch.linalg.qr(square)[0], torch.full((width,), 1 / width))


def setting_of(width: int = 9, *, seed: int = 0) -> SketchSetting:
    return SketchSetting(basis_of(width, seed=seed))


def kernels_of(seed: int, count: int = KERNELS) -> Tensor:
    """Kernels with a dead filter, an exact zero, and much that is sparse at some of the thresholds."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((count, 9)) * 10.0 ** random.uniform(-3, 0, (count, 1))
    values[: count // 64] *= 1e-6
    values[count // 2] = 0
    return torch.from_numpy(values).float()


@dataclass(frozen=True)
class MadePart:
    place: int
    at_once: int = 1000
    fault: str = ""

    @property
    def layer(self) -> Layer:
        return Layer(
            self.place,
            f"model{self.place // 4}",
            "conv",
            KERNELS,
            layer_id=self.place % 4,
            out_channels=64,
            in_channels=32,
        )

    @property
    def peak(self) -> None:
        return None

    def chunks(self) -> Iterator[Tensor]:
        if self.fault == "wait":
            time.sleep(0.2)
        if self.fault == "raise":
            raise ZeroDivisionError("planted")
        if self.fault.startswith("die"):
            self._die(Path(self.fault.removeprefix("die")))
        values = kernels_of(self.place)
        if self.fault == "nan":
            values[7, 3] = torch.nan
        yield from values.split(self.at_once)

    def _die(self, once: Path) -> None:
        """The end of the process that reads; only the first time, where a file remembers that."""
        if not once.name or not once.exists():
            if once.name:
                once.touch()
            os._exit(9)


@dataclass(frozen=True)
class Made:
    parts: tuple[MadePart, ...]
    identity: str = "made"

    @classmethod
    def of(cls, layers: int, *, faults: dict[int, str] | None = None) -> Made:
        parts = [MadePart(place) for place in range(layers)]
        for place, fault in (faults or {}).items():
            parts[place] = replace(parts[place], fault=fault)
        return cls(tuple(parts))
