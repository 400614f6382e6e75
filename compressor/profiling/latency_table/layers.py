"""The layers of a graph that have rows in a latency table, and how wide each is after any removal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.core.graph import Graph, UnitArray
from compressor.core.tape import Op, Ref, Tape

__all__ = ["Layer", "Placed", "layers_of"]

Numbers = tuple[int, ...]
Width = UnitArray | int


@dataclass(frozen=True)
class Layer:
    """What a layer is beside its widths: a convolution ("Conv", "ConvTranspose") or "Linear".

    `batch` is the number of samples (of rows for "Linear"), `extent` the length, height, … of the input.
    `groups` = 0 stands for as many groups as channels: depthwise.
    """

    kind: str
    batch: int
    extent: Numbers = ()
    kernel: Numbers = ()
    stride: Numbers = ()
    padding: Numbers = ()
    dilation: Numbers = ()
    output_padding: Numbers = ()
    groups: int = 1

    @property
    def family(self) -> str:
        """Layers of one family run in the same kernel: they share their corrections."""
        name = "Depthwise" if self.groups == 0 else "Grouped" if self.groups > 1 else ""
        return f"{name}{self.kind}{'x'.join(map(str, self.kernel))}"

    def __str__(self) -> str:
        where = "x".join(map(str, (self.batch, *self.extent)))
        stride = f" stride {'x'.join(map(str, self.stride))}" if any(s > 1 for s in self.stride) else ""
        return f"{self.family}{stride} on {where}"


@dataclass(frozen=True, eq=False)
class Placed:
    """A layer where it stands: the operator that runs it, and the units of what it reads and writes.

    A width that nothing can be removed from is a plain number.
    """

    op: int
    module: str
    layer: Layer
    entering: Width
    leaving: Width

    @property
    def widths(self) -> tuple[int, int]:
        """Channels read and written before anything is removed."""
        return _size(self.entering), _size(self.leaving)


def layers_of(graph: Graph) -> tuple[Placed, ...]:
    """The convolutions and matrix products with a weight, in the order in which they run.

    Grouped convolutions whose groups go as a whole, and products of two activations, are not among
    them: their time is taken as proportional to their MACs.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> [(str(placed.layer), placed.widths) for placed in layers_of(capture(net, torch.zeros(1, 3, 9, 9)))]
    [('Conv3x3 stride 2x2 on 1x9x9', (3, 8)), ('Conv1x1 on 1x4x4', (8, 4))]
    """
    return tuple(_placed(graph))


def _placed(graph: Graph) -> Iterator[Placed]:
    for op in graph.tape.ops:
        layer = _layer(graph.tape, op)
        if layer is None:
            continue
        kind, entering = layer
        leaving = op.outputs[0]
        assert leaving is not None
        yield Placed(op.index, op.module, kind, _width(graph, entering), _width(graph, leaving))


def _layer(tape: Tape, op: Op) -> tuple[Layer, int] | None:
    """The layer that an operator runs, and the value it reads; None where it runs none."""
    name = op.target.removeprefix("aten.").partition(".")[0]
    if name in ("convolution", "convolution_overrideable"):
        return _convolution(tape, op)
    first = {"mm": 0, "addmm": 1, "linear": 0}.get(name)
    if first is None:
        return None
    x, weight = op.args[first], op.args[first + 1]
    if not isinstance(x, Ref) or not isinstance(weight, Ref) or op.outputs[0] is None:
        return None
    shape = tape.values[x.value].shape
    rows = 1
    for length in shape[:-1]:
        rows *= length
    return Layer("Linear", rows), x.value


def _convolution(tape: Tape, op: Op) -> tuple[Layer, int] | None:
    x, weight = op.args[0], op.args[1]
    if not isinstance(x, Ref) or not isinstance(weight, Ref):
        return None
    stride, padding, dilation, transposed, output_padding, groups = op.args[3:9]
    shape, kernel = tape.values[x.value].shape, tape.values[weight.value].shape
    if groups > 1 and kernel[1] == 1 and kernel[0] == groups:
        groups = 0
    elif groups > 1 and 1 in (kernel[1], kernel[0] // groups):
        return None
    n = len(kernel) - 2
    layer = Layer(
        "ConvTranspose" if transposed else "Conv",
        shape[0],
        tuple(shape[2:]),
        tuple(kernel[2:]),
        _each(stride, n),
        _each(padding, n),
        _each(dilation, n),
        _each(output_padding, n) if transposed else (),
        int(groups),
    )
    return layer, x.value


def _each(numbers: Sequence[Any], n: int) -> Numbers:
    return tuple(int(numbers[i % len(numbers)]) for i in range(n))


def _width(graph: Graph, value: int) -> Width:
    """The units along the channels of a value: axis 1 of images, the last of rows."""
    shape = graph.tape.values[value].shape
    axis = 1 if len(shape) > 2 else len(shape) - 1
    units = graph.axes_of(value).get(axis)
    return int(shape[axis]) if units is None or not (units >= 0).any() else units


def _size(width: Width) -> int:
    return width if isinstance(width, int) else int(width.shape[-1])
