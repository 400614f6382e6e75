"""Files in onnxruntime's own format (.ort), for its mobile builds, and what such a build has to hold."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import numpy as np

from compressor.errors import ExportError, InputError
from compressor.export.files.feeds import Feeds, count_of, read_feeds
from compressor.export.files.fidelity import Fidelity, Tally
from compressor.export.files.onnxruntime_tools import contained, require_tools
from compressor.export.files.sources import Source, read_source
from compressor.export.ort_mobile.fixed_shapes import fix_shapes
from compressor.export.ort_mobile.usability import Usability, usability
from compressor.runtimes.sessions import Optimization, Session

__all__ = ["OrtFile", "OrtReport", "OrtStyle", "ort"]

# Float kernels differ by rounding, as in the check of onnx(); integer ones by a step here and there.
_LEAST_DB = {False: 80.0, True: 25.0}
_LEAST_SAME = {False: 0.99, True: 0.8}  # of outputs in whole numbers; near ties may fall either way


class OrtStyle(Enum):
    """What is done before the file is saved; the names are onnxruntime's."""

    FIXED = "Fixed"
    RUNTIME = "Runtime"


@dataclass(frozen=True)
class OrtFile:
    """One .ort file, the list of operators and types that it needs, and how near it is to its source.

    FIXED files are optimised for the CPU already; RUNTIME files leave nodes as NNAPI and CoreML know them.
    What was saved for the other nodes is replayed where the session's entry
    session.enable_saved_runtime_optimizations is 1.
    """

    path: Path
    style: OrtStyle
    file_bytes: int
    required_operators: Path
    fidelity: Fidelity

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.file_bytes:,} bytes, style {self.style.value}, on {self.fidelity.examples} "
            f"examples: {self.fidelity}"
        )


@dataclass(frozen=True)
class OrtReport:
    """The .ort files made of `source`, and what NNAPI and CoreML would run of it (in `shapes` if given)."""

    source: Path
    source_bytes: int
    files: tuple[OrtFile, ...]
    usability: Usability

    def __str__(self) -> str:
        return "\n".join([*map(str, self.files), str(self.usability)])


def ort(
    source: str | os.PathLike[str],
    examples: Iterable[object],
    folder: str | os.PathLike[str],
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    max_examples: int = 32,
) -> OrtReport:
    """Write `source`, float32 or quantised, in onnxruntime's mobile format into `folder`.

    Converted by onnxruntime's convert_onnx_models_to_ort, for ARM: `net.ort` (style Fixed, for the CPU), and
    `net.required_operators_and_types.config`, what a build made for this file alone has to contain. With
    `shapes` [input name: sizes] also `net.fixed.onnx`, and, unless the verdict of NNAPI and CoreML is no,
    `net.fixed.with_runtime_opt.ort` with its own list (style Runtime, which those compilers ask for). Every
    .ort file is run in onnxruntime on `examples` and computes what `source` does: the difference is below a
    ten-thousandth of the output (80 dB), of quantised files 25 dB.

    Do not time .ort files on a desktop: the format holds no blocked layout (NCHWc), so that x86 runs them two
    to three times slower than the .onnx; on ARM both take equally many instructions. Unlike the other exports
    the bytes are not reproducible: onnxruntime writes nodes and attributes in an order that it draws anew.

    Raises ExportError where a file cannot be made or computes something else; what was in `folder` before is
    left then. InputError for examples or shapes that do not fit, FileError where `source` is no ONNX file.

    >>> import compressor as cp, torch
    >>> images = torch.rand(8, 3, 32, 32)
    >>> print(cp.export.ort("net.onnx", [images], "out", shapes={"x": (1, 3, 32, 32)}))  # doctest: +SKIP
    """
    require_tools()
    file = read_source(source)
    feeds = read_feeds(file, examples, "examples", max_examples=max_examples)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as aside:
            report = _made(file, feeds, Path(aside), shapes)
            for made in sorted(Path(aside).iterdir()):
                os.replace(made, folder / made.name)
    except OSError as error:
        raise ExportError(f"cannot write into {folder}: {error}") from error
    return replace(report, files=tuple(_moved(one, folder) for one in report.files))


