"""How far a training is: its place in the epochs, what was measured, and the best weights so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from torch import Tensor, nn

from compressor.training.checkpoint import tensors_of
from compressor.training.history import History

__all__ = ["Progress"]


@dataclass
class Progress:
    """The epoch (from 0), the batches `done` of it, and the `total` of their losses; lists by epoch."""

    epoch: int = 0
    done: int = 0
    total: float = 0.0
    losses: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    metrics: list[float] = field(default_factory=list)
    best: dict[str, Tensor] | None = None
    best_epoch: int | None = None
    stopped: bool = False

    def judge(self, model: nn.Module, metric: float, *, larger_is_better: bool, patience: int | None) -> None:
        """Keep the weights where they are the best so far, and stop where nothing got better for long."""
        self.metrics.append(metric)
        sign = 1 if larger_is_better else -1
        if self.best_epoch is None or sign * metric > sign * self.metrics[self.best_epoch]:
            self.best, self.best_epoch = tensors_of(model), self.epoch
        self.stopped = patience is not None and self.epoch - self.best_epoch >= patience

    def next_epoch(self) -> None:
        """Begin another epoch."""
        self.epoch, self.done, self.total = self.epoch + 1, 0, 0.0

    def history(self) -> History:
        """What happened so far."""
        return History(
            tuple(self.losses), tuple(self.rates), tuple(self.metrics), self.best_epoch, self.stopped
        )

    def state(self) -> dict[str, Any]:
        """All of it by name, as a checkpoint holds it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state; raises KeyError where a part is missing, before anything changes."""
        found = {one.name: state[one.name] for one in fields(self)}
        for name, value in found.items():
            setattr(self, name, value)
