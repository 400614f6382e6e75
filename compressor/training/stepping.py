"""One step of the optimizer: the gradients of some batches, and then the step that they make."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from compressor.errors import InputError, TrainingError
from compressor.observing.batches import Batch
from compressor.training.faults import check_gradients, checked_loss, single_sample
from compressor.training.recipe import Recipe
from compressor.training.trained import Trained

__all__ = ["Stepper"]

_HOPELESS = 32  # halvings from the first scale, 2¹⁶, to 2⁻¹⁶


class Stepper:
    """Steps of what is trained, through `wrapped` (the model, or its DistributedDataParallel).

    `loss` is what the user gave, by which labels are checked.
    """

    def __init__(
        self, trained: Trained, wrapped: nn.Module, recipe: Recipe, *, loss: object, device: torch.device
    ) -> None:
        self._trained, self._wrapped, self._recipe = trained, wrapped, recipe
        self._given_loss, self._device = loss, device
        self._skipped_in_a_row = 0
        self.skipped = 0
        """Steps that a gradient scaler left out, as gradients overflowed."""

    def gradients(self, window: Sequence[Batch], *, epoch: int, first: int) -> float:
        """The sum of the losses of these batches, whose mean gradient the parameters then hold.

        `epoch` and `first`, the number of the window's first batch in it, count from 0 and are for messages.
        An error may leave buffers changed, see `Trained.held`.
        """
        trained = self._trained
        trained.optimizer.zero_grad()
        total = 0.0
        for index, batch in enumerate(window):
            where = f"epoch {epoch + 1}, batch {first + index + 1}"
            total += self._of_batch(batch, where, last=index == len(window) - 1, share=len(window))
        trained.scaler.unscale_(trained.optimizer)
        if not trained.scaler.is_enabled():  # which skips such a step, and scales the next one less
            check_gradients(trained.model, trained.owned, where)
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(trained.owned, self._recipe.clip_norm)
        return total

    def step(self) -> None:
        """Step by the gradients that are there.

        Raises TrainingError where a gradient scaler has left out so many in a row that it found no scale.
        """
        trained = self._trained
        before = trained.scaler.get_scale()
        trained.scaler.step(trained.optimizer)
        trained.scaler.update()
        if trained.scaler.get_scale() < before:
            self.skipped += 1
            self._skipped_in_a_row += 1
        else:
            self._skipped_in_a_row = 0
        if self._skipped_in_a_row >= _HOPELESS:
            raise TrainingError(
                f"gradients overflowed float16 in {_HOPELESS} steps in a row, whatever their scale, so that "
                f"nothing is learnt: look for NaN (roots, logarithms and divisions at 0), or take "
                f"Recipe(autocast=torch.bfloat16), which has the range of float32"
            )
        if trained.average is not None:
            trained.average.update_parameters(trained.model)

    def _of_batch(self, batch: Batch, where: str, *, last: bool, share: int) -> float:
        """The loss of one batch, whose gradients (divided by `share`) are added to the others."""
        wrapped, autocast = self._wrapped, self._recipe.autocast
        waits = isinstance(wrapped, DistributedDataParallel) and not last
        with wrapped.no_sync() if waits else nullcontext():  # type: ignore[operator] # DDP's
            with torch.autocast(self._device.type, autocast, enabled=autocast is not None):
                value = self._loss_of(batch, where)
            self._trained.scaler.scale(value / share).backward()
        return float(value.detach())

    def _loss_of(self, batch: Batch, where: str) -> Tensor:
        try:
            output = self._wrapped(*batch.args, **batch.kwargs)
            value = checked_loss(self._trained.loss, output, batch.target, known=self._given_loss)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        except ValueError as error:
            found = single_sample(error)
            if found is None:
                raise
            raise InputError(f"{where}: {found}") from error
        if not torch.isfinite(value):
            rate = self._trained.optimizer.param_groups[0]["lr"]
            raise TrainingError(
                f"{where}: the loss is {value.item()}, a finite number is needed; training was stopped, and "
                f"the weights are those of the step before. Lower lr (now {rate:.3g}), add warmup_epochs or "
                f"clip_norm, or look for NaN in the batch, or for a batch without samples"
            )
        return value
