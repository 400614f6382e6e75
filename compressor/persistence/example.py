"""An example saved beside a model: inputs and the outputs they gave, compared again on loading."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.core.tape import output_tensors, undisturbed
from compressor.errors import FileError, InputError

__all__ = ["Example", "compare_example", "example_tensors"]

Example = Tensor | tuple[Tensor, ...] | dict[str, Tensor]

# Relative to the largest output. Changed code of a network shows in the first digits; other kernels
# on another machine do not.
_TOLERANCES = {torch.float16: 2e-2, torch.bfloat16: 1e-1, torch.float64: 1e-9}
_TOLERANCE = 1e-3


def example_tensors(model: nn.Module, example: Example) -> dict[str, Tensor]:
    """Inputs, and outputs of `model` in eval mode, by the names they have in the file."""
    inputs = _named_inputs(example)
    return {**inputs, **_named_outputs(model, inputs)}


def compare_example(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise FileError where `model` computes something else on the inputs than is in `tensors`."""
    inputs = {name: tensor for name, tensor in tensors.items() if not name.startswith("outputs.")}
    try:
        found = _named_outputs(model, inputs)
    except Exception as fault:  # a user's forward raises what it likes
        raise FileError(
            f"{where}: the model does not run on the saved example ({type(fault).__name__}: {fault}): its "
            f"code changed since it was saved, or the example did"
        ) from fault
    expected = {name: tensor for name, tensor in tensors.items() if name.startswith("outputs.")}
    fix = "its code, or code it calls, changed since it was saved; load it with the code of that time"
    if found.keys() != expected.keys():
        raise FileError(f"{where}: the model gives {len(found)} outputs, expected {len(expected)}: {fix}")
    for name, reference in expected.items():
        error = _difference(reference, found[name])
        if not error <= _TOLERANCES.get(reference.dtype, _TOLERANCE):
            raise FileError(
                f"{where}: on the saved example the model differs by {error:.1e} (relative) at {name}: {fix}"
            )


def _named_inputs(example: Example) -> dict[str, Tensor]:
    if isinstance(example, Tensor):
        example = (example,)
    if isinstance(example, dict):
        named = {f"kwargs.{key}": value for key, value in example.items()}
    else:
        named = {f"args.{position}": value for position, value in enumerate(example)}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"example: {name} is a {type(value).__name__}; expected a tensor, a tuple of "
                f"tensors or a dict of keyword tensors"
            )
    return named


def _named_outputs(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    args = [tensor.to(device) for name, tensor in inputs.items() if name.startswith("args.")]
    kwargs = {
        name.removeprefix("kwargs."): tensor.to(device)
        for name, tensor in inputs.items()
        if name.startswith("kwargs.")
    }
    with undisturbed(model, training=False), torch.no_grad():
        outputs = output_tensors(model(*args, **kwargs))
    return {f"outputs.{position}": output for position, output in enumerate(outputs)}


def _difference(expected: Tensor, found: Tensor) -> float:
    found = found.cpu()
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if not (expected.is_floating_point() or expected.is_complex()):
        return 0.0 if torch.equal(expected, found) else float("inf")
    if torch.equal(expected, found):
        return 0.0
    wide = torch.complex128 if expected.is_complex() else torch.float64
    scale = float(expected.to(wide).abs().max()) or 1.0
    return float((expected.to(wide) - found.to(wide)).abs().max()) / scale