def _made(
    source: Source, feeds: Sequence[Feeds], folder: Path, shapes: Mapping[str, Sequence[int]] | None
) -> OrtReport:
    """The report of the files made in an empty folder."""
    files = [_converted(source, source.path.stem, OrtStyle.FIXED, folder, source, feeds)]
    usable = usability(source.path)
    if shapes is not None:
        fixed = read_source(fix_shapes(source.path, shapes, folder / f"{source.path.stem}.fixed.onnx"))
        usable = usability(fixed.path)
        if usable.worth_a_try:
            few = [_cut_to(fixed, one) for one in feeds]
            files.append(_converted(fixed, fixed.path.stem, OrtStyle.RUNTIME, folder, source, few))
    return OrtReport(source.path, source.file_bytes, tuple(files), replace(usable, path=source.path))


def _converted(
    file: Source, stem: str, style: OrtStyle, folder: Path, source: Source, feeds: Sequence[Feeds]
) -> OrtFile:
    """`file` in .ort format and its list of operators, both in `folder`, checked against `source`."""
    suffix = ".with_runtime_opt" if style is OrtStyle.RUNTIME else ""
    path = folder / f"{stem}{suffix}.ort"
    operators = folder / f"{stem}.required_operators_and_types{suffix}.config"
    with tempfile.TemporaryDirectory(prefix="compressor-") as aside:
        # The converter makes a folder beside its input, and names its outputs after it.
        made = _convert(file, Path(aside) / f"{stem}.onnx", style)
        shutil.move(made / path.name, path)
        needed = (made / operators.name).read_text(encoding="utf-8").splitlines()
    kept = [line for line in needed if line and not line.startswith("#")]  # comments are paths
    operators.write_text("\n".join([f"# Generated from {path.name}", *kept, ""]), encoding="utf-8")
    tally = Tally(source.outputs)
    # A Fixed file holds the kernels that onnxruntime chooses here, a Runtime file the nodes of its source.
    like = Optimization.ALL if style is OrtStyle.FIXED else Optimization.NONE
    expected = Session(source.path, what=str(source.path), optimization=like)
    found = Session(path, what=path.name)
    for one in feeds:
        tally.add(expected.run_arrays(one), found.run_arrays(one), count_of(one))
    least, same = _LEAST_DB[source.is_quantised], _LEAST_SAME[source.is_quantised]
    real, whole = tally.fidelity.sqnr_db, tally.fidelity.agreement
    if not (all(db >= least for db in real.values()) and all(whole[n] >= same for n in whole.keys() - real)):
        raise ExportError(
            f"{path.name} does not compute what {source.path} does: {tally.fidelity}, expected {least:g} dB; "
            "no file was written. Please report it"
        )
    return OrtFile(path, style, path.stat().st_size, operators, tally.fidelity)


def _convert(file: Source, copy: Path, style: OrtStyle) -> Path:
    """The folder of what onnxruntime's converter makes of a copy of the file."""
    shutil.copyfile(file.path, copy)
    try:
        with contained():
            from onnxruntime.tools import convert_onnx_models_to_ort as converter

            converter.convert_onnx_models_to_ort(
                copy,
                copy.parent / "made",
                [converter.OptimizationStyle[style.value]],
                target_platform="arm",
                enable_type_reduction=True,
            )
    except OSError:
        raise
    except Exception as error:
        raise ExportError(f"onnxruntime cannot convert {file.path} to .ort: {error}") from error
    return copy.parent / "made"


def _cut_to(fixed: Source, feeds: Feeds) -> Feeds:
    """Examples of a batch, as many as the file's fixed batch axis takes."""
    cut = {}
    for name, array in feeds.items():
        shape = fixed.inputs[name]
        if shape and array.shape[1:] != shape[1:]:
            raise InputError(f"shapes gives {name!r} {list(shape)}, an example is {list(array.shape[1:])}")
        cut[name] = array[np.arange(shape[0]) % len(array)] if shape else array
    return cut


def _moved(file: OrtFile, folder: Path) -> OrtFile:
    return replace(
        file, path=folder / file.path.name, required_operators=folder / file.required_operators.name
    )
