"""What a bundle holds and how its files compare, as a value to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from compressor.export.bench import BenchPage
from compressor.export.files.comparing import FileComparison
from compressor.export.low_precision.accepting import LowPrecisionReport
from compressor.export.onnx import OnnxReport
from compressor.export.ort_mobile.ort_format import OrtReport
from compressor.profiling import Gain
from compressor.tables import aligned, megabytes

__all__ = ["Bundle", "moved"]

T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """The folder that `export.mobile` wrote.

    `files` gives the bytes of each by its name in the folder. `onnx`, `int8` (None without calibration) and
    `ort` are the reports of the files, `page` is the bench page (None where none was asked for), `left_out`
    says why a file is not there that was asked for, `gain` what the smaller network has brought against the
    baseline (None without one; see `profiling.guard`). `comparison`
    holds the files side by side in onnxruntime on this machine, the baseline first where there is one.
    """

    folder: Path
    files: Mapping[str, int]
    onnx: OnnxReport
    int8: LowPrecisionReport | None
    ort: tuple[OrtReport, ...]
    page: BenchPage | None
    comparison: FileComparison
    left_out: Mapping[str, str]
    gain: Gain | None

    def __str__(self) -> str:
        rows = [[f"  {name}", megabytes(size)] for name, size in self.files.items() if "/" not in name]
        if self.page is not None:
            rows.append([f"  {self.page.path.parent.name}/", megabytes(self.page.page_bytes)])
        providers = [f"  {provider}" for provider in self.ort[0].usability.providers]
        gain = [] if self.gain is None else [f"pruning: {self.gain}"]
        left = [f"  no {name}: {why}" for name, why in self.left_out.items()]
        parts = [
            f"{self.folder}:",
            *aligned(rows),
            *left,
            str(self.comparison),
            *gain,
            "would run on phones:",
            *providers,
        ]
        return "\n".join(parts)


def moved(value: T, old: Path, new: Path) -> T:
    """The reports in `value` with their paths in `new` instead of `old`.

    >>> moved((Path("aside/net.onnx"), 3), Path("aside"), Path("out"))
    (PosixPath('out/net.onnx'), 3)
    """
    found: object = value
    if isinstance(value, Path):
        found = new / value.relative_to(old) if value.is_relative_to(old) else value
    elif isinstance(value, tuple) and type(value) is tuple:
        found = tuple(moved(item, old, new) for item in value)
    elif is_dataclass(value) and not isinstance(value, type):
        changes = {f.name: moved(getattr(value, f.name), old, new) for f in fields(value) if f.init}
        found = replace(value, **changes)
    return cast(T, found)
