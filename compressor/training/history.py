"""What a training did, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.tables import aligned

__all__ = ["History"]


@dataclass(frozen=True)
class History:
    """Mean loss, validation metric and learning rate of each epoch.

    `metrics` is empty without a validation. `best_epoch` (from 0) is the one whose weights the model holds
    now; None without a validation: they are those of the last epoch. `learning_rates` are those of the first
    parameter group at the last step of each epoch.

    >>> print(History((0.9, 0.4), (0.1, 0.05), (0.61, 0.83), best_epoch=1))
    epoch  loss    lr  metric
        1   0.9   0.1    0.61
        2   0.4  0.05    0.83  *
    """

    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]
    metrics: tuple[float, ...] = ()
    best_epoch: int | None = None
    stopped_early: bool = False

    def __str__(self) -> str:
        rows = [["epoch", "loss", "lr", *(["metric", ""] if self.metrics else [])]]
        for epoch, pair in enumerate(zip(self.losses, self.learning_rates, strict=True)):
            row = [str(epoch + 1), *(f"{number:.4g}" for number in pair)]
            if self.metrics:
                row += [f"{self.metrics[epoch]:.4g}", "*" if epoch == self.best_epoch else ""]
            rows.append(row)
        lines = aligned(rows, left=0)
        if self.stopped_early:
            lines.append("stopped early: no better metric within the patience")
        return "\n".join(lines)
