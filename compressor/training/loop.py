"""The training itself: epochs, the batches in them, and the checkpoint from which they go on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from compressor.core.restoring import modes_kept
from compressor.core.tape import named_tensors
from compressor.errors import FileError, InputError
from compressor.observing.batches import Batch, batch_of, device_of, to_device
from compressor.training import processes
from compressor.training.attaching import Attachable, Loss, ModelLoss
from compressor.training.averaging import averaged_copy
from compressor.training.checkpoint import check_model, copy_tensors_, read_checkpoint, write_checkpoint
from compressor.training.history import History
from compressor.training.interrupting import uninterrupted
from compressor.training.preparing import EXHAUSTED, check_precision, epoch_length, made_optimizer
from compressor.training.progress import Progress
from compressor.training.random_state import generators_of, random_state, set_random_state
from compressor.training.recipe import Recipe, schedule_factor
from compressor.training.settings import settings_of
from compressor.training.stepping import Stepper
from compressor.training.trained import Trained
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
        self.device = device_of(model)
        self._model, self._batches, self._recipe, self._validation = model, batches, recipe, validation
        self._given_loss = loss
        self._length = epoch_length(batches, recipe)
        self._undo = ExitStack()
        self._progress = Progress()
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
        check_precision(model, recipe)
        self._settings = settings_of(recipe, self._length, self._given_loss, self._validation, regularizer)
        self._trained = trained = self._made()
        self._checkpoint = checkpoint
        if checkpoint is not None:
            check_model(model)
            if checkpoint.exists():
                self._take_up(checkpoint)
        if regularizer is not None:
            self._undo.callback(regularizer.attach(trained.optimizer).remove)
        wrapped = processes.in_processes(model, self.device)
        self._stepper = Stepper(trained, wrapped, recipe, loss=self._given_loss, device=self.device)
        self._wrapped = wrapped

    def _made(self) -> Trained:
        """What is trained, its loss attached."""
        recipe, model, loss = self._recipe, self._model, self._given_loss
        optimizer = made_optimizer(model, recipe)
        scaler = torch.amp.GradScaler(self.device.type, enabled=recipe.autocast == torch.float16)
        # A copy that nobody has attached anything to yet.
        average = None if recipe.ema is None else averaged_copy(model, recipe.ema)
        self._undo.enter_context(modes_kept(model))
        self._undo.callback(optimizer.zero_grad)
        if isinstance(loss, ModelLoss):
            return Trained(model, optimizer, scaler, average, self._undo.enter_context(loss.attach(model)))
        if not callable(loss):
            raise InputError(f"loss must be a function of (output, target), got {type(loss).__name__}")
        return Trained(model, optimizer, scaler, average, loss)

    # -- the loop --------------------------------------------------------------------------------

    def run(self, *, progress: bool) -> History:
        """Train to the end; what the model then holds is the best there was."""
        here, epochs = self._progress, self._recipe.epochs
        hidden = None if progress and processes.is_first() else True  # None: shown on a terminal only
        at = here.epoch * self._length + here.done
        with tqdm(
            total=epochs * self._length, initial=at, desc="fine-tuning", leave=False, disable=hidden
        ) as bar:
            while here.epoch < epochs and not here.stopped:
                try:
                    self._one_epoch(bar)
                    self._end_epoch(bar)
                except KeyboardInterrupt:
                    self._save_interrupted()
                    raise
        if here.best is not None:
            copy_tensors_(self._model, here.best)
        elif self._trained.average is not None:
            copy_tensors_(self._model, named_tensors(self._trained.kept))
        return here.history()

    def _one_epoch(self, bar: Any) -> None:
        here = self._progress
        processes.set_epoch(self._batches, here.epoch)
        self._train_mode()
        items = self._items()
        while window := list(itertools.islice(items, self._recipe.accumulate)):
            self._step([to_device(batch_of(item), self.device) for item in window])
            bar.update(len(window))
            bar.set_postfix(epoch=here.epoch + 1, loss=f"{here.total / here.done:.4g}", refresh=False)
        if here.done == 0:
            raise InputError(f"epoch {here.epoch + 1} gave no batch, expected {self._length}; {EXHAUSTED}")

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
        for _ in range(self._progress.done):
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
        here = self._progress
        factor = schedule_factor(self._recipe, here.epoch + (here.done + len(window) / 2) / self._length)
        for group in self._trained.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        held = self._trained.held()
        with held:
            loss = self._stepper.gradients(window, epoch=here.epoch, first=here.done)
        with uninterrupted():
            with held:  # a regulariser may refuse in its hook, before a weight has moved
                self._stepper.step()
            here.total += loss
            here.done += len(window)
            if self._checkpoint is not None:
                self._now = random_state(self.device)

    def _train_mode(self) -> None:
        self._wrapped.train()
        if self._recipe.freeze_batch_norm:
            for module in self._model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    # -- between epochs --------------------------------------------------------------------------

    def _end_epoch(self, bar: Any) -> None:
        here, trained = self._progress, self._trained
        processes.same_buffers_(self._model)
        if trained.average is not None:
            processes.same_buffers_(trained.average)
        loss = processes.mean_of_processes(here.total / here.done, self.device)
        metric = None if self._validation is None else self._validation.measure(trained.kept)
        if metric is not None:  # rounding may differ between GPUs, and all have to stop together
            metric = processes.mean_of_processes(metric, self.device)
        with uninterrupted():
            here.losses.append(loss)
            here.rates.append(float(trained.optimizer.param_groups[0]["lr"]))
            if metric is not None and self._validation is not None:
                better = self._validation.larger_is_better
                here.judge(trained.kept, metric, larger_is_better=better, patience=self._recipe.patience)
            here.next_epoch()
            self._start = self._now = None
            if self._checkpoint is not None:
                self._write(self._checkpoint)
        shown = {"loss": f"{loss:.4g}"} | ({} if metric is None else {"metric": f"{metric:.4g}"})
        bar.set_postfix(shown)
        if self._stepper.skipped:
            log.warning(
                "epoch %d: %d steps were left out, as float16 overflowed", here.epoch, self._stepper.skipped
            )
            self._stepper.skipped = 0
        log.info("epoch %d of %d, lr %.3g: %s", here.epoch, self._recipe.epochs, here.rates[-1], shown)

    # -- the checkpoint --------------------------------------------------------------------------

    def _save_interrupted(self) -> None:
        if self._checkpoint is None:
            return
        if processes.world() > 1:  # the others may be anywhere, nothing can be gathered
            log.warning("interrupted: %s holds the end of epoch %d", self._checkpoint, self._progress.epoch)
            return
        self._write(self._checkpoint)
        log.warning("interrupted: %s holds the training up to here", self._checkpoint)

    def _write(self, checkpoint: Path) -> None:
        mine = {"start": self._start or self._random_start(), "now": self._now}
        everyone = processes.gathered_objects(mine)
        if processes.is_first():
            state = {**self._trained.state(), **self._progress.state(), "processes": everyone}
            write_checkpoint(checkpoint, self._model, self._recipe, self._settings, state)

    def _take_up(self, checkpoint: Path) -> None:
        state = read_checkpoint(checkpoint, self._model, self._recipe, self._settings)
        try:
            self._resume(checkpoint, state)
        except (LookupError, TypeError, AttributeError) as error:  # a torch error is none of these
            raise FileError(
                f"the checkpoint {checkpoint} lacks a part ({error!r}), and the model holds some of what is "
                f"there; build the model again, and delete the file to start anew"
            ) from error

    def _resume(self, checkpoint: Path, state: dict[str, Any]) -> None:
        if len(state["processes"]) != processes.world():
            raise InputError(
                f"the checkpoint {checkpoint} was written by {len(state['processes'])} processes, now there "
                f"are {processes.world()}; batches and random numbers would be others. Go on with as many, "
                f"or delete the file to start anew"
            )
        mine = state["processes"][self.rank]
        kept, found = len(mine["start"]["generators"]), len(generators_of(self._batches))
        if kept != found:
            raise FileError(
                f"the loader had {kept} generators when {checkpoint} was written, and has {found} now, so "
                f"that batches would be others; make the same DataLoader, or delete the file to start anew"
            )
        self._trained.take_up(state, checkpoint)
        self._progress.take_up(state)
        self._start, self._now = mine["start"], mine["now"]
        here = self._progress
        log.info("going on at epoch %d, batch %d, from %s", here.epoch + 1, here.done + 1, checkpoint)
