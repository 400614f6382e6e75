"""The model that is captured, with the example that it is run on, and what both must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from compressor.core.nested import output_tensors
from compressor.core.restoring import Held
from compressor.core.tape import named_tensors
from compressor.errors import InputError, ModelError

__all__ = ["Subject", "check_inputs", "check_model"]


@dataclass(frozen=True, eq=False)
class Subject:
    """`model(*args, **kwargs)` is what is followed; `before` is what every run of it gives back."""

    model: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    before: Held


# By name: who does not use them should not have to import them.
_DISTRIBUTED = frozenset(("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"))
_CALIBRATING = frozenset(("FakeQuantizeBase", "ObserverBase", "AffineQuantizedObserverBase"))


def check_model(model: nn.Module) -> None:
    """Raise ModelError for a model that cannot be pruned, InputError for what is none."""
    if not isinstance(model, nn.Module):
        raise InputError(f"capture needs a torch.nn.Module, got {type(model).__name__}")
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ModelError(f"{type(model).__name__} has no parameters, so there is nothing to prune")
    seen: set[type[nn.Module]] = set()
    for path, module in model.named_modules():
        kind = type(module)
        if kind not in seen:
            _check_kind(path, kind)
            seen.add(kind)
        if _is_quantised(module):
            raise ModelError(
                f"{path!r} is a quantised {kind.__name__}; prune the floating-point model first, then "
                f"quantise the result"
            )
    for name, tensor in named_tensors(model).items():
        _check_tensor(name, tensor, is_parameter=name in parameters)
    if any(tensor.is_meta for tensor in parameters.values()):
        raise ModelError("the model is on the meta device and has no weights; load them first")


def _check_kind(name: str, kind: type[nn.Module]) -> None:
    if issubclass(kind, torch.jit.ScriptModule):
        raise ModelError(
            f"{name or 'the model'!r} is a TorchScript module, which cannot be cut; pass the model as it "
            f"was before torch.jit"
        )
    bases = {base.__name__ for base in kind.__mro__}
    if bases & _DISTRIBUTED:
        inner = f"{name}.module" if name else "model.module"
        raise ModelError(
            f"{name or 'the model'!r} is a {kind.__name__}, which keeps a plan of its own of who sends "
            f"which tensor: capture {inner}, and wrap the pruned model anew"
        )
    if bases & _CALIBRATING:
        raise ModelError(
            f"{name!r} is a {kind.__name__}: the model is being prepared for quantisation. Prune the "
            f"floating-point model first, then prepare the result"
        )


def _is_quantised(module: nn.Module) -> bool:
    home = type(module).__module__
    if "quantized" not in home or "quantizable" in home:
        return False
    return home.startswith("torch.") or not module._modules


def _check_tensor(name: str, tensor: Tensor, *, is_parameter: bool) -> None:
    if nn.parameter.is_lazy(tensor):
        raise ModelError(
            f"{name!r} has no shape yet (a lazy module); run the model once on an example input, then "
            f"capture it"
        )
    if is_traceable_wrapper_subclass(tensor):
        raise ModelError(
            f"{name!r} is a {type(tensor).__name__} of several tensors (quantised or distributed?), "
            f"which cannot be cut; prune the model with plain weights first"
        )
    if tensor.is_inference():
        raise ModelError(
            f"{name!r} was made under torch.inference_mode and cannot be changed; load or build the "
            f"model outside of it, or assign clones made outside"
        )
    if is_parameter and not (tensor.is_floating_point() or tensor.is_complex()):
        raise ModelError(
            f"parameter {name!r} is of type {tensor.dtype}; prune the floating-point model, then "
            f"quantise the result"
        )


def check_inputs(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise InputError for example inputs without tensors, without elements or on another device."""
    leaves = output_tensors((args, kwargs))
    if not leaves:
        raise InputError(
            f"capture needs an example of {type(model).__name__}'s inputs, e.g. capture(model, x); got no "
            f"tensor in them, nor in lists, tuples and dicts among them"
        )
    for leaf in leaves:
        if leaf.numel() == 0:
            raise InputError(f"an example input has shape {list(leaf.shape)} and no elements")
    devices = {t.device for t in model.parameters()}
    if len(devices) == 1:
        (device,) = devices
        for leaf in leaves:
            if leaf.device.type != device.type and leaf.dim() > 0:
                raise InputError(
                    f"the model is on {device}, an example input on {leaf.device}; move one with .to(...)"
                )
