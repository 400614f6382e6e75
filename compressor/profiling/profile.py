"""What a model costs, layer by layer: MACs, parameters, weight bytes, activation bytes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from compressor.core.graph import Graph
from compressor.core.tape import Tape, record
from compressor.errors import CaptureError, InputError
from compressor.profiling.contractions import contraction_macs
from compressor.profiling.cost import saved_tensors
from compressor.profiling.operators import Uncounted, uncounted
from compressor.profiling.peak import recorded_peak_bytes
from compressor.tables import aligned, megabytes

__all__ = ["Profile", "Row", "profile"]


@dataclass(frozen=True)
class Row:
    """The costs of one module itself (without the modules inside it), on the example inputs.

    `module` is its path ("" is the model), `kind` its class, `output_shape` the shape of the last
    tensor that an operator of its own computed; None if it only holds parameters.
    """

    module: str
    kind: str
    output_shape: tuple[int, ...] | None
    macs: int
    params: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Profile:
    """The costs of a model for its example inputs, whole batch included; `str()` is a table.

    MACs are multiply-accumulates of convolutions and matrix products, biases not counted: torch's
    flop counter shows twice as many, fvcore as many and some for norms and pooling on top, papers
    that say FLOPs mostly mean MACs. `weight_bytes` is what a saved model
    holds (parameters and persistent buffers), `activation_bytes` the sum of all tensors that
    operators compute, views not counted, `peak_activation_bytes` the most of them, inputs included, that is
    held at once (see the function of that name). Operators that add no MACs are in `uncounted`.
    """

    model: str
    inputs: tuple[str, ...]
    rows: tuple[Row, ...]
    uncounted: Uncounted
    peak_activation_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward pass on the example inputs."""
        return sum(row.macs for row in self.rows)

    @property
    def params(self) -> int:
        """Elements of all parameters, tied ones once."""
        return sum(row.params for row in self.rows)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters and persistent buffers, tied ones once."""
        return sum(row.weight_bytes for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all tensors that operators compute."""
        return sum(row.activation_bytes for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """The profile as plain data: totals, rows and uncounted operators, ready for JSON."""
        totals = {
            "macs": self.macs,
            "params": self.params,
            "weight_bytes": self.weight_bytes,
            "activation_bytes": self.activation_bytes,
            "peak_activation_bytes": self.peak_activation_bytes,
        }
        return {"model": self.model, "totals": totals, **_plain(asdict(self))}

    def __str__(self) -> str:
        head = ["layer", "kind", "output", "MACs", "params", "weight bytes", "activation bytes"]
        lines = aligned([head, *map(_cells, self.rows), self._total_cells()], left=3)
        lines.insert(1, "-" * max(map(len, lines)))
        lines.insert(len(lines) - 1, lines[1])
        lines.insert(0, f"{self.model} on {', '.join(self.inputs) or 'no tensors'} (whole batch)")
        return "\n".join([*lines, *self._notes()])

    def _total_cells(self) -> list[str]:
        numbers = (self.macs, self.params, self.weight_bytes, self.activation_bytes)
        return ["total", "", "", *(f"{number:,}" for number in numbers)]

    def _notes(self) -> list[str]:
        words = (
            f"weights {megabytes(self.weight_bytes)}, activations "
            f"{megabytes(self.activation_bytes)}, {megabytes(self.peak_activation_bytes)} at once with the "
            "inputs; "
            "1 MAC = 1 multiply-accumulate = 2 FLOPs"
        )
        notes = [words]
        for title, operators in (
            ("0 MACs by custom, a few operations per element", self.uncounted.per_element),
            ("0 MACs, data movement", self.uncounted.moves),
            ("NOT COUNTED, no MAC rule", self.uncounted.unknown),
        ):
            if operators:
                listed = ", ".join(f"{name} x{count}" for name, count in operators.items())
                notes.append(f"{title}: {listed}")
        return notes


def profile(model: nn.Module | Graph, *args: Any, **kwargs: Any) -> Profile:
    """The costs of `model` on the example inputs, or of a graph on those it was captured with.

    The model is run once, in eval mode, and left as it was. Any model that runs can be profiled,
    whether it can be pruned or not. Raises CaptureError when it does not run.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> print(profile(net, torch.zeros(5, 4)))
    Sequential on [5, 4] float32 (whole batch)
    layer  kind    output  MACs  params  weight bytes  activation bytes
    -------------------------------------------------------------------
    0      Linear  [5, 8]   160      40           160               160
    1      ReLU    [5, 8]     0       0             0               160
    2      Linear  [5, 2]    80      18            72                40
    -------------------------------------------------------------------
    total                   240      58           232               360
    weights 232 B, activations 360 B, 400 B at once with the inputs; 1 MAC = 1 multiply-accumulate = 2 FLOPs
    0 MACs by custom, a few operations per element: relu x1
    0 MACs, data movement: t x2
    """
    if isinstance(model, Graph):
        if args or kwargs:
            raise InputError("profile(graph) takes no inputs: a graph has those it was captured with")
        return _profile(model.model, model.tape)
    if not isinstance(model, nn.Module):
        raise InputError(f"profile needs a torch.nn.Module, got {type(model).__name__}")
    try:
        tape = record(model, args, kwargs)
    except Exception as error:
        raise CaptureError(
            f"{type(model).__name__} does not run on the inputs given to profile: "
            f"{type(error).__name__}: {error}"
        ) from error
    return _profile(model, tape)


def _profile(model: nn.Module, tape: Tape) -> Profile:
    metas = [tape.values[value] for value in tape.inputs]
    inputs = tuple(f"{list(meta.shape)} {str(meta.dtype).removeprefix('torch.')}" for meta in metas)
    return Profile(
        type(model).__name__, inputs, _rows(model, tape), uncounted(tape), recorded_peak_bytes(tape)
    )


def _rows(model: nn.Module, tape: Tape) -> tuple[Row, ...]:
    """A row for each module that computes or holds anything, in the order of the definition."""
    work, made, elements, held = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    shapes: dict[str, tuple[int, ...]] = {}
    for op in tape.ops:
        computed = [tape.values[value] for value in op.outputs if value is not None]
        if computed:
            shapes[op.module] = computed[0].shape
        work[op.module] += contraction_macs(tape, op) or 0
        if not (op.shares_memory or op.mutated):
            made[op.module] += sum(math.prod(m.shape) * m.dtype.itemsize for m in computed)
    for name, tensor in saved_tensors(model).items():
        module = name.rpartition(".")[0]
        held[module] += tensor.numel() * tensor.element_size()
        elements[module] += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
    return tuple(
        Row(
            module,
            kind,
            shapes.get(module),
            work[module],
            elements[module],
            held[module],
            made[module],
        )
        for module, kind in tape.module_types.items()
        if module in shapes or module in held
    )


def _cells(row: Row) -> list[str]:
    shape = "" if row.output_shape is None else str(list(row.output_shape))
    numbers = (row.macs, row.params, row.weight_bytes, row.activation_bytes)
    return [row.module or "(model)", row.kind, shape, *(f"{number:,}" for number in numbers)]


def _plain(data: Any) -> Any:
    """Tuples as lists, so that what is written to JSON and read again is equal."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    return [_plain(item) for item in data] if isinstance(data, (list, tuple)) else data
