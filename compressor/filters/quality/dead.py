"""Dead filters and dead input channels: rows and columns of a layer in which every kernel is sparse."""

from __future__ import annotations

from torch import Tensor

from compressor.errors import InputError
from compressor.filters.bank import kernel_matrix
from compressor.filters.quality.sparsity import Comparison, sparse_kernels

__all__ = ["dead_channels", "dead_filters", "sparse_rows_and_columns"]

# Legend of shape suffixes: O filters, I input channels of a filter, G groups, N = O · I kernels.


def dead_filters(
    weight: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW
) -> Tensor:
    """True for every filter of a weight [O, I, *k] of which all kernels are sparse [O].

    Such an output channel is its bias, and little else: it can be removed. Give a weight with its batch norm
    folded in, where there is one: a norm's scale revives filters, and kills them.

    >>> import torch
    >>> weight = torch.ones(2, 3, 3, 3)
    >>> weight[1] = 0.001
    >>> dead_filters(weight)
    tensor([False,  True])
    """
    return sparse_rows_and_columns(_sparse(weight, epsilon, comparison), len(weight))[0]


def dead_channels(
    weight: Tensor, *, epsilon: float = 0.01, comparison: Comparison = Comparison.BELOW, groups: int = 1
) -> Tensor:
    """True for every input channel of a convolution that none of its filters looks at [I · groups].

    Whatever writes the channel can be removed, if nothing else reads it.

    >>> import torch
    >>> weight = torch.ones(2, 3, 3, 3)
    >>> weight[:, 2] = 0.001
    >>> dead_channels(weight)
    tensor([False, False,  True])
    """
    return sparse_rows_and_columns(_sparse(weight, epsilon, comparison), len(weight), groups=groups)[1]


def sparse_rows_and_columns(sparse_N: Tensor, filters: int, *, groups: int = 1) -> tuple[Tensor, Tensor]:
    """Which filters [O] and which input channels [I · groups] have sparse kernels only, from a mask [N].

    >>> import torch
    >>> sparse_rows_and_columns(torch.tensor([True, False, True, True]), 2)
    (tensor([False,  True]), tensor([ True, False]))
    """
    if groups < 1 or filters < 1 or filters % groups or len(sparse_N) % filters:
        raise InputError(
            f"{len(sparse_N)} kernels do not make {filters} filters in {groups} groups: "
            "a weight [O, I / groups, *k] has O filters of I / groups kernels each, and groups divide O"
        )
    sparse_OI = sparse_N.reshape(filters, -1)
    columns_GI = sparse_OI.reshape(groups, filters // groups, -1).all(dim=1)
    return sparse_OI.all(dim=1), columns_GI.flatten()


def _sparse(weight: Tensor, epsilon: float, comparison: Comparison) -> Tensor:
    return sparse_kernels(kernel_matrix(weight), epsilon=epsilon, comparison=comparison)
