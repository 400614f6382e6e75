"""The engine of the regularisers: slices of parameters, each with the form that empties it."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.core.graph import Graph
from compressor.core.tape import named_tensors
from compressor.errors import InputError
from compressor.training.sparsity.agreement import check_agreement
from compressor.training.sparsity.base import Regularizer
from compressor.training.sparsity.forms import Form
from compressor.training.sparsity.slices import Slices

__all__ = ["Push", "SliceRegularizer", "pushes"]


@dataclass(frozen=True, eq=False)
class Push:
    """A form that acts on the slices of a parameter."""

    slices: Slices
    parameter: nn.Parameter
    form: Form


def pushes(graph: Graph, chosen: Iterable[tuple[Sequence[Slices], Form]]) -> tuple[Push, ...]:
    """The pushes for slices of the graph's model, with strengths fitted to their largest row.

    A row's size is the root mean square of its numbers, of a scale |γ|.
    """
    tensors = named_tensors(graph.model)
    found = []
    for many, form in chosen:
        if not isinstance(form, Form):
            raise InputError(
                f"a form such as Proximal(1e-3) or Decay(1000) is expected, got "
                f"{type(form).__name__} {form!r}"
            )
        with torch.no_grad():
            reach = max((_largest(slices.rows(tensors[slices.name])) for slices in many), default=0.0)
        fitted = form.fitted(reach)
        for slices in many:
            parameter = tensors[slices.name]
            assert isinstance(parameter, nn.Parameter)
            found.append(Push(slices, parameter, fitted))
    return tuple(found)


def _largest(rows_KN: Tensor) -> float:
    rows_KN = rows_KN.detach().float()
    return float((torch.linalg.vector_norm(rows_KN, dim=1) / math.sqrt(rows_KN.shape[1])).max())


class SliceRegularizer(Regularizer):
    """Acts on slices of parameters, and on nothing else; subclass with a constructor that says which.

    How many steps were done is kept in the optimizer's first parameter group, so that its `state_dict`
    holds it and a training that goes on from a checkpoint goes on where it was, in any loop.

    A parameter without a gradient gets none from here: the optimizer skips it, and would else move what
    stays of it. What acts on values acts all the same.
    """

    @abstractmethod
    def __init__(self, chosen: Sequence[Push]) -> None:
        self.pushes = tuple(chosen)
        self.steps_done = 0
        self._mask = [(push.slices.name, push.slices.channels.tolist()) for push in self.pushes]
        self._key = f"{type(self).__name__} {hashlib.sha256(repr(self._mask).encode()).hexdigest()[:16]}"
        self._before: list[tuple[Push, float | Tensor, Tensor | None]] = []

    def check(self, optimizer: Optimizer) -> None:
        """Raise InputError unless the optimizer owns every parameter and all of them are trained.

        Where several processes train together, also unless they agree on the mask.
        """
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for push in self.pushes:
            self._check_owned(push, id(push.parameter) in owned, optimizer)
            if not push.parameter.requires_grad:
                raise InputError(
                    f"{type(self).__name__}: {push.slices.name!r} is frozen (requires_grad is False), so "
                    f"that it cannot be trained to zero; unfreeze it, or plan without its layer"
                )
        check_agreement(type(self).__name__, (self._mask, [repr(push.form) for push in self.pushes]))

    def _check_owned(self, push: Push, is_owned: bool, optimizer: Optimizer) -> None:
        if not is_owned:
            raise InputError(
                f"{type(self).__name__}: the {type(optimizer).__name__} does not own {push.slices.name!r}; "
                f"it was made for another model (or a copy), or for some of the parameters only. Capture, "
                f"plan and train the same model object, with an optimizer made from model.parameters()"
            )

    @torch.no_grad()
    def before_step(self, optimizer: Optimizer) -> None:
        """Add the penalties' gradients on the slices; called when gradients are complete and unscaled."""
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for push in self.pushes:
            self._check_owned(push, id(push.parameter) in groups, optimizer)
        if all(push.parameter.grad is None for push in self.pushes):
            raise InputError(
                f"{type(self).__name__}: none of its {len(self.pushes)} parameters has a gradient; call "
                f"before_step after loss.backward() and before optimizer.step()"
            )
        step = self.steps_done = int(optimizer.param_groups[0].get(self._key, 0)) + 1
        # A fused optimizer divides by the GradScaler's scale itself, within its step.
        scale = getattr(optimizer, "grad_scale", None)
        self._before = []
        for push in self.pushes:
            group = groups[id(push.parameter)]
            rows_KN = push.slices.rows(push.parameter)
            if push.form.on_gradients and push.parameter.grad is not None:
                _add_(push, rows_KN, group, scale, step)
            zero_K = (rows_KN == 0).all(dim=1) if push.form.on_values else None
            self._before.append((push, group["lr"], zero_K))

    @torch.no_grad()
    def after_step(self, optimizer: Optimizer) -> None:
        """Move the slices as the forms want them; called right after the step.

        With the learning rates that held in `before_step`: a scheduler may have stepped since.
        """
        if not self._before:
            raise InputError(f"{type(self).__name__}: after_step without before_step")
        optimizer.param_groups[0][self._key] = self.steps_done
        for push, rate, zero_K in self._before:
            if zero_K is not None:
                rows_KN = push.slices.rows(push.parameter)
                moved = push.form.values(rows_KN, zero_K, rate=rate, step=self.steps_done)
                push.slices.put_(push.parameter, moved)
        self._before = []

    def detach(self, optimizer: Optimizer) -> None:
        """Forget how many steps were done."""
        optimizer.param_groups[0].pop(self._key, None)

    def __repr__(self) -> str:
        channels = sum(len(push.slices.channels) for push in self.pushes)
        forms = ", ".join(dict.fromkeys(repr(push.form) for push in self.pushes))
        return f"{type(self).__name__}({channels} channels of {len(self.pushes)} parameters: {forms})"


def _add_(push: Push, rows_KN: Tensor, group: Mapping[str, Any], scale: Tensor | None, step: int) -> None:
    """Write the form's gradient over the slices of the parameter's."""
    gradient = push.parameter.grad
    assert gradient is not None
    task_KN = push.slices.rows(gradient)
    sign = -1.0 if group.get("maximize") else 1.0
    unit = sign if scale is None else sign * scale.to(task_KN.device)
    new_KN = push.form.gradient(rows_KN, task_KN / unit, rate=group["lr"], step=step) * unit
    push.slices.put_(gradient, new_KN)
