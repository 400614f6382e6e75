"""What can be attached to a training: a regulariser to its optimizer, a loss to its model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import InputError
from compressor.observing.batches import device_of

__all__ = ["Attachable", "AttachedLoss", "Handle", "LastCall", "Loss", "ModelLoss", "check_devices"]

Loss = Callable[[Any, Any], Tensor]


class Handle(Protocol):
    """What `attach` returns."""

    def remove(self) -> None:
        """Take back what was attached."""


@runtime_checkable
class Attachable(Protocol):
    """A penalty that lives in the optimizer's step: anything with this one method.

    It works in every loop that calls `optimizer.step()`, whoever wrote it.

    >>> class Shrink:
    ...     '''Every step takes 1 % off all weights.'''
    ...     def attach(self, optimizer):
    ...         def shrink(optimizer, args, kwargs):
    ...             for group in optimizer.param_groups:
    ...                 for weight in group["params"]:
    ...                     weight.data.mul_(0.99)
    ...         return optimizer.register_step_post_hook(shrink)
    """

    def attach(self, optimizer: Optimizer) -> Handle:
        """Let the penalty act in every step of the optimizer until the handle's `remove()`."""


class AttachedLoss(ABC):
    """A loss that watches a model; a context manager that ends with `remove()`."""

    @abstractmethod
    def __call__(self, output: Any, target: Any) -> Tensor:
        """The loss [] of what the model returned last."""

    @abstractmethod
    def remove(self) -> None:
        """Stop watching, and give back everything that was switched."""

    def state_dict(self) -> dict[str, Any]:
        """What the loss itself learns, as copies: tensors and plain values; nothing where it learns nothing.

        `fine_tune_` puts it into the checkpoint, and gives it back where a step fails half-way.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned. Raises InputError for the state of another loss."""
        if state:
            raise InputError(f"{type(self).__name__} has no state, got one with {', '.join(state)}")

    def __enter__(self) -> AttachedLoss:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


class LastCall:
    """What a model was called with last, until a loss takes it.

    Calls without gradients, as of a validation in between, are not what is learnt from and are not seen.
    """

    def __init__(self, model: nn.Module, *, loss: str) -> None:
        self._loss = loss
        self._call: tuple[tuple[Any, ...], Mapping[str, Any]] | None = None
        self._handle = model.register_forward_pre_hook(self._called, with_kwargs=True, prepend=True)

    def take(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Its arguments, given out once. Raises InputError where there was no call since the last time."""
        if self._call is None:
            raise InputError(
                f"{self._loss}: the model was not called since the last loss; call the model that this loss "
                f"is attached to once before each loss"
            )
        call, self._call = self._call, None
        return call

    def remove(self) -> None:
        """Stop watching."""
        self._handle.remove()
        self._call = None

    def _called(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():
            self._call = args, kwargs


class ModelLoss(ABC):
    """A loss that needs more than output and target, as distillation does: it is attached to the model."""

    @abstractmethod
    def attach(self, model: nn.Module) -> AttachedLoss:
        """The loss of this model, to be called as `loss(output, target)` after each forward pass."""


def check_devices(loss: str, models: Mapping[str, nn.Module]) -> None:
    """Raise InputError unless two models, each with what the loss calls it, lie on one device."""
    (here, first), (there, second) = ((name, device_of(model)) for name, model in models.items())
    if first != second:
        raise InputError(
            f"{loss}: the {here} is on {first} and the {there} on {second}; {there}.to({str(first)!r})"
        )
