"""Growing regularisation: a ridge on what a plan removes that becomes stronger step by step."""

from __future__ import annotations

from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.training.sparsity.forms import Growing
from compressor.training.sparsity.on_slices import SliceRegularizer, pushes
from compressor.training.sparsity.targets import planned, targets, writers

__all__ = ["GReg"]


class GReg(SliceRegularizer):
    """Pushes the planned channels' filters and norm scales towards zero by a `Growing` ridge.

    The growth leaves the network time to move what the channels did elsewhere. Departures: the scales of
    norms are pushed with the filters, as a norm undoes what shrinks a filter; the filters to go come from
    the plan, not from their L1 norms.

    Raises PlanMismatchError for a plan of another model, InputError for one that removes nothing.

    *Source: H. Wang, C. Qin, Y. Zhang, Y. Fu, 2021, arXiv 2012.09243, GReg-1.*

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> graph = cp.capture(net, torch.rand(2, 4))
    >>> plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    >>> GReg(plan, graph)
    GReg(4 channels of 1 parameters: Growing(delta=0.0001, every=5, ceiling=1.0))
    """

    def __init__(self, plan: Plan, graph: Graph, form: Growing | None = None) -> None:
        removed = planned(plan, graph)
        chosen = [*targets(graph, removed).scales, *writers(graph, removed)]
        super().__init__(pushes(graph, [(chosen, Growing() if form is None else form)]))
