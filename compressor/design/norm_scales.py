"""What batch norms multiply the filters in front of them by, by the names of the weights."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from compressor.core.graph import Graph
from compressor.core.tape import named_tensors
from compressor.filters.convolutions import convolutions_of

__all__ = ["norm_scales"]


def norm_scales(graph: Graph) -> dict[str, Tensor]:
    """γ / √(σ² + ε) [O] of the batch norm that alone reads a convolution, by the name of its weight; float64.

    Of weights that are parameters, and convolutions that are called once.
    """
    names = {id(tensor): name for name, tensor in named_tensors(graph.model).items()}
    found = convolutions_of(graph.model, graph.args, graph.kwargs)
    calls = Counter(id(convolution.weight) for convolution in found)
    return {
        names[id(each.weight)]: each.norm.scale
        for each in found
        if each.norm is not None and id(each.weight) in names and calls[id(each.weight)] == 1
    }
