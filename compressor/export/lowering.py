"""ExecuTorch's own steps: quantise for XNNPACK, lower to it, run the program."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from compressor.errors import ExportError, InputError
from compressor.export.files.feeds import refuse_constant
from compressor.observing.batches import loaded
from compressor.runtimes.examples import Example, bind
from compressor.runtimes.exporters import first_line, quiet

__all__ = ["Program", "example_sized", "lowered", "quantised"]


_EDGE_OPERATOR = re.compile(r"^<EdgeOpOverload: ([\w.]+)>.*$", re.DOTALL)  # its text holds the schema


@dataclass(frozen=True, eq=False)
class Program:
    """The bytes of a `.pte` file; its pieces on XNNPACK, and the operators outside of them."""

    content: bytes
    delegates: int
    left: tuple[str, ...]

    def run(self, path: Path, example: Example) -> list[Tensor]:
        """The outputs of the program, read from `path`; ExportError where ExecuTorch cannot run it."""
        from executorch.runtime import Runtime

        tensors = [leaf for leaf in _pytree.tree_leaves(example.call) if isinstance(leaf, Tensor)]
        try:
            with quiet():
                method = Runtime.get().load_program(path).load_method("forward")
                outputs = method.execute([tensor.contiguous() for tensor in tensors])
        except Exception as error:
            raise ExportError(
                f"ExecuTorch lowers the model and cannot run the program: {first_line(error)}. XNNPACK has "
                f"no 3-D convolutions, and ExecuTorch's own kernels not every operator; export.onnx runs more"
            ) from error
        return [output.clone() for output in outputs if isinstance(output, Tensor)]


def lowered(model: nn.Module, example: Example) -> Program:
    """The program of `model` for inputs of exactly the example's shapes, on XNNPACK where it can."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    args, kwargs = example.call
    try:
        with quiet():
            exported = torch.export.export(model, args, kwargs)
            edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            targets = [
                str(node.target) for node in edge.exported_program().graph.nodes if node.op == "call_function"
            ]
            content = bytes(edge.to_executorch().buffer)
    except Exception as error:
        raise ExportError(
            f"ExecuTorch cannot lower {type(model).__name__}: {first_line(error)}. export.onnx takes more"
        ) from error
    delegates = sum("call_delegate" in target for target in targets)
    others = (target for target in targets if "call_delegate" not in target and "getitem" not in target)
    left = tuple(_EDGE_OPERATOR.sub(r"\1", target) for target in others)
    return Program(content, delegates, left)


def quantised(model: nn.Module, example: Example, calibration: Sequence[Example]) -> nn.Module:
    """`model` with int8 weights per channel and the ranges of activations seen on `calibration`."""
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    args, kwargs = example.call
    quantiser = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    try:
        with quiet():
            prepared = prepare_pt2e(torch.export.export(model, args, kwargs).module(), quantiser)
            for batch in calibration:
                batch_args, batch_kwargs = batch.call
                prepared(*batch_args, **batch_kwargs)
            converted: nn.Module = convert_pt2e(prepared)
    except Exception as error:
        raise ExportError(
            f"XNNPACK's quantiser cannot take {type(model).__name__}: {first_line(error)}. Keep float32, or "
            f"quantise an ONNX file: export.int8"
        ) from error
    return converted


def example_sized(
    model: nn.Module, example: Example, batches: Iterable[object], max_examples: int
) -> list[Example]:
    """Calibration batches in pieces of the example's batch, until `max_examples` examples are reached.

    Raises InputError for batches that do not fit the example, cannot be split so, or hold NaN or infinity.
    """
    if isinstance(max_examples, bool) or not isinstance(max_examples, int) or max_examples < 1:
        raise InputError(f"max_examples must be at least 1, got {max_examples!r}")
    pieces: list[Example] = []
    size = next((t.shape[0] for t in example.tensors.values() if t.dim()), 1)
    try:
        for number, batch in enumerate(loaded(batches, torch.device("cpu"))):
            named = {name: v for name, v in batch.kwargs.items() if name in example.signature.parameters}
            pieces += _split(bind(model, batch.args, named), example, f"batch {number}")
            if len(pieces) * size >= max_examples:
                break
        refuse_constant([{n: t.numpy() for n, t in piece.tensors.items()} for piece in pieces], "batches")
    except InputError as error:
        raise InputError(f"int8: {error}") from error
    return pieces[: -(-max_examples // size)]


def _split(given: Example, example: Example, where: str) -> list[Example]:
    counts = set()
    for name, tensor in example.tensors.items():
        found = given.tensors.get(name)
        if found is None or found.dtype != tensor.dtype or found.shape[1:] != tensor.shape[1:]:
            shown = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise InputError(
                f"{where} gives {name!r} {shown}, the example {tensor.dtype} {list(tensor.shape)}"
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise InputError(f"{where} holds values of {name!r} that are NaN or infinite")
        if tensor.dim():
            counts.add(len(found) / len(tensor))
    if any(count % 1 for count in counts) or len(counts) > 1 or 0 in counts:
        raise InputError(
            f"{where} {given.shapes} does not fall into pieces of the example's size {example.shapes}; give "
            f"an example of batch 1"
        )
    number = int(next(iter(counts), 1))
    return [
        given.with_tensors(
            {
                name: tensor[i * len(tensor) // number : (i + 1) * len(tensor) // number].contiguous()
                if tensor.dim()
                else tensor
                for name, tensor in given.tensors.items()
            }
        )
        for i in range(number)
    ]
