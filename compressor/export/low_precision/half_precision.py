"""ONNX files with weights in half precision: half the bytes, whatever the layers are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.export.files.feeds import read_feeds
from compressor.export.files.onnxruntime_tools import require_tools
from compressor.export.files.sources import Source, read_source
from compressor.export.low_precision.accepting import Acceptance, LowPrecisionReport, accepted

if TYPE_CHECKING:
    import onnx

__all__ = ["fp16"]

_CHECKS = Acceptance(min_sqnr_db=30.0)


def fp16(
    source: str | os.PathLike[str],
    examples: Iterable[object],
    path: str | os.PathLike[str],
    *,
    max_examples: int = 512,
    checks: Acceptance = _CHECKS,
) -> LowPrecisionReport:
    """Write `source` in half precision to `path`; return its size, fidelity on `examples`, and speed.

    Inputs and outputs stay float32. This halves the file of any network, 3-D and recurrent ones included. It
    is about size: x86 has no half-precision kernels and converts back and forth (0.6 to 1 times the speed),
    ARMv8.2 has. Raises ExportError where the file does not pass `checks` (30 dB by default), as when weights
    or activations exceed 65504, and then writes none; else the errors of `int8`.

    >>> import compressor as cp, torch
    >>> print(cp.export.fp16("net.onnx", [torch.rand(8, 3, 32, 32)], "net.fp16.onnx"))  # doctest: +SKIP
    net.fp16.onnx: fp16, 622,371 bytes, 53 % of net.onnx (1,165,234)
      on 8 given examples: output 64.2 dB SQNR, output top-1 agreement 100.0 %
      0.95x as fast (0.93-0.97 in 120 interleaved rounds), OnnxRuntime(threads=1, ...), CPU time of 1 thread
    """
    require_tools()
    file = read_source(source)
    file.require_float32("fp16")
    feeds = read_feeds(file, examples, "examples", max_examples=max_examples)
    return accepted(file, path, "fp16", lambda aside: _halved(file, aside), feeds, "given", checks)


def _halved(source: Source, aside: Path) -> onnx.ModelProto:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    proto: onnx.ModelProto = convert_float_to_float16(onnx.load(str(source.path)), keep_io_types=True)
    return proto
