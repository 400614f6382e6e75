"""What a training changes, as one state: weights, optimizer, scaler, average, a loss that learns."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from compressor.errors import FileError, InputError
from compressor.training.attaching import AttachedLoss, Loss
from compressor.training.checkpoint import copy_tensors_, tensors_of

__all__ = ["Held", "Trained"]


@dataclass(eq=False)
class Trained:
    """The model, and what is made for it and changes with it."""

    model: nn.Module
    optimizer: Optimizer
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    loss: Loss

    @property
    def kept(self) -> nn.Module:
        """What is validated and kept in the end: the average of the weights, or the model itself."""
        return self.model if self.average is None else self.average.module

    @property
    def owned(self) -> list[nn.Parameter]:
        """The parameters that the optimizer steps."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def held(self) -> Held:
        """A context that gives buffers, and what the loss learns, their values of now if an error ends it."""
        return Held(self.model, self.loss)

    def state(self) -> dict[str, Any]:
        """All of it by name, as a checkpoint holds it."""
        average = self.average
        return {
            "tensors": tensors_of(self.model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": _state_of(self.loss),
            "average": None if average is None else tensors_of(average.module),
            "updates": 0 if average is None else int(average.n_averaged),
        }

    def take_up(self, state: Mapping[str, Any], source: Path) -> None:
        """Go on from such a state, which lies in the file `source`.

        Raises FileError for that of another optimizer or loss, before anything of the model is changed.
        """
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise FileError(
                f"the optimizer's state in {source} does not fit ({error}): other parameters of the model "
                f"were trainable, or the recipe's optimizer is another; delete the file to start anew"
            ) from error
        self._take_up_loss(state.get("loss", {}), source)
        copy_tensors_(self.model, state["tensors"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            copy_tensors_(self.average.module, state["average"])
            self.average.n_averaged.fill_(state["updates"])

    def _take_up_loss(self, state: Mapping[str, Any], source: Path) -> None:
        try:
            if isinstance(self.loss, AttachedLoss):
                self.loss.load_state_dict(state)
            elif state:
                raise InputError(f"the loss {self.loss!r} takes none")
        except InputError as error:
            raise FileError(
                f"the loss's state in {source} does not fit ({error}); go on with the same loss, or delete "
                f"the file to start anew"
            ) from error


class Held(AbstractContextManager["Held"]):
    """Buffers of a model, and the state of a loss; may be entered several times, for the parts of a step."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        self._loss, self._of_loss = loss, _state_of(loss)
        # Each buffer with a copy of its values, and where it hangs: a forward may assign a new tensor.
        self._buffers = [
            (module, name, buffer, buffer.clone())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with torch.no_grad():
            for module, name, buffer, value in self._buffers:
                if getattr(module, name) is not buffer:
                    setattr(module, name, buffer)
                buffer.copy_(value)
        if isinstance(self._loss, AttachedLoss):
            self._loss.load_state_dict(self._of_loss)


def _state_of(loss: Loss) -> dict[str, Any]:
    return loss.state_dict() if isinstance(loss, AttachedLoss) else {}
