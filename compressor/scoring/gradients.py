"""Gradients of a loss, batch by batch, that leave the model as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.restoring import restored
from compressor.core.tape import named_tensors
from compressor.errors import CompressorError, InputError, ScoreError
from compressor.observing.batches import loaded, output_of

__all__ = ["Differentiate", "Loss", "first_order", "for_each_batch"]

Loss = Callable[[Any, Any], Tensor]
Differentiate = Callable[[Tensor, Sequence[Tensor]], Sequence["Tensor | None"]]
_log = logging.getLogger(__name__)


def first_order(loss: Tensor, tensors: Sequence[Tensor]) -> Sequence[Tensor | None]:
    """The gradient of a loss by each tensor; None by one that it does not depend on."""
    return torch.autograd.grad(loss, tensors, allow_unused=True)


def for_each_batch(
    model: nn.Module,
    names: Collection[str],
    batches: Iterable[object],
    loss: Loss,
    consume: Callable[[Mapping[str, Tensor]], None],
    *,
    differentiate: Differentiate = first_order,
    max_batches: int | None = None,
    autocast: torch.dtype | None = None,
    progress: Callable[[int], None] | None = None,
) -> int:
    """The number of batches whose gradients were given to `consume`, one mapping by name for each.

    `differentiate` may take something else than gradients of the loss, in the shapes of the tensors.
    The model runs in eval mode and is restored at the end, also after an error. A tensor that a
    batch does not touch has gradient zero; one that no batch touches raises ScoreError.
    """
    tensors = {name: tensor for name, tensor in named_tensors(model).items() if name in names}
    device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
    touched: set[str] = set()
    count = 0
    with _differentiable(model, tensors.values()):
        for batch in loaded(batches, device, max_batches=max_batches):
            with ExitStack() as stack:
                if autocast is not None:
                    stack.enter_context(torch.autocast(device.type, autocast))
                value = _loss_of(loss, output_of(model, batch), batch.target, count)
            _check_loss(value, count)
            found = differentiate(value, list(tensors.values()))
            gradients = dict(zip(tensors, found, strict=True))
            touched.update(name for name, own in gradients.items() if own is not None)
            with torch.no_grad():
                consume(
                    {
                        name: torch.zeros_like(tensors[name]) if own is None else own
                        for name, own in gradients.items()
                    }
                )
            count += 1
            _log.debug("batch %d: loss %g", count, value)
            if progress is not None:
                progress(count)
    _check_touched(count, [name for name in tensors if name not in touched])
    return count


@contextmanager
def _differentiable(model: nn.Module, tensors: Iterable[Tensor]) -> Iterator[None]:
    """Within, the model runs in eval mode, with gradients for `tensors`; then all is as before.

    Gradients are taken with `torch.autograd.grad`, so `.grad` is never written.
    """
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with ExitStack() as stack:
        contents = stack.enter_context(restored(model, training=False))
        # To look at every operator would take longer than copying what a forward may write to.
        contents.keep(model.buffers())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if recurrent:  # cuDNN has no backward pass for recurrent layers in eval mode
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        for tensor in tensors:
            tensor.requires_grad_(True)
        yield


def _loss_of(loss: Loss, output: Any, target: Any, count: int) -> Any:
    try:
        return loss(output, target)
    except (CompressorError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        raise InputError(
            f"the loss of batch {count} cannot be computed: {type(error).__name__}: {error}; expected a loss "
            f"of (output, target) and batches (inputs, target) that fit it, class numbers from 0 for "
            f"cross_entropy"
        ) from error


def _check_loss(value: object, count: int) -> None:
    where = f"the loss of batch {count}"
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(
            f"{where}: expected one number as a tensor, got {got}; loss(output, target) must "
            "reduce, for example with .mean()"
        )
    if not value.requires_grad:
        raise InputError(
            f"{where}: expected a tensor that depends on the weights, got one without gradient; "
            "compute it with torch operations, without .detach(), .item() or torch.no_grad()"
        )
    if not torch.isfinite(value):
        raise ScoreError(
            f"{where}: expected a finite number, got {value.item()}; look for NaN in the batch or "
            "the weights or for a batch without an example, or take another autocast dtype"
        )


def _check_touched(count: int, untouched: list[str]) -> None:
    if untouched:
        raise ScoreError(
            f"no gradient reached {untouched[0]!r} in {count} batches ({len(untouched)} tensors in "
            "all), expected one from the loss; does a part of the model run under torch.no_grad(), "
            "or only on other data? Let the loss depend on it, or score with Norm()"
        )
