"""What a regulariser is: one method called before each optimizer step, and how it is attached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any
from weakref import WeakSet

from torch.optim import Optimizer

from compressor.errors import InputError

__all__ = ["Attached", "Regularizer", "innermost"]


class Regularizer(ABC):
    """Acts on gradients before an optimizer step, or on weights after it; subclass with `before_step`.

    In a loop of your own, once per optimizer step, however many backward passes it takes:

        loss.backward()
        scaler.unscale_(optimizer)      # with a GradScaler
        regularizer.before_step(optimizer)
        optimizer.step()
        regularizer.after_step(optimizer)

    or `regularizer.attach(optimizer)` once before the loop, in which case nothing else is to be done: not
    with gradient accumulation, a GradScaler, DDP, closures, nor in the loops of Lightning, transformers
    or Accelerate.

    >>> import torch
    >>> class WeightDecay(Regularizer):
    ...     '''Adds a thousandth of every weight to its gradient.'''
    ...     def before_step(self, optimizer):
    ...         for group in optimizer.param_groups:
    ...             for weight in group["params"]:
    ...                 weight.grad.add_(weight.detach(), alpha=1e-3)
    >>> layer = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> with WeightDecay().attach(optimizer):
    ...     layer(torch.ones(1, 2)).sum().backward()
    ...     optimizer.step()
    """

    @abstractmethod
    def before_step(self, optimizer: Optimizer) -> None:
        """Change the gradients, once they are complete and not scaled, right before the optimizer's step."""

    def after_step(self, optimizer: Optimizer) -> None:
        """Change the weights right after the optimizer's step."""
        return None

    def check(self, optimizer: Optimizer) -> None:
        """Raise InputError where the optimizer is not one that this regulariser can act on."""
        return None

    def detach(self, optimizer: Optimizer) -> None:
        """Take back what was left in the optimizer; called by the handle's `remove()`."""
        return None

    def attach(self, optimizer: Optimizer) -> Attached:
        """Have both methods called around every step of the optimizer, until the handle's `remove()`.

        Raises InputError where the optimizer does not fit, or this regulariser is attached already.
        """
        inner = innermost(optimizer)
        self.check(inner)
        return Attached(self, inner)


# One regulariser acts on one optimizer once: what it adds twice would be twice as strong.
_ATTACHED: WeakSet[Regularizer] = WeakSet()


class Attached:
    """A regulariser at work on an optimizer; `remove()` it, or use it in a `with` statement."""

    def __init__(self, regularizer: Regularizer, optimizer: Optimizer) -> None:
        if regularizer in _ATTACHED:
            raise InputError(
                f"{type(regularizer).__name__} is attached to an optimizer already; remove() that first"
            )
        self.regularizer = regularizer
        self._optimizer = optimizer
        self._hooks = [
            optimizer.register_step_pre_hook(self._before),
            optimizer.register_step_post_hook(self._after),
        ]
        _ATTACHED.add(regularizer)

    def remove(self) -> None:
        """Leave the optimizer as it was; a second call does nothing."""
        if self._hooks:
            self.regularizer.detach(self._optimizer)
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        _ATTACHED.discard(self.regularizer)

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    def _before(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Act now; where the step takes a closure, on the gradients that it makes (Lightning, LBFGS)."""
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self.regularizer.before_step(optimizer)
            return None

        def regularised() -> Any:
            loss = closure()
            if _has_gradients(optimizer):  # Lightning skips a batch by making none
                self.regularizer.before_step(optimizer)
            return loss

        rest = {key: value for key, value in kwargs.items() if key != "closure"}
        return (args[0], *args[2:]), {**rest, "closure": regularised}

    def _after(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[Any, Any]) -> None:
        self.regularizer.after_step(optimizer)


def _has_gradients(optimizer: Optimizer) -> bool:
    return any(p.grad is not None for group in optimizer.param_groups for p in group["params"])


def innermost(optimizer: object) -> Optimizer:
    """The optimizer that steps, inside of those that wrap it; raises InputError for what is none."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = inner
    if not isinstance(optimizer, Optimizer):
        raise InputError(
            f"expected a torch optimizer, made from model.parameters(), got {type(optimizer).__name__}"
        )
    return optimizer
