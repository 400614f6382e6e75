"""Network slimming: one penalty on the scales of all channels."""

from __future__ import annotations

from compressor.core.graph import Graph
from compressor.errors import InputError
from compressor.training.sparsity.forms import Form, Subgradient
from compressor.training.sparsity.on_slices import SliceRegularizer, pushes
from compressor.training.sparsity.targets import all_removable, targets

__all__ = ["NetworkSlimming"]


class NetworkSlimming(SliceRegularizer):
    """Pushes the norm scales of all channels that could be removed towards zero, by `form`.

    Which channels give way decides itself in training: `budget.Threshold`, `budget.OptimalThreshold` or any
    other budget on the scores of `scoring.BatchNormScale` makes the plan from it afterwards.
    The paper's form is `Subgradient(1e-4)`; `Ridge` and `RidgeBelow` are variants that MaskSparsity's
    code has. Departure: the scales of channels that cannot go are left alone, which has only costs.

    Raises InputError for a model without norms that have scales.

    *Source: Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan, C. Zhang, 2017, arXiv 1708.06519.*

    >>> import torch, compressor as cp
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
    >>> NetworkSlimming(cp.capture(net, torch.rand(2, 4)))
    NetworkSlimming(8 channels of 1 parameters: Subgradient(strength=0.0001))
    """

    def __init__(self, graph: Graph, form: Form | None = None) -> None:
        scales = targets(graph, all_removable(graph)).scales
        if not scales:
            raise InputError(
                f"NetworkSlimming: {graph.signature.model} has no norm layer with scales on channels that "
                f"can be removed; GroupLasso(graph, form) acts on filters instead"
            )
        super().__init__(pushes(graph, [(scales, Subgradient(1e-4) if form is None else form)]))
