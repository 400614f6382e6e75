"""Cutting a model as a plan says: one loop over tensors, then the numbers modules remember.

Everything is checked and computed before anything changes. A new model costs one copy of what stays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree

from compressor.core.alone import alone
from compressor.core.attention import resize
from compressor.core.computed import recompute
from compressor.core.copying import copy_module
from compressor.core.patching import check_patches, patch
from compressor.core.plan import Cut, Plan, Signature, Size, SizeValue
from compressor.core.recurrent import refresh
from compressor.core.tape import named_tensors
from compressor.errors import InputError, ModelError, PlanError, PlanMismatchError

__all__ = [
    "apply",
    "apply_",
    "check_plan",
    "cut_copy",
    "cut_tensor",
    "follow",
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
    """Raise PlanMismatchError with the first way in which the plan does not fit the model.

    InputError for anything but a plan and a model.
    """
    if not isinstance(plan, Plan):
        hint = f": Plan.load({plan!r}) reads a file" if isinstance(plan, (str, Path)) else ""
        raise InputError(f"expected a Plan, got {type(plan).__name__}{hint}")
    if not isinstance(model, nn.Module):
        raise InputError(f"expected a torch.nn.Module to cut, got {type(model).__name__}")
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
    check_patches(modules, plan.patches)


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """A new model cut as the plan says; `model` stays as it is.

    Ties, hooks, dtype, device, memory format, `requires_grad` and parametrisations are kept.
    Raises PlanMismatchError when the plan was made for another model, or was applied before.
    """
    # A tensor made in inference mode could never be trained.
    with alone(), torch.inference_mode(False):
        check_plan(model, plan)
        small = cut_copy(model, plan.cuts, cut_tensor)
        set_sizes(small, plan.sizes)
        follow(small, plan)
    _remember_next(small, plan, plan_of(model))
    return small


def apply_(model: nn.Module, plan: Plan, *, optimizer: Optimizer | None = None) -> None:
    """Cut `model` in place, and the optimizer's state with it, so that training goes on where it was.

    Parameters stay the same objects. Raises PlanMismatchError or InputError (optimizer state of an
    unknown shape) before anything changes.
    """
    with alone(), torch.inference_mode(False):
        check_plan(model, plan)
        named = named_tensors(model)
        by_tensor = _by_tensor(plan.cuts)
        changes = [_tensor_change(named[name], cuts) for name, cuts in by_tensor.items()]
        if optimizer is not None:
            changes += _optimizer_changes(optimizer, named, by_tensor)
        changes += _size_changes(model, plan.sizes)
        _all_or_nothing(changes)
        follow(model, plan)
    _remember_next(model, plan, plan_of(model))


def follow(model: nn.Module, plan: Plan) -> None:
    """Have the forwards of a model whose tensors are cut as the plan says follow them.

    Attention follows its sizes, what modules compute from their tensors or keep beside them is that of
    the cut ones, and numbers in calls are patched.
    """
    for module in _around(model, plan):
        resize(module)
    recompute(model)
    refresh(model)
    patch(model, plan.patches)


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


def _around(model: nn.Module, plan: Plan) -> list[nn.Module]:
    """The modules that hold a tensor which the plan cuts, and those around them."""
    modules = dict(model.named_modules())
    paths = {path for cut in plan.cuts for path in accumulate(cut.tensor.split("."), "{}.{}".format)}
    return [modules[path] for path in sorted(paths) if path in modules]


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
    # Through NumPy: torch looks at every number of a tuple several times.
    keep = torch.from_numpy(np.array(cut.keep, dtype=np.int64)).to(tensor.device)
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
        # Not `nn.Parameter(new)`: a subclass of it is to stay one.
        new = torch.Tensor._make_subclass(type(old), new, old.requires_grad)
    else:
        new.requires_grad_(old.requires_grad)
    for key, value in vars(old).items():
        setattr(new, key, copy.deepcopy(value) if not callable(value) else value)
    for hook in (getattr(old, "_backward_hooks", None) or {}).values():
        new.register_hook(hook)
    for hook in (getattr(old, "_post_accumulate_grad_hooks", None) or {}).values():
        new.register_post_accumulate_grad_hook(hook)
    return new


# -- in place ------------------------------------------------------------------------------------

# A change and what takes it back; everything either needs is computed beforehand.
Change = tuple[Callable[[], None], Callable[[], None]]


def _all_or_nothing(changes: Sequence[Change]) -> None:
    """Make every change, or, where one fails, none."""
    done: list[Callable[[], None]] = []
    try:
        for change, undo in changes:
            done.append(undo)
            change()
    except BaseException:
        for undo in reversed(done):
            undo()
        raise


def _tensor_change(tensor: Tensor, cuts: tuple[Cut, ...]) -> Change:
    old, old_grad = tensor.detach(), tensor.grad
    new = cut_tensor(tensor, cuts)
    new_grad = None if old_grad is None else cut_tensor(old_grad, cuts)

    # A loss that is still alive keeps the node that collects this tensor's gradients, which remembers
    # the old shape. Only another type of number makes autograd forget it.
    other = new.new_empty(0, dtype=torch.float32 if new.dtype == torch.float16 else torch.float16)

    def become(data: Tensor, grad: Tensor | None) -> None:
        # A gradient must have its tensor's shape at every moment.
        tensor.grad = None
        tensor.data = other
        tensor.data = data
        tensor.grad = grad

    return lambda: become(new, new_grad), lambda: become(old, old_grad)


def _optimizer_changes(
    optimizer: Optimizer, named: Mapping[str, Tensor], by_tensor: Mapping[str, tuple[Cut, ...]]
) -> list[Change]:
    owned = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    if not any(id(tensor) in owned for tensor in named.values()):
        raise InputError(
            f"the {type(optimizer).__name__} holds {len(owned)} parameters and none of the model's: it "
            f"was made for another model (or a copy); pass the one made from model.parameters()"
        )
    cut = {name: cuts for name, cuts in by_tensor.items() if id(named[name]) in owned}
    if not cut:
        return []
    names = {id(tensor): name for name, tensor in named.items()}
    # Also of what is not cut: some optimizers keep the state of all their parameters at one of them.
    for key, tensor in owned.items():
        _check_state(optimizer, names.get(key, "a parameter outside of the model"), tensor)
    return [
        _entry_change(state, key, cut_tensor(state[key], cuts))
        for name, cuts in cut.items()
        for state in [optimizer.state.get(named[name], {})]
        for key in state
        if _follows(state[key])
    ]


def _follows(value: Any) -> bool:
    """Whether an entry of the state has a number for each of the parameter's."""
    return isinstance(value, Tensor) and value.dim() > 0


