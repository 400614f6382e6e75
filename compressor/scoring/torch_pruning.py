"""Importance criteria of Torch-Pruning as scorers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from compressor.core.graph import Axis, Graph, UnitArray
from compressor.core.tape import named_tensors
from compressor.errors import InputError, ScoreError
from compressor.extras import imported
from compressor.scoring.base import Scorer, SiteScores
from compressor.scoring.otherwise import check_otherwise, filled
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values, reduce_sites
from compressor.scoring.weights import BOTH, spread, weight_axes

__all__ = ["TorchPruning"]

_Places = npt.NDArray[np.int64]


@dataclass(frozen=True, repr=False, eq=False)
class TorchPruning(Scorer):
    """Scores units by an importance of Torch-Pruning, such as `tp.importance.GroupMagnitudeImportance()`.

    The importance is called with a `tp.dependency.Group` made from each group of the graph: the layers
    that hold its channels, the pruning function of each (output or input channels), and which channels
    belong together. So the graph is that of this library, and whatever it can prune can be scored.

    Importances that read gradients (`GroupTaylorImportance`, `GroupHessianImportance`) find what the
    last `loss.backward()` left in `model.parameters()`: run it before scoring. `Taylor` and `Fisher`
    need no such step. Weights that Torch-Pruning has no module for (bare parameters, parametrised
    weights, packed attention) are not shown to it; a group with a unit on nothing else is scored by
    `otherwise`, and without one raises ScoreError. Where a unit has several channels on the layer that
    a group starts from (a head has), `reduce` combines their scores. `normalize` is "none": importances
    normalise themselves.

    Needs the extra: pip install 'compressor[torch-pruning]'. Raises MissingExtraError without it and
    ScoreError where the importance returns no scores, too few, or some that are not finite.

    *Source: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, 2023, arXiv 2301.12900 (the groups).*

    >>> import torch_pruning as tp
    >>> import compressor as cp
    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 1, 3))
    >>> scorer = TorchPruning(tp.importance.GroupMagnitudeImportance(p=1))
    >>> cp.score(cp.capture(net, torch.ones(1, 1, 5, 5)), scorer)
    Scores(TorchPruning(importance=GroupMagnitudeImportance) of Sequential: 3 units in 1 group, ...)
    """

    importance: Callable[[Any], Tensor | None]
    _: KW_ONLY
    otherwise: Scorer | None = None
    reduce: ReduceLike = Reduce.MEAN
    normalize: NormalizeLike = Normalize.NONE

    def __post_init__(self) -> None:
        if not callable(self.importance) or isinstance(self.importance, type):
            raise InputError(
                "TorchPruning: importance must be an object such as "
                f"tp.importance.GroupMagnitudeImportance(), got {self.importance!r}"
            )
        check_otherwise(self.otherwise)
        super().__post_init__()

    def site_scores(self, graph: Graph) -> SiteScores:
        """For each slice the score of its unit."""
        return spread(self.raw_unit_scores(graph), weight_axes(graph, BOTH))

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The scores [n_units]; NaN for units on no layer that Torch-Pruning knows."""
        peer = _torch_pruning()
        layers = _layers(graph, peer)
        values = np.full(graph.n_units, np.nan)
        for group in graph.groups:
            for slices in _rooted(np.concatenate(group.cells), layers):
                (_, _, units), places = slices[0], [_places(slices[0], other) for other in slices]
                made = _group(peer, slices, places)
                scores = self._importance(made, group.name, len(units))
                how = Reduce(self.reduce)
                own = reduce_sites(scores, units, graph.n_units, how)
                values = np.where(np.isnan(own), values, own)
        return values

    def unit_scores(self, graph: Graph) -> Values:
        """The scores, with the groups that Torch-Pruning has no layer for scored by `otherwise`."""
        raw = self.raw_unit_scores(graph)
        return filled(self, graph, raw, self.otherwise, lack="lie on no module that Torch-Pruning knows")

    def _importance(self, made: Any, name: str, count: int) -> Values:
        where = f"{self!r}: group {name!r}"
        hint = (
            "one that reads gradients needs them in the model (loss.backward() before scoring), and "
            "target_types must hold the kinds of its layers"
        )
        try:
            found = self.importance(made)
        except Exception as error:  # whatever another library raises
            raise ScoreError(
                f"{where}: the importance failed with {type(error).__name__} ({error}); {hint}"
            ) from error
        if found is None:
            raise ScoreError(f"{where}: the importance returned nothing, expected {count} scores; {hint}")
        scores: Values = torch.as_tensor(found).detach().cpu().double().numpy()
        if scores.shape != (count,):
            raise ScoreError(f"{where}: expected {count} scores, one for each channel, got {scores.shape}")
        if not np.isfinite(scores).all():
            raise ScoreError(
                f"{where}: {int((~np.isfinite(scores)).sum())} of {count} scores are not finite; look for "
                "NaN in the weights or gradients, or for a normalizer that divides by zero"
            )
        return scores


