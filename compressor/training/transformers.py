"""Callbacks for the Trainer of transformers: sparse training and gradual pruning in its own loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from compressor.budget import Budget
from compressor.scoring import Scorer
from compressor.scoring.weight_function import WeightScore
from compressor.training.attaching import Attachable, AttachedLoss, Handle
from compressor.training.cuts import CutsByEpoch
from compressor.training.extras import missing
from compressor.training.gradual import GradualPruning
from compressor.training.sparsity.base import innermost

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise missing("transformers", "transformers", error) from error

__all__ = ["GradualPruningCallback", "SparseTrainingCallback", "trainer_loss"]

_IGNORED = -100  # the label that the Trainer does not count


class SparseTrainingCallback(TrainerCallback):
    """Has a regulariser act in every optimizer step of `trainer.train()`, and removes it at its end.

    `regularizer` is one of `training.sparsity`, made from a capture of the model that is trained. After an
    error in the training call `remove()`.

    >>> from compressor.training.sparsity import Regularizer
    >>> class Nothing(Regularizer):
    ...     def before_step(self, optimizer):
    ...         pass
    >>> callback = SparseTrainingCallback(Nothing())  # Trainer(..., callbacks=[callback])
    """

    def __init__(self, regularizer: Attachable) -> None:
        self.regularizer = regularizer
        self._handle: Handle | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Attach; the optimizer's state was restored before."""
        self.remove()
        self._handle = self.regularizer.attach(innermost(kwargs["optimizer"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove."""
        self.remove()

    def remove(self) -> None:
        """Take the regulariser off the optimizer; a second call does nothing."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None


class GradualPruningCallback(TrainerCallback):
    """Prunes the model in place at the start of some epochs (from 0), with the state of its optimizer.

    `args` and `kwargs` are example inputs. See `training.GradualPruning` for the rest. A checkpoint that the
    Trainer wrote after a step does not fit the unpruned model: keep the result with `compressor.save`. Raises
    InputError where a training does not reach all of these epochs.

    >>> import torch, compressor as cp
    >>> callback = GradualPruningCallback(
    ...     input_ids=torch.ones(1, 8, dtype=torch.long), budget=cp.budget.Uniform(0.5), epochs=(1, 2)
    ... )
    """

    def __init__(
        self,
        *args: Any,
        budget: Budget,
        epochs: Sequence[int],
        scorer: Scorer | WeightScore | None = None,
        **kwargs: Any,
    ) -> None:
        self._cuts = CutsByEpoch(args, kwargs, budget=budget, epochs=epochs, scorer=scorer)
        self.pruning: GradualPruning | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Capture the model before the first step."""
        first = round(state.epoch or 0)
        self.pruning = self._cuts.begin(kwargs["model"], first=first, end=state.num_train_epochs)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prune once more where the epoch is one of those named."""
        if round(state.epoch) in self._cuts.epochs and self.pruning is not None:
            self.pruning.step_(innermost(kwargs["optimizer"]))


def trainer_loss(loss: AttachedLoss) -> Callable[..., Tensor]:
    """A loss such as an attached `Distillation` in the form that `Trainer(compute_loss_func=...)` takes.

    The Trainer then leaves the division over accumulated batches to the loss, which is a mean over its own
    batch: it is divided by `num_items_in_batch / batch size`, so that a step is the mean over all its
    samples.
    """

    def compute(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Tensor:
        value = loss(outputs, labels)
        if num_items_in_batch is None:
            return value
        share: Tensor = (labels != _IGNORED).sum() / num_items_in_batch
        return value * share

    return compute
