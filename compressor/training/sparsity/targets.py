"""What is driven to zero so that channels fall silent: scales of norms, their shifts, writers' slices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from compressor.core.graph import Graph, Mask, require_graph
from compressor.core.plan import Plan
from compressor.core.surgery import check_plan
from compressor.core.tape import named_tensors
from compressor.core.verify import removed_units
from compressor.errors import InputError, PlanMismatchError, VerifyError
from compressor.training.sparsity.coverage import heard_without
from compressor.training.sparsity.slices import Slices, slices_of

__all__ = ["Targets", "all_removable", "planned", "targets", "writers"]

# Of torch's norms those that may have a scale for each channel; a subclass of one is one.
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class Targets:
    """For some units the slices to empty, by kind.

    `scales` are those of norms. `writers` are filters and matrices that some reader hears with all these
    scales at zero: where no norm with a scale stands between the two. `shifts` are the β of the norms and
    the biases of the writers.
    """

    scales: tuple[Slices, ...]
    shifts: tuple[Slices, ...]
    writers: tuple[Slices, ...]


def planned(plan: Plan, graph: Graph) -> Mask:
    """The units [n_units] that the plan removes.

    Raises PlanMismatchError for a plan of another model and InputError for one that removes nothing.
    """
    require_graph("sparse training", graph)
    check_plan(graph.model, plan)
    try:
        removed = removed_units(graph, plan)
    except VerifyError as error:
        raise PlanMismatchError(f"the plan does not fit the graph of {graph!r}: {error}") from error
    if not removed.any():
        raise InputError(
            "the plan removes no channel, so that there is nothing to drive to zero; plan with a budget "
            "that removes something"
        )
    return removed


def all_removable(graph: Graph) -> Mask:
    """All units [n_units]; raises InputError where there are none."""
    require_graph("sparse training", graph)
    if not graph.n_units:
        raise InputError(f"no channel of {graph.signature.model} can be removed: nothing to regularise")
    return np.ones(graph.n_units, dtype=bool)


def targets(graph: Graph, removed: Mask) -> Targets:
    """What is to be emptied so that no reader hears the `removed` units [n_units]."""
    names = {id(tensor): name for name, tensor in named_tensors(graph.model).items()}
    scale_of: dict[str, str] = {}
    shifts: set[str] = set()
    for path, module in graph.model.named_modules():
        if not isinstance(module, _NORMS) or not isinstance(module.weight, nn.Parameter):
            continue
        scale_of[path] = names[id(module.weight)]
        bias = getattr(module, "bias", None)  # an RMSNorm has none
        if isinstance(bias, nn.Parameter):
            shifts.add(names[id(bias)])
    held = {slices.name: slices for slices in _slices(graph, removed)}
    scales = {name: held[name] for name in scale_of.values() if name in held}
    silent = {path for path, name in scale_of.items() if name in scales}
    heard = heard_without(graph, removed, silent)
    loud = [slices for slices in writers(graph, removed) if slices.name in heard]
    homes = {_home(slices.name) for slices in loud}
    vectors = named_tensors(graph.model)
    shifts.update(name for name in held if _home(name) in homes and _is_vector(vectors[name]))
    return Targets(tuple(scales.values()), tuple(held[name] for name in held if name in shifts), tuple(loud))


def _home(name: str) -> str:
    """The path of the layer that a parameter is of."""
    layer, _, parametrised = name.partition(".parametrizations.")
    return layer if parametrised else name.rpartition(".")[0]


def _is_vector(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) and tensor.dim() == 1


def writers(graph: Graph, removed: Mask) -> tuple[Slices, ...]:
    """The slices of all filters and matrices that write the `removed` units.

    Of a weight-normed one, g · v/‖v‖, those of g: with v at zero it would be no number.
    """
    tensors = named_tensors(graph.model)
    found = {
        slices.name: slices
        for slices in _slices(graph, removed)
        if isinstance(tensors[slices.name], nn.Parameter) and tensors[slices.name].dim() > 1
    }
    names = {value: name for name, value in graph.tape.by_name.items()}
    for op in graph.tape.ops:
        if op.target == "aten._weight_norm_interface.default":
            direction, size = (names.get(argument.value) for argument in op.args[:2])
            if size in found and direction is not None:
                found.pop(direction, None)
    return tuple(found.values())


def _slices(graph: Graph, removed: Mask) -> list[Slices]:
    found = [slices_of(axis, removed) for axis in graph.axes if axis.role == "writer"]
    return [slices for slices in found if len(slices.channels)]
