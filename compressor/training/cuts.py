"""A gradual pruning at the start of some epochs, as callbacks in the loops of other libraries make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from compressor.budget import Budget
from compressor.errors import InputError
from compressor.scoring import Scorer
from compressor.scoring.weight_function import WeightScore
from compressor.training.gradual import GradualPruning

__all__ = ["CutsByEpoch"]


class CutsByEpoch:
    """The options of a `GradualPruning`, one step of it for each of `epochs` (from 0).

    >>> from compressor.budget import Macs
    >>> CutsByEpoch((), {}, budget=Macs(0.5), epochs=(4, 2), scorer=None).epochs
    (2, 4)
    """

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        budget: Budget,
        epochs: Sequence[int],
        scorer: Scorer | WeightScore | None,
    ) -> None:
        if not epochs or not all(isinstance(epoch, int) and epoch >= 0 for epoch in epochs):
            raise InputError(f"epochs are those to prune at, whole numbers from 0, got {tuple(epochs)}")
        self._args, self._kwargs = args, kwargs
        self._budget, self._scorer = budget, scorer
        self.epochs = tuple(sorted(set(epochs)))

    def begin(self, model: nn.Module, *, first: int, end: int | None) -> GradualPruning:
        """The pruning of a model whose training goes from epoch `first` up to `end`, None where that is open.

        Raises InputError for epochs that it does not reach: the budget would not be met, and nobody told.
        """
        missed = [epoch for epoch in self.epochs if epoch < first or (end is not None and epoch >= end)]
        if missed:
            last = "on" if end is None else f"to {end - 1}"
            raise InputError(
                f"pruning is to step at the start of epochs {', '.join(map(str, self.epochs))} (from 0), and "
                f"the training goes from epoch {first} {last}, without {', '.join(map(str, missed))}: the "
                f"budget would not be reached. Name epochs of the training, and start it unpruned"
            )
        return GradualPruning(
            model,
            *self._args,
            budget=self._budget,
            scorer=self._scorer,
            steps=len(self.epochs),
            **self._kwargs,
        )
