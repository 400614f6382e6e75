"""Cutting a model as a plan says: one loop over tensors, then the numbers modules remember.

Everything is checked and computed before anything changes. A new model costs one copy of what stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.core.copying import copy_module
from compressor.core.plan import Cut, Plan, Signature, Size, SizeValue
from compressor.core.tape import named_tensors
from compressor.errors import InputError, ModelError, PlanError, PlanMismatchError

__all__ = [
    "apply",
    "apply_",
    "check_plan",
    "cut_copy",
    "cut_tensor",
    "plan_of",
    "remember_plan",
    "signature_of",
]

# Beside the models, not in them: a pruned module stays what the user wrote, also in a pickle.
_PLANS: WeakKeyDictionary[nn.Module, Plan] = WeakKeyDictionary()


def signature_of(model: nn.Module) -> Signature:
    """The model's class and the name and shape of each distinct parameter and buffer."""
    tensors = tuple((name, tuple(tensor.shape)) for name, tensor in named_tensors(model).items())
    return Signature(type(model).__name__, tensors)


def check_plan(model: nn.Module, plan: Plan) -> None:
    """Raise PlanMismatchError with the first way in which the plan does not fit the model."""
    mismatch = plan.signature.first_mismatch(signature_of(model))
    if mismatch is not None:
        done = plan.result.first_mismatch(signature_of(model)) is None and plan.cuts
        hint = " It looks as if this plan was applied already." if done else ""
        raise PlanMismatchError(
            f"the plan was made for another {plan.signature.model}: {mismatch}.{hint} "
            f"Capture and plan this model anew, or load the weights the plan was made for."
        )
    modules = dict(model.named_modules())
    for size in plan.sizes:
        if size.module not in modules:
            raise PlanMismatchError(f"the plan changes {size}, and the model has no such module")
        found = getattr(modules[size.module], size.attribute, None)
        if _plain(found) != size.old:
            raise PlanMismatchError(f"the plan changes {size}, and the model has {found!r} there")


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model cut as the plan says; `model` stays as it is.

    Ties, hooks, dtype, device, memory format, `requires_grad` and parametrisations are kept.
    Raises PlanMismatchError when the plan was made for another model, or was applied before.
    """
    check_plan(model, plan)
    small = cut_copy(model, plan.cuts, lambda tensor, cuts: cut_tensor(tensor, cuts))
    set_sizes(small, plan.sizes)
    _remember_next(small, plan, plan_of(model))
    return small


def apply_(model: nn.Module, plan: Plan, *, optimizer: Optimizer | None = None) -> None:
    """Cut `model` in place, and the optimizer's state with it, so that training goes on where it was.

    Parameters stay the same objects. Raises PlanMismatchError or InputError (optimizer state of an
    unknown shape) before anything changes.
    """
    check_plan(model, plan)
    named = named_tensors(model)
    by_tensor = _by_tensor(plan.cuts)
    changes: list[Callable[[], None]] = []
    for name, cuts in by_tensor.items():
        changes.append(_tensor_change(named[name], cuts))
    if optimizer is not None:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, cuts in by_tensor.items():
            if id(named[name]) in owned:
                changes.extend(_state_changes(optimizer, name, named[name], cuts))
    for change in changes:
        change()
    set_sizes(model, plan.sizes)
    _remember_next(model, plan, plan_of(model))


def plan_of(model: nn.Module) -> Plan | None:
    """The one plan on the original that made `model`, or None where it is not known.

    Known are the models that `apply`, `apply_` or `load` made in this process, however often they
    were pruned; copies of them and unpickled ones are not.
    """
    return _PLANS.get(model)


def remember_plan(model: nn.Module, plan: Plan) -> None:
    """Note that `plan` made `model`, for `plan_of`."""
    _PLANS[model] = plan


def _remember_next(model: nn.Module, plan: Plan, before: Plan | None) -> None:
    try:
        remember_plan(model, plan if before is None else plan.after(before))
    except PlanError:
        # The user changed the model since its first pruning (a new head, say), so that no single plan
        # leads from the original to here. Better to know none than a wrong one.
        _PLANS.pop(model, None)


# -- tensors -------------------------------------------------------------------------------------


def cut_tensor(tensor: Tensor, cuts: tuple[Cut, ...]) -> Tensor:
    """The tensor with only the kept channels along each cut axis; autograd is not involved."""
    with torch.no_grad():
        result = tensor.detach()
        # A cut in blocks needs all rows in place, so it comes before the cut of the rows.
        for cut in sorted(cuts, key=lambda cut: cut.blocks == 1):
            result = _take(result, cut)
        if result.dim() in (4, 5):
            layout = torch.channels_last if result.dim() == 4 else torch.channels_last_3d
            if tensor.is_contiguous(memory_format=layout) and not tensor.is_contiguous():
                return result.contiguous(memory_format=layout)
        return result


def _take(tensor: Tensor, cut: Cut) -> Tensor:
    keep = torch.tensor(cut.keep, device=tensor.device)
    if cut.blocks == 1:
        return tensor.index_select(cut.axis, keep)
    width = cut.size // cut.blocks
    runs = tensor.unflatten(0, (cut.blocks, -1))
    own = keep.view(cut.blocks, -1) % width
    return torch.cat([run.index_select(cut.axis, index) for run, index in zip(runs, own, strict=True)])


def _by_tensor(cuts: tuple[Cut, ...]) -> dict[str, tuple[Cut, ...]]:
    result: dict[str, tuple[Cut, ...]] = {}
    for cut in cuts:
        result[cut.tensor] = (*result.get(cut.tensor, ()), cut)
    return result


# -- copies --------------------------------------------------------------------------------------


def cut_copy(
    model: nn.Module,
    cuts: tuple[Cut, ...],
    convert: Callable[[Tensor, tuple[Cut, ...]], Tensor],
) -> nn.Module:
    """A copy of the model whose tensors are `convert(tensor, its cuts)`; never copies what goes.

    The deep copy finds its tensors ready in the memo, which also keeps ties.
    """
    by_tensor = _by_tensor(cuts)
    memo: dict[int, Any] = {}
    for name, tensor in named_tensors(model).items():
        own = by_tensor.get(name, ())
        new = convert(tensor, own)
        if not own and new.device.type != "meta" and new.data_ptr() == tensor.data_ptr():
            new = new.clone()
        memo[id(tensor)] = _dressed(new, tensor)
    for module in model.modules():
        for value in vars(module).values():
            # Old-style weight norm leaves a computed tensor among the attributes; it is computed anew.
            if isinstance(value, Tensor) and not value.is_leaf and id(value) not in memo:
                memo[id(value)] = value.detach()
    try:
        return copy_module(model, memo)
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{type(model).__name__} cannot be copied ({error}); use apply_ to cut it in place, or make "
            f"its attributes copyable"
        ) from error


def _dressed(new: Tensor, old: Tensor) -> Tensor:
    """The new tensor as the old one's class, with its flags, attributes and hooks."""
    if isinstance(old, nn.Parameter):
        new = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        new.requires_grad_(old.requires_grad)
    for key, value in vars(old).items():
        setattr(new, key, copy.deepcopy(value) if not callable(value) else value)
    hooks = getattr(old, "_backward_hooks", None)
    if hooks:
        for hook in hooks.values():
            new.register_hook(hook)
    return new


