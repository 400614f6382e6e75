"""An exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["averaged_copy", "warm_decay"]


def warm_decay(decay: float, updates: int) -> float:
    """The decay after so many updates: small at first, so that the starting weights are soon forgotten.

    min(decay, (1 + n) / (10 + n)), as TensorFlow's ExponentialMovingAverage has it with `num_updates`.

    >>> [round(warm_decay(0.999, n), 3) for n in (0, 10, 100_000)]
    [0.1, 0.55, 0.999]
    """
    return min(decay, (1 + updates) / (10 + updates))


def averaged_copy(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of the model whose `update_parameters(model)` averages weights and buffers.

    Statistics of batch norms are averaged like weights, with which they go; counters are copied.

    >>> net = nn.Linear(1, 1)
    >>> average = averaged_copy(net, 0.9)
    >>> average.update_parameters(net)
    >>> bool(average.module.weight == net.weight)
    True
    """

    @torch.no_grad()
    def average(mine: Sequence[Tensor], theirs: Sequence[Tensor], updates: Tensor | int) -> None:
        part = 1 - warm_decay(decay, int(updates))
        for own, new in zip(mine, theirs, strict=True):
            if own.is_floating_point() or own.is_complex():
                own.lerp_(new, part)
            else:
                own.copy_(new)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
