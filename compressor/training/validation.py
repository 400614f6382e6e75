"""Measuring a model on a validation split, the whole of it at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.core.restoring import modes_kept
from compressor.errors import InputError
from compressor.observing.batches import device_of, loaded, output_of
from compressor.training.processes import gathered_samples

__all__ = ["Metric", "Validation", "accuracy"]

# Of all outputs and all targets of a split, on the CPU, the samples along the first axis.
Metric = Callable[[Tensor, Tensor], float]


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The fraction of samples whose largest output [N, C] is at the target [N].

    >>> accuracy(torch.eye(4), torch.tensor([0, 1, 2, 0]))
    0.75
    """
    return float((outputs.argmax(1) == targets).double().mean())


def _itself(value: Any) -> Any:
    return value


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Batches that are not trained on, and what is measured on them.

    `metric(outputs, targets)` sees the outputs and targets of the whole split, so that macro F1 or a balanced
    accuracy are those of the split and not means over batches. `output` and `target` take the tensors out of
    what the model returns and of what a batch holds, where these are no tensors: `output=lambda out:
    out.logits`, `target=lambda batch: batch["labels"]`.

    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> Validation(batches=batches).measure(nn.Identity())
    1.0
    """

    batches: Iterable[object]
    metric: Metric = accuracy
    larger_is_better: bool = True
    output: Callable[[Any], Tensor] = _itself
    target: Callable[[Any], Tensor] = _itself

    def measure(self, model: nn.Module) -> float:
        """The metric of the model in eval mode, over all processes; modes are given back.

        Raises InputError where there are no batches, where outputs are no tensors, and for a metric that is
        no number.
        """
        outputs, targets = [], []
        with modes_kept(model), torch.no_grad():
            model.eval()
            for batch in loaded(self.batches, device_of(model)):
                outputs.append(self._tensor("output", self.output(output_of(model, batch))))
                targets.append(self._tensor("target", self.target(batch.target)))
                _check_rows(outputs[-1], targets[-1])
        whole = [gathered_samples(torch.cat(parts), self.batches) for parts in (outputs, targets)]
        found = self.metric(*whole)
        try:
            value = float(found)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the validation metric must return one number, got {type(found).__name__} ({error})"
            ) from error
        if math.isnan(value):
            raise InputError(
                "the validation metric is not a number; look for NaN among the outputs, or for a class "
                "without samples in the validation split"
            )
        return value

    def _tensor(self, name: str, value: object) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().float().cpu() if value.is_floating_point() else value.detach().cpu()
        raise InputError(
            f"validation: expected the {name} of a batch as a tensor, got {type(value).__name__}; say where "
            f"it is with Validation({name}=lambda value: ...)"
        )


def _check_rows(output: Tensor, target: Tensor) -> None:
    if output.shape[:1] != target.shape[:1]:
        raise InputError(
            f"validation: expected as many targets as outputs along the first axis, got outputs "
            f"{list(output.shape)} and targets {list(target.shape)}; say where they are with "
            f"Validation(output=..., target=...)"
        )
