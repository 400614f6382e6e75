"""What convolutions and matrices read and write while a model runs, whoever calls them.

A function mode sees `F.conv2d(x, weight)` in a module's forward and in the user's own code alike. A
weight is known by identity; one that is computed (weight norm, weight standardisation) by the layer
that is running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from compressor.core.tape import named_tensors

__all__ = ["LayerCall", "LayerKind", "observed", "rerun"]

LayerKind = Literal["conv", "conv_transpose", "linear"]


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a convolution or a matrix, as the graph's axes name it.

    Channel i of `output` is channel i of axis `writer_axis` of the tensor `weight`, channel j of `input`
    is channel j of its `reader_axis`; both are along `channel_dim`. `filters` is what was multiplied by,
    in the layout of the layer's kind: [out, in/groups, *kernel] of a convolution, [in, out/groups,
    *kernel] of a transposed one, [out, in] of a matrix. Inputs and outputs of convolutions have a batch
    dimension, those of matrices any dimensions before the last. Of asymmetric padding ("same" with an
    even kernel) the input holds the zeros, and `padding` is 0.
    """

    weight: str
    kind: LayerKind
    input: Tensor
    output: Tensor
    filters: Tensor
    bias: Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    writer_axis: int = 0
    reader_axis: int = 1

    @property
    def channel_dim(self) -> int:
        """The dimension of `input` and `output` along which their channels lie."""
        return -1 if self.kind == "linear" else 1


def rerun(call: LayerCall) -> Tensor:
    """What the call writes with its weights as they are now."""
    if call.kind == "linear":
        return functional.linear(call.input, call.filters, call.bias)
    return torch.convolution(
        *(call.input, call.filters, call.bias, list(call.stride), list(call.padding), list(call.dilation)),
        *(call.kind == "conv_transpose", list(call.output_padding), call.groups),
    )


@contextmanager
def observed(model: nn.Module, see: Callable[[LayerCall], None]) -> Iterator[None]:
    """Within, `see` gets every call of a convolution or matrix whose weight is the model's.

    Called are `see` and the model's own hooks in the order of the forward pass; the tensors are those
    of the forward pass itself and must not be written to.
    """
    watch = _Watch(model, see)
    handles = []
    try:
        for path, module in model.named_modules():
            if isinstance(module, _ConvNd | nn.Linear):
                handles.append(module.register_forward_pre_hook(watch.entering(path)))
                handles.append(module.register_forward_hook(watch.leaving, always_call=True))
        with watch:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch(TorchFunctionMode):
    """Calls the function and then tells what it read and wrote."""

    def __init__(self, model: nn.Module, see: Callable[[LayerCall], None]) -> None:
        super().__init__()
        self._see = see
        tensors = named_tensors(model)
        self._names = {id(tensor): name for name, tensor in tensors.items()}
        self._shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self._running: list[str] = []

    def entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        """A hook that notes which layer is running."""

        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(path)

        return enter

    def leaving(self, module: nn.Module, args: Any, output: Any) -> None:
        """The hook that ends it."""
        if self._running:  # a forward that raised before the layer was entered
            self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        read = _READ.get(func)
        if read is not None:
            call = read(self, result, *args, **(kwargs or {}))
            if call is not None:
                self._see(call)
        return result

    def name_of(self, weight: Any) -> str | None:
        """The name of a weight, or of the tensor that it is computed from in the layer that is running."""
        if not isinstance(weight, Tensor):
            return None
        name = self._names.get(id(weight))
        if name is not None or not self._running or isinstance(weight, nn.Parameter):
            return name
        lead = f"{self._running[-1]}." if self._running[-1] else ""
        own = (n for n, shape in self._shapes.items() if n.startswith(lead) and shape == tuple(weight.shape))
        return next(own, None)


# -- reading calls ---------------------------------------------------------------------------------


def _linear(
    watch: _Watch, output: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> LayerCall | None:
    name = watch.name_of(weight)
    return None if name is None else LayerCall(name, "linear", input, output, weight, bias)


def _matmul(watch: _Watch, output: Tensor, input: Any, other: Any, **_: Any) -> LayerCall | None:
    """Rows times a parameter [in, out]."""
    name = watch.name_of(other)
    if name is None or other.dim() != 2:
        return None
    return LayerCall(name, "linear", input, output, other.t(), writer_axis=1, reader_axis=0)


def _addmm(
    watch: _Watch, output: Tensor, input: Any, mat1: Any, mat2: Any, **scales: Any
) -> LayerCall | None:
    call = None if scales else _matmul(watch, output, mat1, mat2)
    if call is None:
        return None
    return LayerCall(
        call.weight, "linear", call.input, output, call.filters, input, writer_axis=1, reader_axis=0
    )


def _conv(dims: int) -> Callable[..., LayerCall | None]:
    def read(
        watch: _Watch,
        output: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> LayerCall | None:
        name = watch.name_of(weight)
        if name is None:
            return None
        spread = _numbers(dilation, dims)
        batched, written = _batched(input, dims), _batched(output, dims)
        if isinstance(padding, str):
            batched, padding = _padded(batched, padding, weight, spread)
        return LayerCall(
            name,
            "conv",
            batched,
            written,
            weight,
            bias,
            stride=_numbers(stride, dims),
            padding=_numbers(padding, dims),
            dilation=spread,
            output_padding=(0,) * dims,
            groups=groups,
        )

    return read


def _conv_transpose(dims: int) -> Callable[..., LayerCall | None]:
    def read(
        watch: _Watch,
        output: Tensor,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> LayerCall | None:
        name = watch.name_of(weight)
        if name is None:
            return None
        return LayerCall(
            name,
            "conv_transpose",
            _batched(input, dims),
            _batched(output, dims),
            weight,
            bias,
            stride=_numbers(stride, dims),
            padding=_numbers(padding, dims),
            dilation=_numbers(dilation, dims),
            output_padding=_numbers(output_padding, dims),
            groups=groups,
            writer_axis=1,
            reader_axis=0,
        )

    return read


def _numbers(value: Any, dims: int) -> tuple[int, ...]:
    """One number for each dimension."""
    numbers = (value,) if isinstance(value, int) else tuple(int(number) for number in value)
    return numbers * dims if len(numbers) == 1 else numbers


def _batched(tensor: Tensor, dims: int) -> Tensor:
    return tensor if tensor.dim() == dims + 2 else tensor.unsqueeze(0)


def _padded(input: Tensor, padding: str, weight: Tensor, dilation: tuple[int, ...]) -> tuple[Tensor, Any]:
    """The input and the padding in numbers of a convolution whose padding is a word."""
    if padding == "valid":
        return input, 0
    totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if all(total % 2 == 0 for total in totals):
        return input, tuple(total // 2 for total in totals)
    sides = [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    return functional.pad(input, sides), 0


_READ: dict[Any, Callable[..., LayerCall | None]] = {
    functional.linear: _linear,
    torch.matmul: _matmul,
    torch.mm: _matmul,
    Tensor.matmul: _matmul,
    Tensor.mm: _matmul,
    Tensor.__matmul__: _matmul,
    torch.addmm: _addmm,
    functional.conv1d: _conv(1),
    functional.conv2d: _conv(2),
    functional.conv3d: _conv(3),
    functional.conv_transpose1d: _conv_transpose(1),
    functional.conv_transpose2d: _conv_transpose(2),
    functional.conv_transpose3d: _conv_transpose(3),
}
