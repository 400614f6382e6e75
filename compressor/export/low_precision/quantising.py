"""ONNX files in 8-bit integers: with ranges measured on examples, or found anew in every run."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import ExportError, QuantisationWarning
from compressor.export.files.feeds import Feeds, feeds_of, read_feeds, refuse_constant
from compressor.export.files.onnxruntime_tools import require_tools
from compressor.export.files.sources import Source, float_bytes, read_source
from compressor.export.low_precision.accepting import (
    STANDARD,
    Acceptance,
    LowPrecisionReport,
    accepted,
    warn_if_no_gain,
    warn_if_saturated,
)

if TYPE_CHECKING:
    import onnx

__all__ = ["dynamic_int8", "int8", "why_slower"]

_DYNAMIC = ("MatMul", "Gemm", "LSTM")  # not Conv: its dynamic kernel takes several times as long as float32


def int8(
    source: str | os.PathLike[str],
    calibration: Iterable[object],
    path: str | os.PathLike[str],
    *,
    held_out: Iterable[object] | None = None,
    max_examples: int = 512,
    checks: Acceptance = STANDARD,
    even_if_slower: bool = False,
) -> LowPrecisionReport:
    """Write the float32 file `source` in 8-bit integers to `path`; return its size, fidelity and speed.

    For networks of convolutions and dense layers: onnxruntime's static quantisation in QDQ form, weights
    int8 per output channel, activations uint8 with the ranges that they have on `calibration`, batches as a
    DataLoader gives them of which the inputs of `max_examples` examples are read. Same inputs give the same
    bytes. Free axes and metadata stay as they are. The file is judged on all of `held_out` where given,
    else on what it was calibrated on, and as it is written: x86 without VNNI computes it worse than ARM does.

    Raises ExportError where the file does not pass `checks` or cannot be written, and for 3-D convolutions,
    which have no int8 kernel (0.2 to 0.4 times the speed was measured), unless `even_if_slower`; no file is
    written then. InputError for batches that do not fit, hold NaN or one value only, and a source that is
    quantised already; FileError where it is no ONNX file. Gives a QuantisationWarning where the file is
    measured slower (narrow networks are) or no smaller, again unless `even_if_slower`, where most weights are
    float32 still, and where this CPU's kernels saturate.

    >>> import compressor as cp, torch
    >>> images = torch.rand(64, 3, 32, 32)
    >>> print(cp.export.int8("net.onnx", images.split(16), "net.int8.onnx"))  # doctest: +SKIP
    net.int8.onnx: int8, 368,293 bytes, 32 % of net.onnx (1,165,234)
      on 64 calibration examples: output 31.0 dB SQNR, output top-1 agreement 100.0 %
      1.65x as fast (1.61-1.70 in 120 interleaved rounds), OnnxRuntime(threads=1, ...), CPU time of 1 thread
    """
    require_tools()
    file = read_source(source)
    file.require_float32("int8")
    slower = None if even_if_slower else why_slower(file)
    if slower is not None:
        raise ExportError(
            f"no int8 of {file.path}: {slower}. For a smaller file take fp16(), or say even_if_slower=True"
        )
    feeds = read_feeds(file, calibration, "calibration", max_examples=max_examples)
    refuse_constant(feeds, "calibration")
    judged, name = _judged_on(file, feeds, "calibration", held_out)
    report = accepted(file, path, "int8", lambda aside: _static(file, feeds, aside), judged, name, checks)
    _warn_of_floats(file, report, "static int8 leaves recurrent layers alone; dynamic_int8() takes LSTMs")
    warn_if_saturated(report)
    if not even_if_slower:
        warn_if_no_gain(report)
    return report


def dynamic_int8(
    source: str | os.PathLike[str],
    examples: Iterable[object],
    path: str | os.PathLike[str],
    *,
    max_examples: int = 512,
    checks: Acceptance = STANDARD,
    even_if_slower: bool = False,
) -> LowPrecisionReport:
    """Write `source` with its LSTM and dense weights in int8 to `path`; return its size, fidelity and speed.

    For networks whose weights are mostly in LSTMs and dense layers, which onnxruntime's dynamic quantisation
    takes (MatMul, Gemm, LSTM): ranges of activations are found in every run, so nothing is calibrated, and
    `examples` only serve to judge the file. Convolutions stay float32. The graph is slimmed first, as LSTM
    weights are not seen otherwise. Errors and warnings are those of `int8`.

    >>> import compressor as cp, torch
    >>> windows = torch.rand(64, 9, 128)
    >>> print(cp.export.dynamic_int8("ecg.onnx", [windows], "ecg.int8.onnx"))  # doctest: +SKIP
    ecg.int8.onnx: dynamic int8, 317,120 bytes, 43 % of ecg.onnx (744,294)
      on 64 given examples: output 38.1 dB SQNR
      1.91x as fast (1.85-1.96 in 120 interleaved rounds), OnnxRuntime(threads=1, ...), CPU time of 1 thread
    """
    require_tools()
    file = read_source(source)
    file.require_float32("dynamic int8")
    feeds = read_feeds(file, examples, "examples", max_examples=max_examples)
    report = accepted(file, path, "dynamic int8", lambda aside: _dynamic(file, aside), feeds, "given", checks)
    _warn_of_floats(file, report, "dynamic int8 leaves convolutions alone; int8() takes them")
    if not even_if_slower:
        warn_if_no_gain(report)
    return report


def _judged_on(
    source: Source, own: Sequence[Feeds], name: str, held_out: Iterable[object] | None
) -> tuple[Iterable[Feeds], str]:
    """The batches that a file is judged on, and what to call them."""
    if held_out is None:
        return own, name
    return (feeds for feeds, _ in feeds_of(source, held_out, "held_out")), "held-out"


def _static(source: Source, feeds: Sequence[Feeds], aside: Path) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared, written = aside / "prepared.onnx", aside / "quantised.onnx"
    quant_pre_process(str(source.path), str(prepared))
    quantize_static(
        str(prepared),
        str(written),
        _reader(feeds),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    proto = onnx.load(str(written))
    _require_integers(proto, source, "a convolution or dense layer; for LSTMs there is dynamic_int8")
    return proto


def _dynamic(source: Source, aside: Path) -> onnx.ModelProto:
    import onnx
    import onnxslim
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    slim, written = onnxslim.slim(onnx.load(str(source.path))), aside / "quantised.onnx"
    add_pre_process_metadata(slim)  # else onnxruntime advises to do so
    quantize_dynamic(slim, str(written), op_types_to_quantize=list(_DYNAMIC), weight_type=QuantType.QInt8)
    proto = onnx.load(str(written))
    _require_integers(proto, source, "a dense layer or LSTM; for convolutions there is int8")
    return proto


def _reader(feeds: Sequence[Feeds]) -> object:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> Feeds | None:
            return next(self._left, None)

    return Reader()


def _require_integers(proto: onnx.ModelProto, source: Source, wanted: str) -> None:
    from onnx import TensorProto

    integers = (TensorProto.INT8, TensorProto.UINT8)
    if not any(weight.data_type in integers and len(weight.dims) > 1 for weight in proto.graph.initializer):
        raise ExportError(f"nothing in {source.path} can be quantised: it has no weights of {wanted}")


def why_slower(source: Source) -> str | None:
    """Why `source` would run slower in int8; None where nothing is known that says so."""
    weights = {weight.name: tuple(weight.dims) for weight in source.proto.graph.initializer}
    volumes = [
        node.name or node.output[0]
        for node in source.proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose") and len(weights.get(node.input[1], ())) == 5
    ]
    if not volumes:
        return None
    return (
        f"it has {len(volumes)} 3-D convolutions ({volumes[0]} first), for which onnxruntime has no int8 "
        "kernels: the file would be two to five times slower"
    )


def _warn_of_floats(source: Source, report: LowPrecisionReport, advice: str) -> None:
    left = report.float_bytes / max(float_bytes(source.proto), 1)
    if left > 0.5:
        warnings.warn(
            f"{100 * left:.0f} % of the weight bytes of {source.path.name} are float32 still in "
            f"{report.path.name}: {advice}",
            QuantisationWarning,
            stacklevel=3,
        )
