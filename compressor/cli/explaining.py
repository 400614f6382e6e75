"""The command `explain`: what can be removed together, and why the rest stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from compressor.budget.factors import partners
from compressor.cli.command import Result, command
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.model import ModelOptions, build, device_of
from compressor.cli.objects import close_to
from compressor.cli.progress import Progress
from compressor.core.capture import capture
from compressor.core.graph import Axis, Graph
from compressor.errors import InputError
from compressor.tables import aligned

__all__ = ["LayerOptions", "explain"]


@dataclass(frozen=True)
class LayerOptions:
    """Which layer."""

    layer: Annotated[
        str | None,
        typer.Argument(
            metavar="LAYER",
            help="A module (layer3.0.conv1), all in it (layer3), or a tensor "
            "(layer3.0.conv1.weight). Without it: all groups, and what is never removed.",
            show_default=False,
        ),
    ] = None


@command(example="compressor explain resnet56_cifar layer1.0 --input 1x3x32x32")
def explain(model: ModelOptions, layer: LayerOptions, inputs: InputOptions, progress: Progress) -> Result:
    """Why the channels of a layer can or cannot be removed, and what goes with them."""
    given = example_inputs(inputs, seed=model.seed, device=device_of(model))
    net = build(model)
    with progress.step(f"capturing {type(net).__name__}"):
        graph = capture(net, *given.args, **given.kwargs)
    axes = graph.axes if layer.layer is None else _axes_of(graph, layer.layer)
    groups = [_group(graph, position) for position in _positions(graph, axes)]
    data = {
        "model": graph.signature.model,
        "layer": layer.layer,
        "axes": [_axis(graph, axis) for axis in axes],
        "groups": groups,
    }
    return Result(_overview(graph) if layer.layer is None else _explained(graph, axes), data)


def _axes_of(graph: Graph, name: str) -> tuple[Axis, ...]:
    """The axes of a tensor, of a module, or else of all modules in it."""
    own = tuple(axis for axis in graph.axes if name in (axis.tensor, _module(axis)))
    inside = tuple(axis for axis in graph.axes if axis.tensor.startswith(f"{name}."))
    if own or inside:
        return own or inside
    modules = [module for module, _ in graph.model.named_modules()]
    if name in modules:
        raise InputError(f"{name!r} has no parameters, so there is nothing to remove from it")
    known = [*modules, *(axis.tensor for axis in graph.axes)]
    hint = close_to(name, known) or f"; its layers are {', '.join(graph_layers(graph)[:8])}, ..."
    raise InputError(f"{graph.signature.model} has no module or tensor {name!r}{hint}")


def graph_layers(graph: Graph) -> list[str]:
    """The paths of all modules with parameters, in their order."""
    return list(dict.fromkeys(_module(axis) or axis.tensor for axis in graph.axes))


def _module(axis: Axis) -> str:
    return axis.tensor.rpartition(".")[0]


def _explained(graph: Graph, axes: tuple[Axis, ...]) -> str:
    return "\n".join(graph.explain(tensor) for tensor in dict.fromkeys(a.tensor for a in axes))


def _positions(graph: Graph, axes: tuple[Axis, ...]) -> list[int]:
    """The groups that have a channel on one of the axes, in their order."""
    owners = [graph.group_of[axis.sites()[1]] for axis in axes]
    return [int(p) for p in np.unique(np.concatenate([*owners, np.zeros(0, dtype=np.int64)]))]


def _axis(graph: Graph, axis: Axis) -> dict[str, object]:
    return {
        "tensor": axis.tensor,
        "axis": axis.axis,
        "role": axis.role,
        "channels": axis.size,
        "removable": int(axis.free.sum()),
        "pinned": list(graph.reasons.get((axis.tensor, axis.axis), ())),
        "groups": [graph.groups[position].name for position in _positions(graph, (axis,))],
    }


def _group(graph: Graph, position: int) -> dict[str, object]:
    group = graph.groups[position]
    padded = np.append(graph.group_of, -1)  # so that PINNED reads no group
    return {
        "name": group.name,
        "position": position,
        "shares_channels_with": sorted(partners(graph, position)),
        "ranks": group.size,
        "channels": group.size * group.channels,
        "changes_statistics": group.statistics,
        "tensors": [
            [axis.tensor, axis.axis] for axis in graph.axes if (padded[axis.units] == position).any()
        ],
    }


def _overview(graph: Graph) -> str:
    lines = [repr(graph), "", *aligned(_group_rows(graph), left=2 if graph.crossed else 1)]
    pinned = [_pinned(graph, axis) for axis in graph.axes if axis.axis < 2]  # kernels are no news
    if any(pinned):
        lines += ["", "never removed:", *(f"  {line}" for line in pinned if line)]
    return "\n".join(lines)


def _group_rows(graph: Graph) -> list[list[str]]:
    """One row for each group; heads and dims of the same channels, of one name, are told apart."""
    rows = [["group", "channels", "smallest step", "tensors"]]
    for position, group in enumerate(graph.groups):
        tensors = _group(graph, position)["tensors"]
        assert isinstance(tensors, list)
        count = group.size * group.channels
        rows.append([group.name, str(count), str(group.channels), str(len(tensors))])
    if graph.crossed:
        rows[0] = ["", *rows[0], "shares channels with"]
        for position, row in enumerate(rows[1:]):
            others = ", ".join(str(other) for other in sorted(partners(graph, position)))
            rows[position + 1] = [str(position), *row, others]
    return rows


def _pinned(graph: Graph, axis: Axis) -> str:
    count = int((~axis.free).sum())
    why = "; ".join(graph.reasons.get((axis.tensor, axis.axis), ("no reason known",)))
    text = f"{axis.tensor} axis {axis.axis}: {count} of {axis.size} channels ({why})"
    return text if count else ""
