"""What a captured model costs, exactly, for any removal of units: arithmetic on the graph alone.

Four costs, each a sum of products of kept channels: multiply-accumulates (MACs), parameters, bytes
of the saved weights, bytes of all activations. None of them runs or copies the model. What does not add up is
in `peak`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor, nn

from compressor.core.channels import Mask
from compressor.core.graph import PINNED, Axis, Graph, UnitArray, require_graph
from compressor.core.plan import Plan
from compressor.errors import InputError, PlanMismatchError
from compressor.profiling.contractions import contraction_macs
from compressor.profiling.counting import Counts, Numbers, Polynomial, RemovalOrder, Term, flags, products

__all__ = [
    "Cost",
    "activation_bytes",
    "macs",
    "params",
    "removed_by",
    "weight_bytes",
]


@dataclass(frozen=True, eq=False)
class Cost:
    """One additive cost of one graph: `total` for a removal, `along` for thousands of them.

    >>> rows = np.array([0, 1, 2])
    >>> cost = Cost("parameters", (Term("fc", "weight", 5, (rows,)),), n_units=3)
    >>> cost.total(), cost.total(np.array([True, False, False]))
    (15, 10)
    >>> at = cost.along([np.array([[2, 0, 1]])])  # one group: unit 2 goes first, then 0
    >>> at(np.array([[0], [1], [2]])).tolist()
    [15, 10, 5]
    """

    name: str
    entries: tuple[Term, ...]
    n_units: int

    @cached_property
    def _polynomial(self) -> Polynomial:
        return Polynomial.of(self.entries)

    def per_entry(self, removed: Mask | None = None) -> list[int]:
        """The value of every entry when the `removed` [n_units] units go (None: nothing goes)."""
        polynomial = self._polynomial
        return [int(value) for value in polynomial.terms(polynomial.dims.kept(flags(removed, self.n_units)))]

    def total(self, removed: Mask | None = None) -> int:
        """The whole cost when the `removed` [n_units] units go (None: nothing goes)."""
        return sum(self.per_entry(removed))

    def by_module(self, removed: Mask | None = None) -> dict[str, int]:
        """The cost of each module path that has any entry, in the order of first appearance."""
        shares: dict[str, int] = {}
        for entry, value in zip(self.entries, self.per_entry(removed), strict=True):
            shares[entry.module] = shares.get(entry.module, 0) + value
        return shares

    def along(self, order: RemovalOrder) -> Callable[[Counts], Numbers]:
        """The cost [...] as a function of the ranks lost [..., n_groups].

        Units go in this `order`, which holds for each group an array [n_cells, size]; column t are
        the units of rank t.
        """
        each = self.entries_along(order)
        return lambda lost: np.asarray(each(lost).sum(axis=-1))

    def entries_along(self, order: RemovalOrder) -> Callable[[Counts], Numbers]:
        """The value of every entry [..., n_entries] as such a function, see `along`."""
        polynomial = self._polynomial
        track = polynomial.dims.along(order)
        return lambda lost: polynomial.terms(track.kept(lost))


def macs(graph: Graph) -> Cost:
    """Multiply-accumulates of one forward pass on the example inputs, whole batch included.

    Convolutions and matrix products count; biases, norms, activations and data movement do not.
    What does not count is listed by `Profile.uncounted`.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> macs(capture(net, torch.zeros(3, 4))).total()
    144
    """
    require_graph("macs", graph)
    entries = [
        term
        for work in graph.works
        for term in products(work.module, work.operator, work.coefficient, work.dims, work.divisor)
    ]
    # The graph states no work of products that no channel flows through: they cost the same in
    # every pruned model, and are counted from the recorded shapes.
    stated = {work.op for work in graph.works}
    for op in graph.tape.ops:
        count = None if op.index in stated else contraction_macs(graph.tape, op)
        if count is not None:
            entries.append(Term(op.module, op.target, count, ()))
    return Cost("MACs", tuple(entries), graph.n_units)


def params(graph: Graph) -> Cost:
    """Elements of the model's parameters, trainable or not; tied parameters count once.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> params(capture(net, torch.zeros(3, 4))).total()
    58
    """
    require_graph("params", graph)
    named = dict(graph.model.named_parameters())
    return Cost("parameters", tuple(_elements(graph, named.items(), scale=lambda _: 1)), graph.n_units)


def weight_bytes(graph: Graph) -> Cost:
    """Bytes of what a saved model holds: parameters and persistent buffers, each tensor once.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> weight_bytes(capture(net, torch.zeros(3, 4))).total()
    232
    """
    require_graph("weight_bytes", graph)
    named = saved_tensors(graph.model)
    entries = _elements(graph, named.items(), scale=lambda tensor: tensor.element_size())
    return Cost("weight bytes", tuple(entries), graph.n_units)


def saved_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by their first names, each tensor once."""
    saved = {id(tensor) for tensor in model.state_dict(keep_vars=True).values()}
    named: dict[str, Tensor] = dict(model.named_parameters())
    named.update({name: tensor for name, tensor in model.named_buffers() if id(tensor) in saved})
    return named


