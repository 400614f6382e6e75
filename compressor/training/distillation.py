"""Distillation: a pruned network learns from the outputs and hidden states of the original."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.core.plan import Cut, Plan
from compressor.core.restoring import modes_kept
from compressor.errors import InputError
from compressor.training.attaching import AttachedLoss, LastCall, Loss, ModelLoss, check_devices
from compressor.training.hidden_states import HiddenStates, kept_channels
from compressor.training.precision import at_least_float32

__all__ = ["Distillation", "divergence"]


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) [], the mean over all but the class axis 1.

    *Source: G. Hinton et al., 2015, arXiv 1503.02531, section 2*: the factor T² keeps the gradient's size
    when the temperature changes. (Their cross entropy differs from KL by the teacher's entropy, a constant.)

    >>> divergence(torch.eye(2), torch.eye(2), 4.0).round(decimals=6)
    tensor(0.)
    """
    log_student = F.log_softmax(student / temperature, 1)
    log_teacher = F.log_softmax(teacher / temperature, 1)
    each = (log_teacher.exp() * (log_teacher - log_student)).sum(1)
    return temperature**2 * each.mean()


def _itself(output: Any) -> Any:
    return output


@dataclass(frozen=True, eq=False)
class Distillation(ModelLoss):
    """The loss α · T² KL(teacher ‖ student) + (1 − α) · task(output, target) + Σ weight · distance.

    - `teacher`: the original; it runs in eval mode, without gradients, on what the student was called with.
    - `task`: the loss with labels, a function of (output, target). With `alpha=1` it is not needed.
    - `features`: names of layers with weights of their own (convolutions, linear layers, norms) whose outputs
      are to agree, with their weights: `{"layer2.0.bn2": 1.0}`. The student's channels are compared with
      those of the teacher's that the plan kept.
    - `plan` leads from the teacher to the student; a model that `apply` or `prune` made knows it.
    - `logits` finds the logits [N, C, …] in what the models return: `lambda output: output.logits`.

    It goes into `fine_tune_` as it is. In a loop of your own:

        with Distillation(teacher, F.cross_entropy).attach(student) as loss:
            for x, y in loader:
                loss(student(x), y).backward()

    Raises InputError for a layer that does not exist or has no weight, PlanMismatchError where the plan leads
    to another student.

    >>> import compressor as cp
    >>> teacher = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> x, y = torch.ones(3, 4), torch.tensor([0, 1, 0])
    >>> student = cp.prune(teacher, x, budget=cp.budget.Uniform(0.5))
    >>> with Distillation(teacher, F.cross_entropy, features={"0": 1.0}).attach(student) as loss:
    ...     loss(student(x), y).requires_grad
    True
    """

    teacher: nn.Module = field(repr=False)
    task: Loss | None = None
    alpha: float = 0.5
    temperature: float = 4.0
    features: Mapping[str, float] = field(default_factory=dict)
    plan: Plan | None = field(default=None, repr=False)
    logits: Callable[[Any], Tensor] = _itself

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, nn.Module):
            raise InputError(
                f"Distillation: the teacher must be a torch.nn.Module, got {type(self.teacher).__name__}"
            )
        if not 0 <= self.alpha <= 1:
            raise InputError(f"Distillation: alpha must lie between 0 and 1, got {self.alpha!r}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise InputError(
                f"Distillation: temperature must be positive and finite, got {self.temperature!r}"
            )
        if self.task is None and self.alpha < 1:
            raise InputError(
                "Distillation: with alpha below 1 the labels count as well; give task=torch.nn.functional."
                "cross_entropy, or alpha=1 to learn from the teacher alone"
            )
        object.__setattr__(self, "features", dict(self.features))
        for name, weight in self.features.items():
            if not (isinstance(weight, int | float) and 0 < weight < math.inf):
                raise InputError(
                    f"Distillation: the weight of {name!r} must be positive and finite, got {weight!r}"
                )

    def attach(self, model: nn.Module) -> AttachedLoss:
        """The loss of this student; `remove()` (or the end of a `with`) lets go of both models."""
        check_devices("Distillation", {"student": model, "teacher": self.teacher})
        if self.teacher is model:
            raise InputError(
                "Distillation: teacher and student are the same object; take the original as the teacher, or "
                "copy.deepcopy(model)"
            )
        kept = kept_channels(self.teacher, model, self.plan, self.features)
        return _Distilling(self, model, kept)


class _Distilling(AttachedLoss):
    """What a student was called with and computed on the way, until the loss is asked for."""

    def __init__(self, options: Distillation, student: nn.Module, kept: Mapping[str, Cut | None]) -> None:
        self._options = options
        self._modes = ExitStack()
        self._modes.enter_context(modes_kept(options.teacher))
        options.teacher.eval()
        self._call = LastCall(student, loss="Distillation")
        self._states = HiddenStates(options.teacher, student, kept)

    def __call__(self, output: Any, target: Any) -> Tensor:
        """The loss of the student's last forward pass."""
        options = self._options
        args, kwargs = self._call.take()
        with torch.no_grad():
            theirs = options.teacher(*args, **kwargs)
        mine, theirs = self._logits(output), self._logits(theirs)
        if mine.shape != theirs.shape or mine.dim() < 2:
            raise InputError(
                f"Distillation: expected logits [N, C, ...] of one shape, got {list(mine.shape)} of the "
                f"student and {list(theirs.shape)} of the teacher; have they the same classes?"
            )
        loss = options.alpha * divergence(mine, theirs, options.temperature)
        if options.task is not None and options.alpha < 1:
            loss = loss + (1 - options.alpha) * options.task(output, target)
        for name, weight in options.features.items():
            loss = loss + weight * self._states.distance(name)
        self._states.clear()
        return loss

    def remove(self) -> None:
        """Stop watching, and give the teacher its modes back."""
        self._states.remove()
        self._modes.close()
        self._call.remove()

    def _logits(self, output: Any) -> Tensor:
        logits = self._options.logits(output)
        if not isinstance(logits, Tensor):
            raise InputError(
                f"Distillation: expected the logits as a tensor, got {type(logits).__name__}; say where they "
                f"are with Distillation(logits=lambda output: ...)"
            )
        return at_least_float32(logits)
