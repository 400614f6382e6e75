"""What Taylor and Fisher share: products gradient · weight, summed over slices, batch by batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from compressor.core.graph import Axis, Graph
from compressor.errors import InputError
from compressor.observing.batches import check_max_batches
from compressor.observing.precision import widened
from compressor.observing.processes import merged
from compressor.scoring.base import AxisKey, Scorer, SiteScores, checked_sites
from compressor.scoring.gradients import Differentiate, Loss, first_order, for_each_batch
from compressor.scoring.units import Normalize, NormalizeLike, Reduce, ReduceLike, Values, choice
from compressor.scoring.weights import (
    READERS,
    RolesLike,
    channel_sums,
    own_axes,
    roles_of,
    spread,
    weight_axes,
    weights_of,
)

__all__ = ["GradientScorer", "Joint", "JointLike", "unit_sums"]


class Joint(Enum):
    """Over what the products gradient · weight are summed before they lose their sign.

    `UNIT` sums over all of a unit's slices: the exact first-order effect of removing the unit.
    `SLICE` sums within each slice and `WEIGHT` not at all; `reduce` then combines the slices.

    >>> Joint("unit")
    'unit'
    """

    UNIT = "unit"
    SLICE = "slice"
    WEIGHT = "weight"

    def __repr__(self) -> str:
        return repr(self.value)


JointLike = Joint | Literal["unit", "slice", "weight"]


@dataclass(frozen=True, repr=False, eq=False)
class GradientScorer(Scorer):
    """A scorer that averages a function of gradient · weight over batches; for the arguments see `Taylor`.

    >>> import compressor as cp
    >>> class Fourth(GradientScorer):
    ...     '''The fourth power of the change of the loss.'''
    ...     def measure(self, products):
    ...         return products**4
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 1))
    >>> data = [(torch.ones(4, 2), torch.ones(4, 1))]
    >>> cp.score(cp.capture(net, torch.ones(1, 2)), Fourth(data, torch.nn.functional.mse_loss))
    Scores(Fourth() of Sequential: 3 units in 1 group, ...)
    """

    batches: Iterable[object] = field(repr=False)
    loss: Loss = field(repr=False)
    _: KW_ONLY
    joint: JointLike = Joint.UNIT
    roles: RolesLike = READERS
    reduce: ReduceLike = Reduce.SUM
    normalize: NormalizeLike = Normalize.NONE
    max_batches: int | None = None
    autocast: torch.dtype | None = None
    progress: Callable[[int], None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not callable(self.loss):
            raise InputError(
                f"{name}: loss must be a function of (output, target) such as "
                f"torch.nn.functional.cross_entropy, got {type(self.loss).__name__}"
            )
        check_max_batches(self.max_batches, where=name)
        object.__setattr__(self, "roles", roles_of(self.roles))
        object.__setattr__(self, "joint", choice(Joint, self.joint, "joint"))
        super().__post_init__()

    @abstractmethod
    def measure(self, products: Tensor) -> Tensor:
        """The importance, element by element, of (sums of) products gradient · weight."""

    def axes(self, graph: Graph) -> list[Axis]:
        """The axes whose slices are scored."""
        return weight_axes(graph, self.roles)

    def own_axes(self, graph: Graph) -> list[Axis]:
        """The same with the units, of each, that are summed over it."""
        return own_axes(graph, self.roles)

    def site_scores(self, graph: Graph) -> SiteScores:
        """For each slice the mean importance over batches; with Joint.UNIT that of its unit."""
        axes = self.axes(graph)
        if self.joint is Joint.UNIT:
            return spread(self.raw_unit_scores(graph), axes)
        totals: dict[AxisKey, Tensor] = {}

        def add(products: dict[str, Tensor]) -> None:
            for axis in axes:
                key = axis.tensor, axis.axis
                scores = self._slice_scores(products[axis.tensor], axis)
                totals[key] = totals[key] + scores if key in totals else scores

        count = self._run(graph, axes, add)
        return {key: merged(totals[key]) / count for key in sorted(totals)}

    def raw_unit_scores(self, graph: Graph) -> Values:
        """The scores [n_units] before groups are made comparable."""
        if self.joint is not Joint.UNIT:
            return super().raw_unit_scores(graph)
        axes = self.own_axes(graph)
        total = torch.zeros(graph.n_units, dtype=torch.float64)
        if not axes:
            return total.numpy()

        def add(products: dict[str, Tensor]) -> None:
            total.add_(self.measure(unit_sums(self, graph, axes, products)))

        count = self._run(graph, axes, add)
        return (merged(total) / count).numpy()

    def _slice_scores(self, products: Tensor, axis: Axis) -> Tensor:
        if self.joint is Joint.SLICE:
            return self.measure(channel_sums(products, axis))
        return channel_sums(self.measure(products), axis)

    def _run(
        self,
        graph: Graph,
        axes: Sequence[Axis],
        add: Callable[[dict[str, Tensor]], None],
        differentiate: Differentiate = first_order,
    ) -> int:
        """The number of batches, over all processes, after giving `add` the products of each here.

        Products are in float64 by tensor.
        """
        weights = weights_of(graph)

        def multiply(gradients: Mapping[str, Tensor]) -> None:
            add({name: _product(weights[name], g) for name, g in gradients.items()})

        count = for_each_batch(
            graph.model,
            {axis.tensor for axis in axes},
            self.batches,
            self.loss,
            multiply,
            differentiate=differentiate,
            max_batches=self.max_batches,
            autocast=self.autocast,
            progress=self.progress,
        )
        return int(merged(torch.tensor(float(count), dtype=torch.float64)))


def unit_sums(scorer: Scorer, graph: Graph, axes: Sequence[Axis], products: Mapping[str, Tensor]) -> Tensor:
    """The sum of products, given by tensor, over the slices of each unit [n_units] on some axes."""
    sums = {(a.tensor, a.axis): channel_sums(products[a.tensor], a) for a in axes}
    scored, vectors = checked_sites(scorer, graph, sums)
    own = {(a.tensor, a.axis): a for a in axes}
    total = torch.zeros(graph.n_units, dtype=torch.float64)
    for axis, vector in zip(scored, vectors, strict=True):
        channels, units = own[axis.tensor, axis.axis].sites()
        total.index_add_(0, torch.from_numpy(units), torch.from_numpy(vector[channels]))
    return total


def _product(weight: Tensor, gradient: Tensor) -> Tensor:
    # PyTorch's gradient of a complex weight is ∂L/∂Re + i ∂L/∂Im: as pairs of reals, both multiply
    # like any other weight.
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient)
    return widened(weight) * widened(gradient)
