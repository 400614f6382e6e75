"""What stands behind a layer: the batch norms that read it, and the weights that read its channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.core.capture import capture
from compressor.core.graph import Axis, Graph, UnitArray
from compressor.core.tape import named_tensors
from compressor.errors import InputError
from compressor.observing import Batch, Followed, followed, running
from compressor.observing.batches import output_of

__all__ = ["norms_behind", "readers_of", "tensors_of_norm"]


def norms_behind(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, tuple[_BatchNorm, ...]]:
    """By the name of a weight the batch norm modules that directly read what its layer writes."""
    by_mean = {id(m.running_mean): m for m in model.modules() if isinstance(m, _BatchNorm)}
    by_mean.pop(id(None), None)
    found: dict[str, tuple[_BatchNorm, ...]] = {}

    def see(one: Followed) -> None:
        norm = by_mean.get(id(one.statistics)) if one.statistics is not None else None
        if norm is not None and norm not in found.get(one.call.weight, ()):
            found[one.call.weight] = (*found.get(one.call.weight, ()), norm)

    with running(model), followed(model, see):
        output_of(model, Batch(args, kwargs, None))
    return found


def tensors_of_norm(norm: _BatchNorm) -> tuple[tuple[Tensor, float], ...]:
    """The tensors [C] of a batch norm, each with what it holds in a new one."""
    fresh = ((norm.weight, 1.0), (norm.bias, 0.0), (norm.running_mean, 0.0), (norm.running_var, 1.0))
    return tuple((tensor, value) for tensor, value in fresh if tensor is not None)


def readers_of(
    model: nn.Module, chosen: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Flags of the weights that read the chosen channels, by tensor; `chosen` is by the name of a weight.

    Raises InputError where a channel is not the layer's own: where others write to it (a residual
    stream), where it cannot be taken away (outputs), or where a norm takes statistics over it.
    """
    graph = capture(model, *args, **kwargs)
    removed = np.zeros(graph.n_units, dtype=bool)
    for tensor, flags in chosen.items():
        removed[_own_units(graph, tensor, flags)] = True
    shapes = {name: tensor.shape for name, tensor in named_tensors(model).items()}
    marks: dict[str, Tensor] = {}
    for axis in graph.axes:
        gone = axis.gone(removed)
        if axis.role == "reader" and gone.any():
            marked = _marked(axis, torch.from_numpy(gone), shapes[axis.tensor])
            marks[axis.tensor] = marks[axis.tensor] | marked if axis.tensor in marks else marked
    return marks


def _own_units(graph: Graph, tensor: str, flags: Tensor) -> UnitArray:
    """The units of a layer's chosen channels, which nobody else writes."""
    written = [a for a in graph.axes if a.tensor == tensor and a.role == "writer" and a.size == len(flags)]
    if len(written) != 1 or written[0].units.ndim != 1:
        raise _not_own(tensor, "it does not run on these inputs, or its channels fall into heads")
    units: UnitArray = written[0].units[flags.numpy()]
    if (units < 0).any():
        raise _not_own(tensor, "they cannot be taken away, see graph.explain")
    shapes = dict(graph.signature.tensors)
    for axis in graph.axes:
        # A depthwise layer passes channels on, one by one.
        passes = len(shapes[axis.tensor]) < 2 or shapes[axis.tensor][1] == 1
        if (
            axis.role == "writer"
            and axis.tensor != tensor
            and not passes
            and np.isin(axis.units, units).any()
        ):
            raise _not_own(tensor, f"{axis.tensor!r} writes to them as well")
    for restriction in graph.restrictions:
        if any(np.isin(own, units).any() for operand in restriction.operands for own in operand.values()):
            raise _not_own(tensor, f"a {restriction.kind} ({restriction.target}) is taken over them")
    return units


def _not_own(tensor: str, reason: str) -> InputError:
    return InputError(
        f"silent=True: the chosen channels of {tensor!r} cannot be silenced: {reason}; leave the layer out "
        "of `where`, or draw with silent=False"
    )


def _marked(axis: Axis, gone: Tensor, shape: torch.Size) -> Tensor:
    """Flags of the weights along which an axis has lost channels; an axis in blocks has one for each."""
    marks = torch.zeros(shape, dtype=torch.bool)
    for rows, own in zip(marks.chunk(axis.blocks), gone.chunk(axis.blocks), strict=True):
        rows.index_fill_(axis.axis, own.nonzero()[:, 0], True)
    return marks
