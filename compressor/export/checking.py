"""The proof of an exported file: onnxruntime against torch, at two shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.core.tape import output_tensors
from compressor.errors import ExportError
from compressor.runtimes.examples import Example, Shape
from compressor.runtimes.onnx_graph import Dims, correct_outputs, dims_of, opset_of
from compressor.runtimes.sessions import Session, largest_difference

__all__ = ["Agreement", "check_draft", "listing", "run"]

# Relative to the largest output. Two kernels differ by rounding, a wrong operator by far more.
_TOLERANCES = {torch.float16: 1e-2}
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """The shapes at which a file was run, and how far its outputs were from torch (relative)."""

    shapes: Mapping[str, Shape]
    error: float
    second_shapes: Mapping[str, Shape]
    second_error: float


def check_draft(
    model: nn.Module,
    example: Example,
    axes: Mapping[str, Sequence[int]],
    draft: Path,
    opset: int,
    tolerance: float | None,
) -> Agreement:
    """How well onnxruntime agrees with torch on the file `draft`, whose output sizes are put right.

    Raises ExportError where they differ by more than `tolerance`, an axis is not free, or the opset is
    another one.
    """
    import onnx as onnx_format

    proto = onnx_format.load(str(draft))
    if opset_of(proto) != opset:
        raise ExportError(
            f"opset {opset} was asked and torch wrote {opset_of(proto)}: it cannot do that opset"
        )
    inputs = {value.name: dims_of(value) for value in proto.graph.input}
    _require_free(axes, inputs, example)
    runtime = Session(draft, what=f"the export of {type(model).__name__}")
    outputs = run(model, example, "the example")
    if tolerance is None:
        tolerance = max((_TOLERANCES.get(output.dtype, _TOLERANCE) for output in outputs), default=0.0)
    error = _error(runtime, example, outputs, tolerance)
    second, second_outputs = _second(model, example, inputs)
    second_error = _error(runtime, second, second_outputs, tolerance)
    _require_odd_sizes(model, example, inputs, runtime, tolerance)
    sizes = {
        dim: (example.shapes[name][axis], second.shapes[name][axis])
        for name, dims in inputs.items()
        for axis, dim in enumerate(dims)
        if isinstance(dim, str)
    }
    if correct_outputs(proto.graph, sizes, outputs, second_outputs):
        onnx_format.save(proto, str(draft))
    return Agreement(example.shapes, error, second.shapes, second_error)


def _require_free(axes: Mapping[str, Sequence[int]], inputs: Mapping[str, Dims], example: Example) -> None:
    """The exporter fixes an axis without a word when the model does not let it vary."""
    for name, wanted in axes.items():
        if name not in inputs:
            raise ExportError(f"the input {name!r} did not arrive in the file, which has {', '.join(inputs)}")
        for axis in wanted:
            size = inputs[name][axis]
            if isinstance(size, int):
                raise ExportError(
                    f"axis {axis} of the input {name!r} {list(example.shapes[name])} was to stay "
                    f"free and became fixed at {size}: the model computes with that size. Leave it "
                    f"out of `dynamic`, or let forward take sizes from its input's shape"
                )


def _error(runtime: Session, example: Example, outputs: Sequence[Tensor], tolerance: float) -> float:
    error = largest_difference(outputs, runtime.run(example.tensors))
    if not error <= tolerance:
        raise ExportError(
            f"the exported model differs from torch by {error:.1e} (relative; allowed "
            f"{tolerance:.0e}) at {listing(example.shapes)}; no file was written. For a model in half "
            f"precision raise `tolerance`; where forward decides by sizes, leave their axes out of "
            f"`dynamic`; otherwise please report it"
        )
    return error


def _second(model: nn.Module, example: Example, inputs: Mapping[str, Dims]) -> tuple[Example, list[Tensor]]:
    """Inputs in which every free axis has another size than in the example, and their outputs.

    A batch grows by one where the model accepts that; the other axes are doubled, which keeps them
    divisible by what strides and poolings need.
    """
    failure: ExportError | None = None
    for added, factor in ((1, 2), (0, 2), (0, 3)):
        second = _resized(example, inputs, partial(_grown, added, factor))
        try:
            return second, run(model, second, "a second shape")
        except ExportError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _grown(added: int, factor: int, axis: int, size: int) -> int:
    return size + added if axis == 0 and added else size * factor


def _require_odd_sizes(
    model: nn.Module, example: Example, inputs: Mapping[str, Dims], runtime: Session, tolerance: float
) -> None:
    """Run the file at odd sizes of free axes behind the batch, where the model takes such sizes.

    A forward that pads to multiples of eight decides by the size. The exporters keep that decision as it
    was, and doubled sizes would not show it.
    """
    odd = _resized(example, inputs, lambda axis, size: 2 * size + 1 if axis else size)
    if odd.shapes == example.shapes:
        return
    try:
        outputs = run(model, odd, "odd sizes")
    except ExportError:
        return
    _error(runtime, odd, outputs, tolerance)


def _resized(example: Example, inputs: Mapping[str, Dims], size_of: Callable[[int, int], int]) -> Example:
    """Inputs whose free axes have the size `size_of(axis, size)`; axes of one name have one size."""
    sizes: dict[str, int] = {}
    return example.reshaped(
        {
            name: tuple(
                sizes.setdefault(dim, size_of(axis, size)) if isinstance(dim, str) else size
                for axis, (dim, size) in enumerate(zip(inputs.get(name, shape), shape, strict=True))
            )
            for name, shape in example.shapes.items()
        }
    )


def run(model: nn.Module, example: Example, what: str) -> list[Tensor]:
    """The tensors that `model` returns on `example`; ExportError calls the inputs `what`.

    Where no number is finite any file would agree, so that is an error, too. What the model draws leaves the
    random numbers of torch as they were; models are on the CPU here.
    """
    args, kwargs = _pytree.tree_map_only(Tensor, lambda tensor: tensor.clone(), example.call)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            outputs = [tensor.contiguous() for tensor in output_tensors(model(*args, **kwargs))]
    except Exception as error:
        raise ExportError(
            f"{type(model).__name__} itself fails on {what}, {listing(example.shapes)}: "
            f"{type(error).__name__}: {error}. If that shape makes no sense for the model, leave "
            f"its axis out of `dynamic`"
        ) from error
    numbers = [tensor for tensor in outputs if tensor.numel()]
    if numbers and not any(bool(torch.isfinite(tensor).any()) for tensor in numbers):
        raise ExportError(
            f"{type(model).__name__} gives no finite number on {what}, {listing(example.shapes)}, so that no "
            "file could be checked against it; look for NaN or infinity in its weights and in the example"
        )
    return outputs


def listing(shapes: Mapping[str, Sequence[int | str]]) -> str:
    """Names with their sizes, as `x [1, 3, 8, 8], y [1, 4]`."""
    return ", ".join(f"{name} [{', '.join(map(str, dims))}]" for name, dims in shapes.items())