def activation_bytes(graph: Graph) -> Cost:
    """Bytes of every tensor that some operator computes, summed; views of a tensor are free.

    This is memory traffic, not the peak: how much is alive at once is up to the runtime.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    >>> activation_bytes(capture(net, torch.zeros(3, 4))).total()
    120
    """
    require_graph("activation_bytes", graph)
    entries = tuple(
        term
        for made in graph.activations
        for term in products(made.module, made.operator, made.coefficient * made.itemsize, made.dims)
    )
    return Cost("activation bytes", entries, graph.n_units)


def removed_by(graph: Graph, plan: Plan) -> Mask:
    """The units [n_units] that `plan` removes; raises PlanMismatchError where it does not fit.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> graph = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    >>> mask = np.arange(graph.n_units) < 3
    >>> (removed_by(graph, graph.plan(mask)) == mask).all()
    np.True_
    """
    require_graph("removed_by", graph)
    if not isinstance(plan, Plan):
        raise InputError(f"removed_by needs a Plan, got {type(plan).__name__}; Plan.load(path) reads one")
    mismatch = graph.signature.first_mismatch(plan.signature)
    if mismatch:
        raise PlanMismatchError(f"the plan was not made for this {graph.signature.model}: {mismatch}")
    asked = _asked(graph, plan)
    stays = np.zeros(graph.n_units + 1, dtype=bool)
    cut_off = np.zeros(graph.n_units + 1, dtype=bool)
    for axis, away in asked:
        stays[axis.units[..., ~away]] = True
        leaving = np.zeros(graph.n_units + 1, dtype=bool)
        leaving[axis.units[..., away]] = True
        leaving[axis.units[..., ~away]] = False
        cut_off |= leaving
    removed = ~stays[:-1]
    if all(np.array_equal(axis.gone(removed), away) for axis, away in asked):
        return removed
    # A unit that one axis loses and another keeps: the latter should lose it, too.
    for goes in (cut_off[:-1], removed):
        for axis, away in asked:
            due = axis.gone(goes)
            if not np.array_equal(due, away):
                raise PlanMismatchError(
                    f"{axis.tensor!r} axis {axis.axis}: the plan removes "
                    f"{np.flatnonzero(away).tolist()}, but the channels it removes elsewhere are "
                    f"coupled with {np.flatnonzero(due).tolist()} here"
                )
    raise AssertionError("the plan follows no removal, though no axis says so")


def _asked(graph: Graph, plan: Plan) -> list[tuple[Axis, Mask]]:
    """Every axis with the channels [size] that the plan removes; they must be removable at all."""
    cuts = {(cut.tensor, cut.axis): cut for cut in plan.cuts}
    asked = []
    for axis in graph.axes:
        cut = cuts.pop((axis.tensor, axis.axis), None)
        away = np.zeros(axis.size, dtype=bool)
        if cut is not None and cut.size == axis.size:
            away[list(cut.removed)] = True
        if cut is not None and (cut.size != axis.size or not axis.free[away].all()):
            raise PlanMismatchError(f"{cut}: the graph says that these channels cannot be removed")
        asked.append((axis, away))
    for cut in cuts.values():
        raise PlanMismatchError(f"{cut}: the graph says that these channels cannot be removed")
    return asked


def _elements(
    graph: Graph, named: Iterable[tuple[str, Tensor]], *, scale: Callable[[Tensor], int]
) -> Iterable[Term]:
    """One entry for each tensor: its elements times `scale`, as a product over its axes."""
    axes = _axes_by_tensor(graph)
    for name, tensor in named:
        coefficient, divisor = scale(tensor), 1
        dims: list[UnitArray] = []
        known = axes.get(name, {})
        for position, length in enumerate(tensor.shape):
            axis = known.get(position)
            if axis is None or (axis.units == PINNED).all():
                coefficient *= length
            else:
                dims.append(axis.units)
                divisor *= axis.blocks
        module, _, own = name.rpartition(".")
        yield from products(module, own, coefficient, tuple(dims), divisor)


def _axes_by_tensor(graph: Graph) -> dict[str, dict[int, Axis]]:
    """The axes of each tensor under its first name, whichever of its names the graph used."""
    first = canonical_names(graph.model)
    found: dict[str, dict[int, Axis]] = {}
    for axis in graph.axes:
        found.setdefault(first.get(axis.tensor, axis.tensor), {})[axis.axis] = axis
    return found


def canonical_names(model: nn.Module) -> dict[str, str]:
    """For every name of every tensor the first name of the same tensor (ties share it)."""
    first: dict[int, str] = {}
    names: dict[str, str] = {}
    for listing in (model.named_parameters, model.named_buffers):
        for name, tensor in listing(remove_duplicate=False):
            names[name] = first.setdefault(id(tensor), name)
    return names
