"""The group lasso: a penalty on the slices of filters and matrices that write channels."""

from __future__ import annotations

from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.training.sparsity.forms import Form
from compressor.training.sparsity.on_slices import SliceRegularizer, pushes
from compressor.training.sparsity.targets import all_removable, planned, writers

__all__ = ["GroupLasso"]


class GroupLasso(SliceRegularizer):
    """Drives whole slices of writers to zero: of all channels that could be removed, or of a `plan`'s.

    With `Proximal(strength)` slices become exactly zero, with `Subgradient(strength)` they oscillate. A norm
    behind a filter undoes what shrinks it; where there are norms, `MaskSparsity` and `NetworkSlimming`
    act on their scales.

    *Source: W. Wen, C. Wu, Y. Wang, Y. Chen, H. Li, 2016, arXiv 1608.03665, filter-wise;
    M. Yuan, Y. Lin, 2006, weighted by the root of the slice's size.*

    >>> import torch, compressor as cp
    >>> from compressor.training.sparsity import Proximal
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> GroupLasso(cp.capture(net, torch.rand(2, 4)), Proximal(1e-3))
    GroupLasso(8 channels of 1 parameters: Proximal(strength=0.001))
    """

    def __init__(self, graph: Graph, form: Form, *, plan: Plan | None = None) -> None:
        removed = all_removable(graph) if plan is None else planned(plan, graph)
        super().__init__(pushes(graph, [(writers(graph, removed), form)]))
