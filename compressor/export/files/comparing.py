"""Several ONNX files of one network side by side: bytes, agreement, accuracy, speed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import ExportError, InputError
from compressor.export.files.feeds import Feeds, count_of, examples_of, feeds_of
from compressor.export.files.fidelity import Fidelity, Tally
from compressor.export.files.onnxruntime_tools import require_tools
from compressor.export.files.sources import Source, read_source
from compressor.profiling import Latency, measure_latency
from compressor.runtimes import OnnxRuntime
from compressor.runtimes.sessions import Session
from compressor.tables import aligned

__all__ = ["FileComparison", "FileRow", "compare_files", "time_of"]


@dataclass(frozen=True)
class FileRow:
    """One file: its bytes, how near its outputs are to those of the first file, its share of right classes.

    `accuracy` is None where the batches hold no class labels.
    """

    path: Path
    file_bytes: int
    fidelity: Fidelity
    accuracy: float | None


@dataclass(frozen=True)
class FileComparison:
    """A row and, in `latency`, a timing for each file; the first file is what all are held against."""

    rows: tuple[FileRow, ...]
    latency: Latency

    def __str__(self) -> str:
        lines = aligned([self._head(), *(self._cells(number) for number in range(len(self.rows)))])
        found = self.latency
        return "\n".join(
            [
                *lines,
                f"against the first file, on {self.rows[0].fidelity.examples} examples (lowest output); "
                f"speed on one: {found.runtime}, {found.clock}, {found.rounds} interleaved rounds (10-90 %)",
            ]
        )

    def _head(self) -> list[str]:
        accuracy = ["accuracy"] if self.rows[0].accuracy is not None else []
        return ["file", "bytes", "size", "SQNR dB", "top-1 agreement", *accuracy, "ms", "speed-up", "range"]

    def _cells(self, number: int) -> list[str]:
        row, first, timing = self.rows[number], self.rows[0], self.latency.timings[number]
        noise, same = row.fidelity.sqnr_db.values(), row.fidelity.agreement.values()
        return [
            row.path.name,
            f"{row.file_bytes:,}",
            f"{100 * row.file_bytes / first.file_bytes:.0f} %",
            f"{min(noise):.1f}" if noise else "-",
            f"{100 * min(same):.1f} %" if same else "-",
            *([] if row.accuracy is None else [f"{100 * row.accuracy:.1f} %"]),
            f"{timing.ms:.3f}",
            f"{timing.speedup:.2f}x",
            f"{timing.speedup_p10:.2f}-{timing.speedup_p90:.2f}",
        ]


def compare_files(
    files: Sequence[str | os.PathLike[str]],
    batches: Iterable[object],
    *,
    runtime: OnnxRuntime | None = None,
    seconds: float = 2.0,
) -> FileComparison:
    """Bytes, agreement, accuracy and speed of ONNX files with the same inputs; `str()` is a table.

    The first file is what the others are held against, so `[base, pruned, pruned_int8]` shows what pruning
    and quantising did together. All of `batches` is run in every file; where the target in a batch is a class
    number for each example, the first output's accuracy is given. Speed is that of one example, interleaved,
    in `runtime` (default `OnnxRuntime()`). Outputs, too, are those of the kernels that onnxruntime chooses on
    this machine. Raises FileError or InputError for what is no ONNX file, files whose inputs or outputs have
    other names, and batches that do not fit.

    >>> import compressor as cp, torch
    >>> files, images = ["base.onnx", "small.onnx", "small.int8.onnx"], torch.rand(64, 3, 32, 32)
    >>> print(cp.export.compare_files(files, images.split(16)))  # doctest: +SKIP
    """
    require_tools()
    if isinstance(files, str | os.PathLike) or not files:
        raise InputError("compare_files needs a list of one or more ONNX files")
    sources = [read_source(file) for file in files]
    for source in sources[1:]:
        _require_alike(sources[0], source)
    sessions = [Session(source.path, what=str(source.path)) for source in sources]
    tallies, correct, example = [Tally(sources[0].outputs) for _ in sources], _Correct(len(sources)), None
    for feeds, target in feeds_of(sources[0], batches, "batches"):
        outputs = [session.run_arrays(feeds) for session in sessions]
        for source, tally, found in zip(sources, tallies, outputs, strict=True):
            try:
                tally.add(outputs[0], found, count_of(feeds))
            except ExportError as error:
                raise InputError(
                    f"{source.path} and {sources[0].path} are not of one network: {error}"
                ) from error
        correct.add(target, [torch.from_numpy(found[0]) for found in outputs])
        example = example or examples_of(sources[0], feeds, 1)
    assert example is not None, "loaded() raises where there is no batch"
    return FileComparison(
        tuple(
            FileRow(source.path, source.file_bytes, tally.fidelity, accuracy)
            for source, tally, accuracy in zip(sources, tallies, correct.shares, strict=True)
        ),
        time_of([source.path for source in sources], example, runtime or OnnxRuntime(), seconds),
    )


def time_of(files: list[Path], example: Feeds, runtime: OnnxRuntime, seconds: float) -> Latency:
    """The latencies of files on the arrays of one example."""
    tensors = {name: torch.from_numpy(array) for name, array in example.items()}
    return measure_latency(files, (), tensors, runtime=runtime, seconds=seconds)


class _Correct:
    """How many classes each file named right; nothing where a batch has no class numbers."""

    def __init__(self, files: int) -> None:
        self._right, self._of, self._known = [0] * files, 0, True

    def add(self, target: object, outputs: Sequence[Tensor]) -> None:
        self._known &= (
            isinstance(target, Tensor)
            and target.dim() == 1
            and not (target.is_floating_point() or target.is_complex())
            and all(output.dim() == 2 and len(output) == len(target) for output in outputs)
        )
        if self._known:
            assert isinstance(target, Tensor)
            named = [output.argmax(dim=1) for output in outputs]
            self._right = [n + int((c == target).sum()) for n, c in zip(self._right, named, strict=True)]
            self._of += len(target)

    @property
    def shares(self) -> list[float | None]:
        return [n / self._of if self._known and self._of else None for n in self._right]


def _require_alike(first: Source, other: Source) -> None:
    mine, theirs = (list(first.inputs), first.outputs), (list(other.inputs), other.outputs)
    if mine != theirs:
        raise InputError(
            f"{other.path} has the inputs and outputs {', '.join(theirs[0])} -> {', '.join(theirs[1])}, "
            f"{first.path} {', '.join(mine[0])} -> {', '.join(mine[1])}; they are not of one network"
        )
