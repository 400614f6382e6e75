"""Plain stacks of layers as ONNX files, written node by node: in a millisecond, not seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from compressor.errors import ExportError
from compressor.runtimes.drafting import LOWEST_OPSET

if TYPE_CHECKING:
    import onnx

__all__ = ["write_layers"]

_IR = 9  # what torch's exporter writes for that opset
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def write_layers(layers: nn.Sequential, x: Tensor, path: Path) -> None:
    """Write convolutions, linear layers and ReLU, in this order, for inputs like `x`.

    Raises ExportError for any other module.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    last = "x"
    for number, module in enumerate(layers):
        operator, options = _operator(module)
        names = [last, *(f"{name}_{number}" for name, _ in module.named_parameters())]
        tensors += _tensors(module, number)
        last = f"y_{number}"
        nodes.append(helper.make_node(operator, names, [last], **options))
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, None)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", LOWEST_OPSET)], ir_version=_IR)
    onnx.save(model, str(path))


def _operator(module: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(module, (*_CONVOLUTIONS, *_TRANSPOSED)):
        if isinstance(module.padding, str):
            raise ExportError(f"{module}: padding in numbers is expected")
        options: dict[str, Any] = {
            "kernel_shape": list(module.kernel_size),
            "strides": list(module.stride),
            "dilations": list(module.dilation),
            "pads": [*module.padding, *module.padding],
            "group": module.groups,
        }
        if isinstance(module, _TRANSPOSED):
            return "ConvTranspose", {**options, "output_padding": list(module.output_padding)}
        return "Conv", options
    if isinstance(module, nn.Linear):
        return "Gemm", {"transB": 1}
    for kind, operator in ((nn.ReLU, "Relu"), (nn.Identity, "Identity")):
        if isinstance(module, kind):
            return operator, {}
    raise ExportError(f"{module} is no layer that can be written on its own; export the model as a whole")


def _tensors(module: nn.Module, number: int) -> Iterator[onnx.TensorProto]:
    from onnx import numpy_helper

    for name, tensor in module.named_parameters():
        yield numpy_helper.from_array(tensor.detach().numpy(), f"{name}_{number}")