# -- in place ------------------------------------------------------------------------------------


def _tensor_change(tensor: Tensor, cuts: tuple[Cut, ...]) -> Callable[[], None]:
    data = cut_tensor(tensor, cuts)
    grad = None if tensor.grad is None else cut_tensor(tensor.grad, cuts)

    def change() -> None:
        tensor.grad = None
        tensor.data = data
        tensor.grad = grad

    return change


def _state_changes(
    optimizer: Optimizer, name: str, tensor: Tensor, cuts: tuple[Cut, ...]
) -> list[Callable[[], None]]:
    state: dict[str, Any] = optimizer.state.get(tensor, {})
    changes = []
    for key, value in state.items():
        if not isinstance(value, Tensor) or value.dim() == 0:
            continue
        if value.shape != tensor.shape:
            raise InputError(
                f"the optimizer's {key!r} of {name!r} has shape {list(value.shape)}, the parameter "
                f"{list(tensor.shape)}: how to cut it is not known. Apply without `optimizer` and make a "
                f"new optimizer"
            )
        changes.append(_state_change(state, key, cut_tensor(value, cuts)))
    return changes


def _state_change(state: dict[str, Any], key: str, value: Tensor) -> Callable[[], None]:
    def change() -> None:
        state[key] = value

    return change


# -- sizes ---------------------------------------------------------------------------------------


def set_sizes(model: nn.Module, sizes: tuple[Size, ...]) -> None:
    """Give modules the numbers they must remember; a list stays a list, a tuple a tuple."""
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    for size in sizes:
        module = modules[size.module]
        old = getattr(module, size.attribute)
        setattr(module, size.attribute, _like(old, size.new))


def _like(old: Any, new: SizeValue) -> Any:
    if isinstance(new, int):
        return new
    return list(new) if isinstance(old, list) else type(old)(new)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value

