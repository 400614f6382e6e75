"""All costs of a captured model at once."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.core.channels import Mask
from compressor.core.graph import Graph, require_graph
from compressor.core.plan import Plan
from compressor.profiling.cost import activation_bytes, macs, params, removed_by, weight_bytes
from compressor.profiling.peak import peak_activation_bytes

__all__ = ["Costs", "costs"]


@dataclass(frozen=True)
class Costs:
    """The costs of a model, for the example inputs it was captured with."""

    macs: int
    params: int
    weight_bytes: int
    activation_bytes: int
    peak_activation_bytes: int


def costs(graph: Graph, removal: Plan | Mask | None = None) -> Costs:
    """The costs of the model without what `removal` (a plan, or flags [n_units]) removes.

    >>> import torch; from torch import nn; from compressor.core.capture import capture
    >>> graph = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    >>> costs(graph)
    Costs(macs=48, params=58, weight_bytes=232, activation_bytes=40, peak_activation_bytes=56)
    """
    require_graph("costs", graph)
    gone = removed_by(graph, removal) if isinstance(removal, Plan) else removal
    return Costs(
        macs(graph).total(gone),
        params(graph).total(gone),
        weight_bytes(graph).total(gone),
        activation_bytes(graph).total(gone),
        peak_activation_bytes(graph).total(gone),
    )
