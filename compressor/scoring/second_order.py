"""Second derivatives of a loss along a direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from compressor.errors import ScoreError

__all__ = ["Direction", "along"]

Direction = Callable[[Sequence[Tensor]], Sequence[Tensor]]


def along(direction: Direction, loss: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """H d for each tensor, where H are the second derivatives of the loss and d = direction(g).

    `direction` gets the gradients g and returns one tensor for each. None for a tensor that the loss
    does not depend on. Raises ScoreError where the model cannot be differentiated twice; it
    must have run on kernels that can be (`plainly`).
    """
    first = torch.autograd.grad(loss, tensors, create_graph=True, allow_unused=True)
    found = [(tensor, gradient) for tensor, gradient in zip(tensors, first, strict=True)]
    gradients = [torch.zeros_like(t) if g is None else g for t, g in found]
    fixed = [d.detach() for d in direction(gradients)]
    pairs = zip(gradients, fixed, strict=True)
    product = sum(((g * d.conj()).real.sum() for g, d in pairs), torch.zeros((), device=loss.device))
    if not product.requires_grad:
        raise ScoreError(
            "the loss has no second derivative: it is linear in all weights that were asked for; expected "
            "a loss that bends, such as cross_entropy or mse_loss"
        )
    try:
        if _bends_once_only(product):
            raise RuntimeError("a function of its own is marked once_differentiable")
        second = torch.autograd.grad(product, tensors, allow_unused=True)
    except RuntimeError as error:
        raise ScoreError(
            f"the model cannot be differentiated twice ({error}); score with Fisher(batches, loss), which "
            "needs first derivatives only"
        ) from error
    # A tensor may enter linearly (a last bias): then its first derivative says that it was touched.
    return [
        None if g is None else torch.zeros_like(t) if h is None else h
        for (t, g), h in zip(found, second, strict=True)
    ]


def _bends_once_only(value: Tensor) -> bool:
    """Whether a function without second derivative lies behind: autograd.grad leaves it out in silence."""
    waiting, seen = [value.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            if node.name() == "torch::autograd::Error":
                return True
            waiting.extend(following for following, _ in node.next_functions)
    return False
