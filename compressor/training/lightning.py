"""Callbacks for Lightning: sparse training and gradual pruning in its own loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from compressor.budget import Budget
from compressor.errors import InputError
from compressor.scoring import Scorer
from compressor.scoring.weight_function import WeightScore
from compressor.training.attaching import Attachable, Handle
from compressor.training.cuts import CutsByEpoch
from compressor.training.extras import missing
from compressor.training.gradual import GradualPruning

try:
    from pytorch_lightning import Callback, LightningModule, Trainer
except ImportError:
    try:  # the same library under its other name
        from lightning.pytorch import (  # type: ignore[no-redef]
            Callback,
            LightningModule,
            Trainer,
        )
    except ImportError as error:
        raise missing("Lightning", "lightning", error) from error

__all__ = ["GradualPruningCallback", "SparseTrainingCallback"]


class SparseTrainingCallback(Callback):
    """Has a regulariser act in every optimizer step of `trainer.fit`, and removes it at its end.

    `regularizer` is one of `training.sparsity`, made from a capture of the network that is trained. How many
    steps it did is in the optimizer's state, so that a fit from a checkpoint goes on where it was.

    >>> import torch, compressor as cp
    >>> from compressor.training import sparsity
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    >>> graph = cp.capture(net, torch.rand(3, 4))
    >>> plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    >>> regularizer = sparsity.MaskSparsity(plan, graph, sparsity.Proximal(0.01))
    >>> trainer = Trainer(callbacks=[SparseTrainingCallback(regularizer)], logger=False)
    """

    def __init__(self, regularizer: Attachable) -> None:
        self.regularizer = regularizer
        self._handle: Handle | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach; the optimizer's state was restored before."""
        self._handle = self.regularizer.attach(_the_optimizer(trainer, type(self).__name__))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove after an error or Ctrl-C as well."""
        self._remove()

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class GradualPruningCallback(Callback):
    """Prunes the module in place at the start of some epochs (from 0), with the state of its optimizer.

    `args` are example inputs of what is pruned: the LightningModule's own forward, or `network(pl_module)`,
    say `lambda task: task.net`. See `training.GradualPruning` for the rest. A checkpoint that Lightning wrote
    after a step does not fit the unpruned module: keep the result with `compressor.save`. Raises InputError
    where a fit does not reach all of these epochs.

    >>> import torch, compressor as cp
    >>> callback = GradualPruningCallback(
    ...     torch.rand(1, 3, 8, 8),
    ...     budget=cp.budget.Macs(0.5),
    ...     epochs=(2, 4, 6),
    ...     network=lambda task: task.net,
    ... )
    """

    def __init__(
        self,
        *args: Any,
        budget: Budget,
        epochs: Sequence[int],
        scorer: Scorer | WeightScore | None = None,
        network: Callable[[Any], nn.Module] = lambda task: task,
        **kwargs: Any,
    ) -> None:
        self._network = network
        self._cuts = CutsByEpoch(args, kwargs, budget=budget, epochs=epochs, scorer=scorer)
        self.pruning: GradualPruning | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Capture the network before the first step."""
        end = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None
        self.pruning = self._cuts.begin(self._network(pl_module), first=trainer.current_epoch, end=end)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prune once more where the epoch is one of those named."""
        if trainer.current_epoch in self._cuts.epochs and self.pruning is not None:
            self.pruning.step_(_the_optimizer(trainer, type(self).__name__))


def _the_optimizer(trainer: Trainer, who: str) -> Optimizer:
    if len(trainer.optimizers) != 1:
        raise InputError(
            f"{who}: the LightningModule has {len(trainer.optimizers)} optimizers, expected one; attach to "
            f"one of several in configure_optimizers, with regularizer.attach(optimizer)"
        )
    return trainer.optimizers[0]
