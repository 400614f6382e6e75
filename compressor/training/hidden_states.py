"""Hidden states of a teacher and its pruned student: which channels they share, how far they are apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from compressor.core.plan import Cut, Plan
from compressor.core.surgery import plan_of, signature_of
from compressor.errors import InputError, PlanMismatchError
from compressor.training.precision import at_least_float32

__all__ = ["HiddenStates", "distance", "kept_channels"]


def distance(student: Tensor, teacher: Tensor) -> Tensor:
    """‖student − teacher‖² / ‖teacher‖² [] of two hidden states of one shape.

    *Source: A. Romero et al., 2015, arXiv 1412.6550, equation 3.* Departures: no regressor, as the plan says
    which of the teacher's channels the student has; and divided by the teacher's energy, so that layers of
    any scale weigh alike.

    >>> distance(torch.ones(2, 3), 2 * torch.ones(2, 3))
    tensor(0.2500)
    """
    energy = teacher.square().sum()
    # A teacher that is silent at this layer has no scale: the plain square is left.
    return (student - teacher).square().sum() / torch.where(energy > 0, energy, torch.ones_like(energy))


def kept_channels(
    teacher: nn.Module, student: nn.Module, plan: Plan | None, names: Iterable[str]
) -> dict[str, Cut | None]:
    """For each named layer what the plan keeps of the teacher's channels; None for all of them.

    Without a `plan` it is the one that the student knows. Raises InputError where there is none, and for
    layers without a weight of their own, PlanMismatchError for a plan of other models.
    """
    names = tuple(names)
    if not names:
        return {}
    plan = plan_of(student) if plan is None else plan
    if plan is None:
        raise InputError(
            "Distillation: which of the teacher's channels the student kept is not known (it is a copy, "
            "or was not pruned here): give the plan that leads from the teacher to the student"
        )
    for which, signature, network in (
        ("the teacher", plan.signature, teacher),
        ("the student", plan.result, student),
    ):
        mismatch = signature.first_mismatch(signature_of(network))
        if mismatch is not None:
            raise PlanMismatchError(
                f"Distillation: {which} is not the one of the plan, which must lead from the teacher to "
                f"the student: {mismatch}"
            )
    return {name: _written(teacher, plan, name) for name in names}


class HiddenStates:
    """What the layers in `kept` (see `kept_channels`) put out last, in both models, until `remove()`."""

    def __init__(self, teacher: nn.Module, student: nn.Module, kept: Mapping[str, Cut | None]) -> None:
        self._teacher, self._kept = teacher, kept
        self._mine: dict[str, Tensor] = {}
        self._theirs: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for model, found in ((student, self._mine), (teacher, self._theirs)):
            modules = dict(model.named_modules())
            always = model is teacher
            self._handles += [_watched(modules[name], name, found, always) for name in kept]

    def distance(self, name: str) -> Tensor:
        """How far the student's state is from what it kept of the teacher's []."""
        mine, theirs = at_least_float32(self._mine[name]), at_least_float32(self._theirs[name])
        cut = self._kept[name]
        if cut is not None:
            axis = mine.dim() - 1 if _last_axis(self._teacher, name) else 1
            theirs = theirs.index_select(axis, torch.tensor(cut.keep, device=theirs.device))
        if mine.shape != theirs.shape:
            raise InputError(
                f"Distillation: at {name!r} the student has a hidden state of {list(mine.shape)}, and what "
                f"it keeps of the teacher's is {list(theirs.shape)}; choose another layer"
            )
        return distance(mine, theirs)

    def clear(self) -> None:
        """Let go of the states."""
        self._mine.clear()
        self._theirs.clear()

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()
        self.clear()


def _watched(module: nn.Module, name: str, found: dict[str, Tensor], always: bool) -> RemovableHandle:
    """Have the outputs of a module put into `found`, without gradients only if `always`."""

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            raise InputError(
                f"Distillation: {name!r} returns {type(output).__name__}, expected a tensor; choose another "
                f"layer"
            )
        if always or torch.is_grad_enabled():
            found[name] = output

    return module.register_forward_hook(keep)


def _written(teacher: nn.Module, plan: Plan, name: str) -> Cut | None:
    """How the plan cuts the output channels of a layer."""
    modules = dict(teacher.named_modules())
    layers = [path for path in modules if ".parametrizations" not in path and _has_weight(modules[path])]
    if name not in modules or not _has_weight(modules[name]):
        raise InputError(
            f"Distillation: {name!r} is no layer with a weight of its own, whose channels the plan could "
            f"tell; there are {', '.join(layers)}"
        )
    own = (name, f"{name}.parametrizations.weight", f"{name}.parametrizations.bias")
    cuts = [cut for cut in plan.cuts if cut.role == "writer" and cut.tensor.rpartition(".")[0] in own]
    if len({cut.keep for cut in cuts}) > 1:
        raise InputError(
            f"Distillation: {name!r} ({type(modules[name]).__name__}) has weights that keep different "
            f"channels, so which ones its output has is not known; choose a layer with one weight"
        )
    return cuts[0] if cuts else None


def _has_weight(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None or hasattr(module, "parametrizations")


def _last_axis(model: nn.Module, name: str) -> bool:
    """Whether a layer's channels are the last axis of its output, and not axis 1."""
    return isinstance(model.get_submodule(name), nn.Linear | nn.LayerNorm | nn.RMSNorm | nn.Embedding)