def _check_state(optimizer: Optimizer, name: str, tensor: Tensor) -> None:
    for key, value in optimizer.state.get(tensor, {}).items():
        held = [leaf for leaf in _pytree.tree_leaves(value) if isinstance(leaf, Tensor) and leaf.dim()]
        if not held or (held[0] is value and value.shape == tensor.shape):
            continue
        raise InputError(
            f"the {type(optimizer).__name__}'s {key!r} of {name!r} has shape {list(held[0].shape)}, "
            f"expected one tensor of the parameter's {list(tensor.shape)}: how to cut it is not known. "
            f"Apply without `optimizer` and make a new optimizer"
        )


def _entry_change(state: dict[str, Any], key: str, new: Tensor) -> Change:
    old = state[key]
    return lambda: state.__setitem__(key, new), lambda: state.__setitem__(key, old)


# -- sizes ---------------------------------------------------------------------------------------


def set_sizes(model: nn.Module, sizes: tuple[Size, ...]) -> None:
    """Give modules the numbers they must remember; a list stays a list, a tuple a tuple."""
    _all_or_nothing(_size_changes(model, sizes))


def _size_changes(model: nn.Module, sizes: tuple[Size, ...]) -> list[Change]:
    modules: Mapping[str, nn.Module] = dict(model.named_modules())
    return [_size_change(modules[size.module], size) for size in sizes]


def _size_change(module: nn.Module, size: Size) -> Change:
    old = getattr(module, size.attribute)
    new = _like(old, size.new)

    def become(value: Any) -> None:
        # Where the change itself was refused, there is nothing to take back.
        if getattr(module, size.attribute) is not value:
            setattr(module, size.attribute, value)

    return lambda: become(new), lambda: become(old)


def _like(old: Any, new: SizeValue) -> Any:
    if isinstance(new, int):
        return new
    return list(new) if isinstance(old, list) else type(old)(new)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value