@dataclass(frozen=True)
class _Layer:
    """A module that Torch-Pruning knows, one axis of its weight, and how it prunes along that axis."""

    axis: Axis
    module: nn.Module
    prune: Callable[..., Any]
    writes: bool
    """Whether it is the outputs of a convolution or matrix: what Torch-Pruning starts from."""


_Slice = tuple[_Layer, _Places, UnitArray]


def _torch_pruning() -> ModuleType:
    return imported(
        "torch_pruning", package="torch-pruning", extra="torch-pruning", needed_for="TorchPruning"
    )


def _layers(graph: Graph, peer: Any) -> list[_Layer]:
    """The axes of module weights, in the graph's order."""
    names = {id(tensor): name for name, tensor in named_tensors(graph.model).items()}
    owners: dict[str, nn.Module] = {}
    for module in graph.model.modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(names[id(weight)], module)
    found = []
    for axis in graph.axes:
        if axis.tensor not in owners or not axis.free.any():
            continue
        owner = owners[axis.tensor]
        pruner = peer.pruner.function.PrunerBox.get(peer.ops.module2type(owner))
        if pruner is None:
            continue
        reads = axis.role == "reader"
        writes = not reads and isinstance(owner, nn.modules.conv._ConvNd | nn.Linear)
        prune = pruner.prune_in_channels if reads else pruner.prune_out_channels
        found.append(_Layer(axis, owner, prune, writes))
    return found


def _rooted(units: UnitArray, layers: Sequence[_Layer]) -> Iterator[list[_Slice]]:
    """The layers with their channels and the units of these; the first of a list holds all its units.

    One list as a rule. Units that no layer holds together are given in several; those that no layer holds
    in none.
    """
    left = units
    while len(left):
        slices = [_slice(layer, left) for layer in layers]
        held = [len(np.unique(own)) for _, _, own in slices]
        best = max(range(len(layers)), key=lambda i: (held[i], layers[i].writes, -i), default=None)
        if best is None or not held[best]:
            return
        root = slices[best][2]
        others = [_slice(layer, root) for i, layer in enumerate(layers) if i != best]
        yield [slices[best], *(other for other in others if len(other[1]))]
        left = np.setdiff1d(left, root)


def _slice(layer: _Layer, units: UnitArray) -> _Slice:
    """The channels of a layer that belong to some units, in ascending order, and their units."""
    channels, own = layer.axis.sites()
    chosen = np.isin(own, units)
    order = np.argsort(channels[chosen], kind="stable")
    return layer, channels[chosen][order], own[chosen][order]


def _places(root: _Slice, other: _Slice) -> _Places:
    """For each channel of the other layer its position among the root's channels.

    The channels of a unit correspond in their order; where the root has fewer of them, as in front of
    a flattening, each stands for several in a row.
    """
    by_unit = np.argsort(root[2], kind="stable")
    units, starts, counts = np.unique(root[2][by_unit], return_index=True, return_counts=True)
    order = np.argsort(other[2], kind="stable")
    _, first, which, times = np.unique(
        other[2][order], return_index=True, return_inverse=True, return_counts=True
    )
    at = np.searchsorted(units, other[2][order])
    rank = np.arange(len(order)) - first[which]
    places = np.empty(len(order), dtype=np.int64)
    places[order] = by_unit[starts[at] + rank * counts[at] // times[which]]
    return places


def _group(peer: Any, slices: Sequence[_Slice], places: Sequence[_Places]) -> Any:
    """The group as Torch-Pruning's own walk would have left it."""
    made = peer.dependency.Group()
    for (layer, channels, _), own in zip(slices, places, strict=True):
        node = peer.dependency.Node(layer.module, None, layer.axis.tensor.rpartition(".")[0])
        made.add_dep(peer.dependency.Dependency(layer.prune, layer.prune, node, node), channels.tolist())
        made[len(made) - 1].root_idxs = own.tolist()
    return made
