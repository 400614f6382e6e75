"""What a file in low precision has to hold before it gets its name, and the report of what it holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import CompressorError, ExportError, InputError, QuantisationWarning
from compressor.export.files.comparing import time_of
from compressor.export.files.feeds import Feeds, count_of, examples_of
from compressor.export.files.fidelity import Fidelity, Tally
from compressor.export.files.onnxruntime_tools import contained
from compressor.export.files.sources import Source, float_bytes, tidy_like
from compressor.export.writing import drafted
from compressor.profiling import Latency
from compressor.runtimes import OnnxRuntime
from compressor.runtimes.sessions import Optimization, Session

if TYPE_CHECKING:
    import onnx

__all__ = [
    "STANDARD",
    "Acceptance",
    "LowPrecisionReport",
    "accepted",
    "warn_if_no_gain",
    "warn_if_saturated",
]


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """What is asked of a file in low precision, and how its speed is measured.

    Every real output has to reach `min_sqnr_db` decibels and every output of classes `min_agreement` of the
    examples, else the export fails. Speed is taken on one example in `runtime`, in about `seconds`.

    >>> Acceptance(min_agreement=0.99).min_sqnr_db
    10.0
    """

    min_sqnr_db: float = 10.0
    min_agreement: float = 0.8
    runtime: OnnxRuntime = field(default_factory=OnnxRuntime)
    seconds: float = 2.0

    def is_met_by(self, found: Fidelity) -> bool:
        """Whether every output is as near as asked; a number that is none never is."""
        return all(value >= self.min_sqnr_db for value in found.sqnr_db.values()) and all(
            value >= self.min_agreement for value in found.agreement.values()
        )

    def __str__(self) -> str:
        return f"{self.min_sqnr_db:g} dB and {100 * self.min_agreement:g} %"

    def __post_init__(self) -> None:
        """Check the options."""
        if not 0 <= self.min_agreement <= 1:
            raise InputError(f"min_agreement is a share from 0 to 1, got {self.min_agreement!r}")
        if not self.min_sqnr_db < float("inf"):
            raise InputError(f"min_sqnr_db is a number of decibels, got {self.min_sqnr_db!r}")
        if not isinstance(self.runtime, OnnxRuntime) or not self.seconds > 0:
            raise InputError(
                f"runtime is an OnnxRuntime and seconds > 0, got {self.runtime}, {self.seconds!r}"
            )


STANDARD = Acceptance()


@dataclass(frozen=True)
class LowPrecisionReport:
    """A file in low precision beside the float32 file `source` that it was made of.

    `fidelity` was found on the examples that `judged_on` names, with the file computed node by node, as it is
    written, which is what ARM kernels amount to; `on_this_cpu` with the kernels that onnxruntime chooses
    here, whose integer sums saturate on x86 without VNNI. `latency` has the source first. `float_bytes` are
    bytes of weights that are float32 still.
    """

    path: Path
    kind: str
    file_bytes: int
    source: Path
    source_bytes: int
    float_bytes: int
    fidelity: Fidelity
    on_this_cpu: Fidelity
    judged_on: str
    latency: Latency

    @property
    def lost_on_this_cpu_db(self) -> float:
        """By how many dB the kernels chosen here are worse than the file, at the worst output."""
        both = self.fidelity.sqnr_db, self.on_this_cpu.sqnr_db
        # Equal ones first: of two infinities there is no difference.
        return max(
            (0.0 if a == b else a - b for a, b in zip(*(d.values() for d in both), strict=True)), default=0.0
        )

    @property
    def size_fraction(self) -> float:
        """Bytes of the file over bytes of its source."""
        return self.file_bytes / self.source_bytes

    def __str__(self) -> str:
        timing = self.latency.timings[1]
        here = f"  computed by this CPU: {self.on_this_cpu}\n" if self.lost_on_this_cpu_db > 3 else ""
        return (
            f"{self.path}: {self.kind}, {self.file_bytes:,} bytes, {100 * self.size_fraction:.0f} % of "
            f"{self.source} ({self.source_bytes:,})\n"
            f"  on {self.judged_on}: {self.fidelity}\n{here}"
            f"  {timing.speedup:.2f}x as fast ({timing.speedup_p10:.2f}-{timing.speedup_p90:.2f} in "
            f"{self.latency.rounds} interleaved rounds), {self.latency.runtime}, {self.latency.clock}"
        )


def accepted(
    source: Source,
    path: str | os.PathLike[str],
    kind: str,
    make: Callable[[Path], onnx.ModelProto],
    judged: Iterable[Feeds],
    judged_on: str,
    asked: Acceptance,
) -> LowPrecisionReport:
    """The report of the file that `make` makes in an empty folder, once it is accepted and lies at `path`.

    Raises ExportError where it cannot be made or written, or is not what was asked; then `path` is untouched.
    """
    path = _target(path, source)
    if not isinstance(asked, Acceptance):
        raise InputError(f"checks is an Acceptance, got {type(asked).__name__}")
    with drafted(path) as draft:
        proto = _made(source, kind, make, draft.parent)
        tidy_like(proto, source)
        draft.write_bytes(proto.SerializeToString(deterministic=True))
        fidelity, here, example = _judge(source, draft, kind, judged)
        _require(fidelity, asked, kind, source, judged_on)
        latency = time_of([source.path, draft], example, asked.runtime, asked.seconds)
    return LowPrecisionReport(
        path=path,
        kind=kind,
        file_bytes=path.stat().st_size,
        source=source.path,
        source_bytes=source.file_bytes,
        float_bytes=float_bytes(proto),
        fidelity=fidelity,
        on_this_cpu=here,
        judged_on=f"{fidelity.examples} {judged_on} examples",
        latency=latency,
    )


def warn_if_saturated(report: LowPrecisionReport) -> None:
    """Warn where the kernels of this CPU compute the file clearly worse than it is written."""
    if report.lost_on_this_cpu_db > 3:
        warnings.warn(
            f"this CPU computes {report.path.name} worse than it is written ({report.on_this_cpu}; as "
            f"written {report.fidelity}): sums of 8-bit products saturate on x86 without VNNI. ARM does not "
            "do so; on such servers run the float32 file",
            QuantisationWarning,
            stacklevel=3,
        )


def warn_if_no_gain(report: LowPrecisionReport) -> None:
    """Warn where the file is no smaller, or nine rounds of ten, so not just noise, took longer."""
    timing = report.latency.timings[1]
    found = []
    if report.size_fraction >= 1:
        found.append(f"no smaller ({report.file_bytes:,} bytes of {report.source_bytes:,})")
    if timing.speedup_p90 < 1:
        found.append(
            f"slower ({timing.speedup:.2f}x its speed, {timing.speedup_p10:.2f}-{timing.speedup_p90:.2f}, in "
            f"{report.latency.runtime} on this machine)"
        )
    if found:
        warnings.warn(
            f"{report.path.name} is {' and '.join(found)} than {report.source.name}, as files in "
            f"{report.kind} are where layers are narrow or kernels lacking; a phone may differ",
            QuantisationWarning,
            stacklevel=3,
        )


def _target(path: str | os.PathLike[str], source: Source) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path is that of the file to write, got {type(path).__name__}")
    path = Path(path)
    if path.resolve() == source.path.resolve():
        raise InputError(f"{path} is the source itself; the new file needs another name")
    return path


def _made(source: Source, kind: str, make: Callable[[Path], onnx.ModelProto], aside: Path) -> onnx.ModelProto:
    try:
        with contained():
            return make(aside)
    except (CompressorError, OSError):
        raise
    except Exception as error:
        raise ExportError(
            f"onnxruntime's tools cannot make {source.path} {kind}: {type(error).__name__}: {error}"
        ) from error


def _judge(
    source: Source, draft: Path, kind: str, judged: Iterable[Feeds]
) -> tuple[Fidelity, Fidelity, Feeds]:
    """How near the draft is to its source, as written and as this CPU computes it, and one example."""
    reference = Session(source.path, what=str(source.path))
    what = f"the {kind} file made of {source.path}"
    exact, here = Session(draft, what=what, optimization=Optimization.NONE), Session(draft, what=what)
    written, computed, example = Tally(source.outputs), Tally(source.outputs), None
    for feeds in judged:
        if example is None:
            example = examples_of(source, feeds, 1)
            for count in (1, 2):  # a free batch axis has to stay free
                small = examples_of(source, feeds, count)
                Tally(source.outputs).add(reference.run_arrays(small), here.run_arrays(small), count)
        expected = reference.run_arrays(feeds)
        written.add(expected, exact.run_arrays(feeds), count_of(feeds))
        computed.add(expected, here.run_arrays(feeds), count_of(feeds))
    assert example is not None, "loaded() raises where there is no batch"
    return written.fidelity, computed.fidelity, example


def _require(found: Fidelity, asked: Acceptance, kind: str, source: Source, judged_on: str) -> None:
    if not asked.is_met_by(found):
        raise ExportError(
            f"made {kind}, {source.path} does not compute the same any more, on {found.examples} {judged_on} "
            f"examples: {found}; asked were {asked}. "
            "No file was written. Calibrate on more examples like those the model will meet, keep float32, "
            "or ask for less: checks=Acceptance(min_sqnr_db=..., min_agreement=...)"
        )
