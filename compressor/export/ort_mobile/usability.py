"""Whether the compilers of phones (NNAPI, CoreML) would run an ONNX file, as a value to read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import ExportError
from compressor.export.files.onnxruntime_tools import contained, require_tools
from compressor.export.files.sources import Source, read_source

if TYPE_CHECKING:
    import onnx

__all__ = ["ProviderUsability", "Usability", "Verdict", "usability"]

# Ranks of the weights of convolutions that a provider runs; onnxruntime's check looks at names alone.
_CONVOLUTIONS = {"NNAPI": (4,), "CoreML MLProgram": (3, 4), "CoreML NeuralNetwork": (3, 4)}


class Verdict(Enum):
    """Whether a provider is worth a try, in onnxruntime's words."""

    YES = "yes"
    MAYBE = "maybe"
    NO = "no"


@dataclass(frozen=True)
class ProviderUsability:
    """How much of a file one provider would run: `supported` of `nodes`, in `partitions` pieces.

    One piece of most nodes is good; between pieces, tensors are copied to the CPU and back. `reasons` say
    what is not supported, `unchecked` what the provider asks of operators beyond their names: look yourself.
    `if_fixed` is the verdict for the same file with fixed shapes (see `fix_shapes`).
    """

    provider: str
    verdict: Verdict
    supported: int
    nodes: int
    partitions: int
    reasons: tuple[str, ...]
    unchecked: tuple[str, ...]
    if_fixed: Verdict

    def __str__(self) -> str:
        fixed = f", {self.if_fixed.value} with fixed shapes" if self.if_fixed != self.verdict else ""
        why = f": {'; '.join(self.reasons)}" if self.reasons else ""
        return (
            f"{self.provider}: {self.verdict.value}{fixed} ({self.supported} of {self.nodes} nodes, "
            f"{self.partitions} partitions){why}"
        )


@dataclass(frozen=True)
class Usability:
    """What each provider would run of a file."""

    path: Path
    providers: tuple[ProviderUsability, ...]

    @property
    def worth_a_try(self) -> bool:
        """Whether any provider's verdict is not no."""
        return any(provider.verdict is not Verdict.NO for provider in self.providers)

    def __str__(self) -> str:
        return "\n".join([f"{self.path}:", *(f"  {provider}" for provider in self.providers)])


def usability(source: str | os.PathLike[str]) -> Usability:
    """How much of the ONNX file `source` NNAPI (Android) and CoreML (iOS) would run.

    This is the estimate of onnxruntime's check_onnx_model_mobile_usability, from operator names and known
    shapes, corrected for convolutions of dimensions that a provider has not. No phone was asked. Raises
    FileError where `source` is no ONNX file, ExportError where the check cannot read it.

    >>> import compressor as cp
    >>> print(cp.export.usability("net.fixed.onnx"))  # doctest: +SKIP
    net.fixed.onnx:
      NNAPI: yes (52 of 52 nodes, 1 partitions)
      CoreML MLProgram: yes (52 of 52 nodes, 1 partitions)
      CoreML NeuralNetwork: maybe (51 of 52 nodes, 2 partitions): ReduceMean is not supported
    """
    require_tools()
    file = read_source(source)
    try:
        with contained():
            return Usability(file.path, _providers(file))
    except Exception as error:
        raise ExportError(f"onnxruntime's usability check cannot read {file.path}: {error}") from error


def _providers(source: Source) -> tuple[ProviderUsability, ...]:
    from onnxruntime.tools.mobile_helpers import usability_checker as checker
    from onnxruntime.tools.onnx_model_utils import ModelProtoWithShapeInfo, optimize_model

    coreml = checker.check_coreml_partitions
    checks: dict[str, Callable[[Any, bool], Any]] = {
        "NNAPI": checker.check_nnapi_partitions,
        "CoreML MLProgram": partial(coreml, config_filename="coreml_supported_mlprogram_ops.md"),
        "CoreML NeuralNetwork": partial(coreml, config_filename="coreml_supported_neuralnetwork_ops.md"),
    }
    with tempfile.TemporaryDirectory(prefix="compressor-") as aside:
        optimised = Path(aside) / "optimised.onnx"  # as it is before a provider sees it
        optimize_model(source.path, optimised)
        proto = ModelProtoWithShapeInfo(optimised).model_with_shape_info
    return tuple(_verdict(name, check, proto) for name, check in checks.items())


def _verdict(provider: str, check: Callable[[Any, bool], Any], proto: onnx.ModelProto) -> ProviderUsability:
    proto = _without_convolutions(proto, _CONVOLUTIONS[provider])
    as_it_is, fixed = check(proto, True), check(proto, False)
    reasons = [
        f"{operator.removeprefix('ai.onnx:')} is not supported"
        for operator in sorted(as_it_is.unsupported_ops)
    ]
    if as_it_is.nodes_unsupported_due_to_dynamic_input:
        reasons.append(f"{as_it_is.nodes_unsupported_due_to_dynamic_input} nodes read free sizes")
    if as_it_is.num_unsupported_nodes_due_to_rank:
        ranked = ", ".join(sorted(as_it_is.ops_with_unsupported_rank))
        reasons.append(f"{as_it_is.num_unsupported_nodes_due_to_rank} nodes have too many axes ({ranked})")
    return ProviderUsability(
        provider=provider,
        verdict=Verdict[as_it_is.suitability().name],
        supported=as_it_is.num_supported_nodes,
        nodes=as_it_is.num_nodes,
        partitions=as_it_is.num_partitions,
        reasons=tuple(reasons),
        unchecked=tuple(as_it_is.supported_ops_checker.get_caveats()),
        if_fixed=Verdict[fixed.suitability().name],
    )


def _without_convolutions(proto: onnx.ModelProto, known: tuple[int, ...]) -> onnx.ModelProto:
    """A copy in which convolutions with weights of other ranks than `known` bear names nobody supports."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    ranks = {weight.name: len(weight.dims) for weight in copy.graph.initializer}
    for node in copy.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            rank = ranks.get(node.input[1])
            if rank is not None and rank not in known:
                node.op_type = f"{rank - 2}-D {node.op_type}"
    return copy
