"""The training itself: steps, epochs, and the state between them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from compressor.core.restoring import modes_kept
from compressor.core.tape import named_tensors
from compressor.errors import FileError, InputError, TrainingError
from compressor.observing.batches import Batch, batch_of, device_of, to_device
from compressor.training import processes
from compressor.training.attaching import Attachable, AttachedLoss, Loss, ModelLoss
from compressor.training.averaging import averaged_copy
from compressor.training.checkpoint import (
    check_model,
    copy_tensors_,
    read_checkpoint,
    tensors_of,
    write_checkpoint,
)
from compressor.training.faults import checked_loss, single_sample
from compressor.training.history import History
from compressor.training.interrupting import uninterrupted
from compressor.training.preparing import EXHAUSTED, epoch_length, made_optimizer
from compressor.training.random_state import generators_of, random_state, set_random_state
from compressor.training.recipe import Recipe, schedule_factor
from compressor.training.validation import Validation

__all__ = ["Training"]

log = logging.getLogger(__name__)


class Training(AbstractContextManager["Training"]):
    """One run of `fine_tune_`; as a context it gives back what it switched."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[object],
        loss: Loss | ModelLoss,
        recipe: Recipe,
        validation: Validation | None,
    ) -> None:
        self.rank = processes.number()
        self._model, self._batches, self._recipe, self._validation = model, batches, recipe, validation
        self._length = epoch_length(batches, recipe)
        self.device = device_of(model)
        self._given_loss = loss
        self._attached: AttachedLoss | None = None
        self._undo = ExitStack()
        # How far the training is.
        self._epoch = self._done = 0
        self._total = 0.0
        self._losses: list[float] = []
        self._rates: list[float] = []
        self._metrics: list[float] = []
        self._best: dict[str, Tensor] | None = None
        self._best_epoch: int | None = None
        self._stopped = False
        # The random state before the epoch's loader was started, and that after its last step; None where
        # there was none yet.
        self._start: dict[str, Any] | None = None
        self._now: dict[str, Any] | None = None

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    # -- before ----------------------------------------------------------------------------------

    def prepare(self, regularizer: Attachable | None, checkpoint: Path | None) -> None:
        """Make the optimizer and everything around it, and take up a checkpoint where there is one."""
        recipe, model = self._recipe, self._model
        processes.check_share(self._batches)
        self._optimizer = made_optimizer(model, recipe)
        half = recipe.autocast == torch.float16
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        # A copy that nobody has attached anything to yet.
        self._average = None if recipe.ema is None else averaged_copy(model, recipe.ema)
        self._undo.enter_context(modes_kept(model))
        self._undo.callback(self._optimizer.zero_grad)
        loss = self._given_loss
        if isinstance(loss, ModelLoss):
            self._attached = self._undo.enter_context(loss.attach(model))
            self._loss: Loss = self._attached
        elif callable(loss):
            self._loss = loss
        else:
            raise InputError(f"loss must be a function of (output, target), got {type(loss).__name__}")
        self._checkpoint = checkpoint
        if checkpoint is not None:
            check_model(model)
            if checkpoint.exists():
                self._take_up(checkpoint)
        if regularizer is not None:
            self._undo.callback(regularizer.attach(self._optimizer).remove)
        self._wrapped = processes.in_processes(model, self.device)

    # -- the loop --------------------------------------------------------------------------------

    def run(self, *, progress: bool) -> History:
        """Train to the end; what the model then holds is the best there was."""
        total = self._recipe.epochs * self._length
        hidden = None if progress and processes.is_first() else True  # None: shown on a terminal only
        at = self._epoch * self._length + self._done
        with tqdm(total=total, initial=at, desc="fine-tuning", leave=False, disable=hidden) as bar:
            while self._epoch < self._recipe.epochs and not self._stopped:
                try:
                    self._one_epoch(bar)
                    self._end_epoch(bar)
                except KeyboardInterrupt:
                    self._save_interrupted()
                    raise
        if self._best is not None:
            copy_tensors_(self._model, self._best)
        elif self._average is not None:
            copy_tensors_(self._model, named_tensors(self._average.module))
        return self._history()

    def _one_epoch(self, bar: Any) -> None:
        processes.set_epoch(self._batches, self._epoch)
        self._train_mode()
        items = self._items()
        while window := list(itertools.islice(items, self._recipe.accumulate)):
            self._step([to_device(batch_of(item), self.device) for item in window])
            bar.update(len(window))
            bar.set_postfix(epoch=self._epoch + 1, loss=f"{self._total / self._done:.4g}", refresh=False)
        if self._done == 0:
            raise InputError(f"epoch {self._epoch + 1} gave no batch, expected {self._length}; {EXHAUSTED}")

    def _items(self) -> Iterator[object]:
        """What is left of the epoch; after a resume, read from its start and skipped."""
        generators = generators_of(self._batches)
        if self._start is None:
            self._start = self._random_start()
        else:
            set_random_state(self._start["random"], self.device)
            for own, state in zip(generators, self._start["generators"], strict=True):
                own.set_state(state)
        items = itertools.islice(iter(self._batches), self._length)
        for _ in range(self._done):
            next(items, None)
        if self._now is not None:
            set_random_state(self._now, self.device)
        return items

    def _random_start(self) -> dict[str, Any]:
        return {
            "random": random_state(self.device),
            "generators": [own.get_state() for own in generators_of(self._batches)],
        }

    def _step(self, window: Sequence[Batch]) -> None:
        """One step of the optimizer; an error before it leaves the model as the last step did."""
        buffers = _held_buffers(self._model)
        of_loss = self._state_of_loss()
        factor = schedule_factor(self._recipe, self._epoch + (self._done + len(window) / 2) / self._length)
        for group in self._optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        self._optimizer.zero_grad()
        try:
            sums = [
                self._gradients(batch, self._done + index, last=index == len(window) - 1, share=len(window))
                for index, batch in enumerate(window)
            ]
            self._scaler.unscale_(self._optimizer)
            if self._recipe.clip_norm is not None:
                owned = [p for group in self._optimizer.param_groups for p in group["params"]]
                nn.utils.clip_grad_norm_(owned, self._recipe.clip_norm)
        except BaseException:
            _restore_buffers(buffers)
            if self._attached is not None:
                self._attached.load_state_dict(of_loss)
            raise
        with uninterrupted():
            self._scaler.step(self._optimizer)
            self._scaler.update()
            if self._average is not None:
                self._average.update_parameters(self._model)
            self._total += sum(sums)
            self._done += len(window)
            if self._checkpoint is not None:
                self._now = random_state(self.device)

    def _gradients(self, batch: Batch, number: int, *, last: bool, share: int) -> float:
        """The loss of one batch, whose gradients (divided by `share`) are added to the others."""
        wrapped = self._wrapped
        where = f"epoch {self._epoch + 1}, batch {number + 1}"
        with (
            wrapped.no_sync() if isinstance(wrapped, DistributedDataParallel) and not last else nullcontext()
        ):
            with torch.autocast(
                self.device.type, self._recipe.autocast, enabled=self._recipe.autocast is not None
            ):
                value = self._loss_of(batch, where)
            self._scaler.scale(value / share).backward()
        return float(value.detach())

    def _loss_of(self, batch: Batch, where: str) -> Tensor:
        try:
            output = self._wrapped(*batch.args, **batch.kwargs)
            value = checked_loss(self._loss, output, batch.target, known=self._given_loss)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        except ValueError as error:
            found = single_sample(error)
            if found is None:
                raise
            raise InputError(f"{where}: {found}") from error
        if not torch.isfinite(value):
            rate = self._optimizer.param_groups[0]["lr"]
            raise TrainingError(
                f"{where}: the loss is {value.item()}, a finite number is needed; training was stopped, and "
                f"the weights are those of the step before. Lower lr (now {rate:.3g}), add warmup_epochs or "
                f"clip_norm, or look for NaN in the batch"
            )
        return value

    def _train_mode(self) -> None:
        self._wrapped.train()
        if self._recipe.freeze_batch_norm:
            for module in self._model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    # -- between epochs --------------------------------------------------------------------------

    def _end_epoch(self, bar: Any) -> None:
        processes.same_buffers_(self._model)
        kept = self._model
        if self._average is not None:
            processes.same_buffers_(self._average)
            kept = self._average.module
        loss = processes.mean_of_processes(self._total / self._done, self.device)
        metric = None if self._validation is None else self._validation.measure(kept)
        if metric is not None:  # rounding may differ between GPUs, and all have to stop together
            metric = processes.mean_of_processes(metric, self.device)
        with uninterrupted():
            self._losses.append(loss)
            self._rates.append(float(self._optimizer.param_groups[0]["lr"]))
            if metric is not None:
                self._judge(kept, metric)
            self._epoch, self._done, self._total = self._epoch + 1, 0, 0.0
            self._start = self._now = None
            if self._checkpoint is not None:
                self._write()
        shown = (
            {"loss": f"{loss:.4g}"} if metric is None else {"loss": f"{loss:.4g}", "metric": f"{metric:.4g}"}
        )
        bar.set_postfix(shown)
        log.info("epoch %d of %d, lr %.3g: %s", self._epoch, self._recipe.epochs, self._rates[-1], shown)

    def _judge(self, model: nn.Module, metric: float) -> None:
        """Keep the weights where they are the best so far, and stop where nothing got better for long."""
        assert self._validation is not None
        self._metrics.append(metric)
        sign = 1 if self._validation.larger_is_better else -1
        if self._best_epoch is None or sign * metric > sign * self._metrics[self._best_epoch]:
            self._best, self._best_epoch = tensors_of(model), self._epoch
        patience = self._recipe.patience
        self._stopped = patience is not None and self._epoch - self._best_epoch >= patience

    def _history(self) -> History:
        return History(
            tuple(self._losses), tuple(self._rates), tuple(self._metrics), self._best_epoch, self._stopped
        )

    def _state_of_loss(self) -> dict[str, Any]:
        return {} if self._attached is None else self._attached.state_dict()

    # -- the checkpoint --------------------------------------------------------------------------

    def _save_interrupted(self) -> None:
        if self._checkpoint is None:
            return
        if processes.world() > 1:  # the others may be anywhere, nothing can be gathered
            log.warning("interrupted: %s holds the end of epoch %d", self._checkpoint, self._epoch)
            return
        self._write()
        log.warning("interrupted: %s holds the training up to here", self._checkpoint)

    def _write(self) -> None:
        assert self._checkpoint is not None
        mine = {"start": self._start or self._random_start(), "now": self._now}
        everyone = processes.gathered_objects(mine)
        if not processes.is_first():
            return
        average = self._average
        state = {
            "tensors": tensors_of(self._model),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "loss": self._state_of_loss(),
            "average": None if average is None else tensors_of(average.module),
            "updates": 0 if average is None else int(average.n_averaged),
            "best": self._best,
            "best_epoch": self._best_epoch,
            "epoch": self._epoch,
            "done": self._done,
            "total": self._total,
            "losses": self._losses,
            "rates": self._rates,
            "metrics": self._metrics,
            "stopped": self._stopped,
            "processes": everyone,
        }
        write_checkpoint(self._checkpoint, self._model, self._recipe, state)

    def _take_up(self, checkpoint: Path) -> None:
        state = read_checkpoint(checkpoint, self._model, self._recipe)
        try:
            self._resume(state)
        except (LookupError, TypeError, AttributeError) as error:  # a torch error is none of these
            raise FileError(
                f"the checkpoint {checkpoint} lacks a part ({error!r}), and the model holds some of what is "
                f"there; build the model again, and delete the file to start anew"
            ) from error

    def _resume(self, state: dict[str, Any]) -> None:
        if len(state["processes"]) != processes.world():
            raise InputError(
                f"the checkpoint {self._checkpoint} was written by {len(state['processes'])} processes, now "
                f"there are {processes.world()}; batches and random numbers would be others. Go on with as "
                f"many, or delete the file to start anew"
            )
        mine = state["processes"][self.rank]
        kept, found = len(mine["start"]["generators"]), len(generators_of(self._batches))
        if kept != found:
            raise FileError(
                f"the loader had {kept} generators when {self._checkpoint} was written, and has {found} now, "
                f"so that batches would be others; make the same DataLoader, or delete the file to start anew"
            )
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise FileError(
                f"the optimizer's state in {self._checkpoint} does not fit ({error}): other parameters of "
                f"the model were trainable, or the recipe's optimizer is another; delete the file to start "
                f"anew"
            ) from error
        self._resume_loss(state.get("loss", {}))
        copy_tensors_(self._model, state["tensors"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            copy_tensors_(self._average.module, state["average"])
            self._average.n_averaged.fill_(state["updates"])
        self._best, self._best_epoch = state["best"], state["best_epoch"]
        self._epoch, self._done, self._total = state["epoch"], state["done"], state["total"]
        self._losses, self._rates, self._metrics = state["losses"], state["rates"], state["metrics"]
        self._stopped = state["stopped"]
        self._start, self._now = mine["start"], mine["now"]
        log.info("going on at epoch %d, batch %d, from %s", self._epoch + 1, self._done + 1, self._checkpoint)

    def _resume_loss(self, state: dict[str, Any]) -> None:
        """Before anything of the model is changed: a state that does not fit leaves it as it is."""
        try:
            if self._attached is not None:
                self._attached.load_state_dict(state)
            elif state:
                raise InputError(f"the loss {self._given_loss!r} takes none")
        except InputError as error:
            raise FileError(
                f"the loss's state in {self._checkpoint} does not fit ({error}); go on with the same loss, "
                f"or delete the file to start anew"
            ) from error


_Held = list[tuple[nn.Module, str, Tensor, Tensor]]


def _held_buffers(model: nn.Module) -> _Held:
    """Each buffer with a copy of its values, and where it hangs: a forward may assign a new tensor."""
    return [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]


@torch.no_grad()
def _restore_buffers(held: _Held) -> None:
    for module, name, buffer, value in held:
        if getattr(module, name) is not buffer:
            setattr(module, name, buffer)
        buffer.copy_(value)
