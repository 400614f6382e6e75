"""A model as an ExecuTorch program for phones, run in ExecuTorch before it gets its name."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import ExportError, ExporterWarning
from compressor.export.arguments import named_outputs, refuse_bfloat16, require_module, split_file
from compressor.export.checking import listing, run
from compressor.export.files.fidelity import Fidelity, Tally
from compressor.export.low_precision.accepting import STANDARD, Acceptance
from compressor.export.lowering import Program, example_sized, lowered, quantised
from compressor.export.writing import drafted
from compressor.runtimes.drafting import cpu_copy
from compressor.runtimes.examples import Example, Shape, bind
from compressor.runtimes.extras import require_executorch
from compressor.runtimes.sessions import largest_difference

__all__ = ["ExecutorchReport", "executorch"]

_TOLERANCES = {torch.float16: 1e-2}
_TOLERANCE = 1e-4
# A convolutional network is one delegate, a recurrent one a few at every step.
_MANY_DELEGATES = 8


@dataclass(frozen=True)
class ExecutorchReport:
    """What was written, and how near ExecuTorch came to torch on it.

    `delegates` are the pieces that XNNPACK runs, one where it takes the whole network; `left` are the
    operators between them, which run in ExecuTorch's own, slower kernels. `fidelity` was found on the
    calibration examples for int8; for float32 it is None, and `error` the largest difference, relative.
    """

    path: Path
    kind: str
    file_bytes: int
    inputs: Mapping[str, Shape]
    delegates: int
    left: tuple[str, ...]
    error: float | None = None
    fidelity: Fidelity | None = None

    def __str__(self) -> str:
        left = f", outside of them {', '.join(dict.fromkeys(self.left))}" if self.left else ""
        found = f"relative error {self.error:.0e}" if self.fidelity is None else str(self.fidelity)
        return (
            f"{self.path}: {self.kind}, {self.file_bytes:,} bytes, {listing(self.inputs)}; "
            f"{self.delegates} XNNPACK {'delegate' if self.delegates == 1 else 'delegates'}{left}\n"
            f"  ExecuTorch agrees: {found}"
        )


def executorch(
    model: nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    int8: Iterable[object] | None = None,
    max_examples: int = 128,
    tolerance: float | None = None,
    checks: Acceptance = STANDARD,
) -> ExecutorchReport:
    """Write `model` in eval mode as an ExecuTorch program and return how near it comes to the model.

    `args` are the example inputs, then the path: `executorch(model, x, "net.pte")`; keyword inputs go into
    `kwargs`. Sizes are fixed at those of the example. The program runs on XNNPACK, phones' CPU kernels. In
    float32 it has to agree with torch within `tolerance` (relative; default 1e-4, for half precision 1e-2).

    `int8` are calibration batches, as a DataLoader gives them: weights are then int8 per channel, activations
    int8 with the ranges seen on `max_examples` examples, in pieces of the example's batch (so give an example
    of batch 1); the file has to reach the two limits of `checks` on them.

    Raises ExportError where ExecuTorch cannot lower the model or run the program (3-D convolutions have no
    kernel), or its results differ; no file is written then. InputError for arguments that make no sense, or
    batches with NaN, MissingExtraError when executorch is absent. Gives an ExporterWarning where the
    program falls into many pieces, as recurrent networks do, and will be slow.

    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
    >>> report = cp.export.executorch(net, torch.rand(1, 3, 8, 8), "net.pte")  # doctest: +SKIP
    >>> print(report)                                                          # doctest: +SKIP
    net.pte: float32, 4,160 bytes, input [1, 3, 8, 8]; 1 XNNPACK delegate
      ExecuTorch agrees: relative error 1e-07
    """
    path, inputs = split_file(args, verb="executorch", suffix=".pte")
    require_module(model, verb="executorch")
    require_executorch()
    example = bind(model, inputs, kwargs or {})
    copy = cpu_copy(model)
    refuse_bfloat16(copy, example, runtime="ExecuTorch")
    expected = run(copy, example, "the example")
    calibration = None if int8 is None else example_sized(copy, example, int8, max_examples)
    program = lowered(copy if calibration is None else quantised(copy, example, calibration), example)
    with drafted(path) as draft, torch.random.fork_rng(devices=[]):
        draft.write_bytes(program.content)
        error, fidelity = None, None
        if calibration is None:
            error = _agreement(copy, example, expected, program, draft, tolerance)
        else:
            fidelity = _fidelity(copy, calibration, program, draft, checks)
    report = ExecutorchReport(
        path=path,
        kind="float32" if calibration is None else "int8",
        file_bytes=len(program.content),
        inputs=example.shapes,
        delegates=program.delegates,
        left=program.left,
        error=error,
        fidelity=fidelity,
    )
    _warn_of_pieces(report)
    return report


def _agreement(
    model: nn.Module,
    example: Example,
    expected: Sequence[Tensor],
    program: Program,
    draft: Path,
    tolerance: float | None,
) -> float:
    """The larger error at the example and at other values of its shape; ExportError where it is too large."""
    if tolerance is None:
        tolerance = max((_TOLERANCES.get(output.dtype, _TOLERANCE) for output in expected), default=0.0)
    second = example.reshaped(example.shapes)
    error = max(
        largest_difference(expected, program.run(draft, example)),
        largest_difference(run(model, second, "other values"), program.run(draft, second)),
    )
    if not error <= tolerance:
        raise ExportError(
            f"the program differs from torch by {error:.1e} (relative; allowed {tolerance:.0e}) at "
            f"{listing(example.shapes)}; no file was written. Please report it"
        )
    return error


def _fidelity(
    model: nn.Module, calibration: Sequence[Example], program: Program, draft: Path, checks: Acceptance
) -> Fidelity:
    """How near the program comes on the calibration examples; ExportError where that is not near enough."""
    tally = Tally(named_outputs(None, len(run(model, calibration[0], "a calibration batch"))))
    for example in calibration:
        expected, found = run(model, example, "a calibration batch"), program.run(draft, example)
        first = next(iter(example.tensors.values()))
        tally.add(
            [tensor.numpy() for tensor in expected],
            [tensor.numpy() for tensor in found],
            len(first) if first.dim() else 1,
        )
    fidelity = tally.fidelity
    if not checks.is_met_by(fidelity):
        raise ExportError(
            f"in int8 the program does not compute the same any more, on {fidelity.examples} calibration "
            f"examples: {fidelity}; asked were {checks}. No file was written. Calibrate on more examples, "
            f"keep float32, or ask for less: checks=Acceptance(...)"
        )
    return fidelity


def _warn_of_pieces(report: ExecutorchReport) -> None:
    if 0 < report.delegates < _MANY_DELEGATES:
        return
    warnings.warn(
        f"{report.path} runs in {report.delegates} pieces on XNNPACK, with {len(report.left)} operators "
        f"outside of them ({', '.join(list(dict.fromkeys(report.left))[:3])}, …), and will be slow, as "
        f"recurrent networks are there: measure it against export.onnx, which has operators for those",
        ExporterWarning,
        stacklevel=3,
    )
