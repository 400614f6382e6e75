"""The filter banks of a PyTorch model, with or without a run on example inputs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from compressor.core.computed import recompute
from compressor.core.graph import Graph
from compressor.core.restoring import undisturbed
from compressor.errors import InputError, ModelError, SpecializationWarning
from compressor.filters.bank import FilterBank, require_finite
from compressor.filters.convolutions import Convolution, convolutions_of
from compressor.filters.depths import conv_depths
from compressor.filters.kernel_sizes import KernelSize, check_wanted, is_wanted, size_words

__all__ = ["banks"]


def banks(
    model: nn.Module,
    x: Tensor | tuple[Any, ...] | Mapping[str, Any] | Graph | None = None,
    *,
    kernel_size: KernelSize = None,
    include_transposed: bool = False,
    fold_batch_norm: bool = False,
    model_name: str = "",
) -> tuple[FilterBank, ...]:
    """The weights of every convolution of a model, copied as they are now.

    Without `x` these are the `Conv1d`, `Conv2d` and `Conv3d` modules in the order of their definition, a
    shared module once. With example inputs (a tensor, a tuple of arguments, a mapping of keyword
    arguments, or a captured graph, which holds them) the model runs once in eval mode: then these are all
    convolutions that run, `F.conv2d` in the user's own code included, in the order of running, a shared
    module once for each of its calls; and each has its depth. Parametrised weights (weight norm, spectral
    norm, pruning masks) are taken as computed. The model is unchanged afterwards.

    - `kernel_size`: only kernels of this size; 3 stands for 3, 3 x 3 and 3 x 3 x 3. `layer_id` counts what is
      kept.
    - `include_transposed`: transposed convolutions, too, with the input and output channels exchanged, so
      that a filter still is all kernels of an output channel. They then count in the depths.
    - `fold_batch_norm`: times γ / sqrt(σ² + ε) where a batch norm alone reads what the convolution writes:
      the filters that an export for inference holds. Needs `x`.

    Weights in half precision come as float32, others in their dtype; all on their device.

    *Source: P. Gavrikov, J. Keuper, CNN Filter DB, 2022, arXiv 2203.15331, and their extraction code.*
    `conv_depth` is the rank of a convolution's depth, which is its longest path from an input. Departures:
    the path is counted in torch's operators, not in an ONNX file's nodes, batch norms that can be folded
    left out. Both give the same ranks unless branches beside each other differ in operators that only one
    of them has. Convolutions over one and three dimensions, which are left out there, are ranked apart.

    Raises InputError where nothing is found, for a size that is none, and a weight that is not finite;
    ModelError for lazy, quantised, scripted and meta modules and weights computed from the inputs;
    CaptureError where the model does not run. Warns (SpecializationWarning) of convolutions that the example
    inputs do not reach.

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    >>> banks(net)
    (FilterBank(0: 8 x 3 kernels of 3 x 3), FilterBank(3: 4 x 8 kernels of 1 x 1))
    >>> first, last = banks(net, torch.zeros(1, 3, 8, 8), fold_batch_norm=True)
    >>> first.folded, last.folded, last.conv_depth, last.conv_depth_norm
    (True, False, 1, 1.0)
    """
    _check(model)
    check_wanted(kernel_size)
    if x is None:
        if fold_batch_norm:
            raise InputError(
                "banks: which batch norm follows which convolution is seen only where the model runs: "
                "fold_batch_norm=True needs example inputs, banks(model, x, fold_batch_norm=True)"
            )
        found = _of_modules(model)
    else:
        found = convolutions_of(model, *_call(model, x))
        _warn_of_unreached(model, found)
    counted = [c for c in found if include_transposed or not c.transposed]
    kept = [c for c in counted if is_wanted(c.weight.shape[2:], kernel_size)]
    if not kept:
        raise InputError(_nothing(model, found, counted, kernel_size))
    places = {} if x is None else _places(counted)
    return tuple(
        _bank(c, model_name, layer_id, places.get(id(c)), fold=fold_batch_norm)
        for layer_id, c in enumerate(kept)
    )


def _check(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"banks needs a torch.nn.Module, got {type(model).__name__}")
    for path, module in model.named_modules():
        named = f"{path or 'the model'!r}"
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise ModelError(
                f"{named} is lazy and has no weights yet: run the model once on an example, then measure it"
            )
        if isinstance(module, torch.jit.ScriptModule):
            raise ModelError(f"{named} is a TorchScript module: pass the model as it was before torch.jit")
        kind = type(module)
        is_quantised = kind.__module__.startswith("torch.") and ".quantized." in f"{kind.__module__}."
        if is_quantised and "Conv" in kind.__name__:
            raise ModelError(
                f"{named} is a quantised {kind.__name__}: measure the floating-point model it was made from"
            )
        if isinstance(module, _ConvNd):
            for tensor in module.parameters():
                _check_tensor(tensor, named)


def _check_tensor(tensor: Tensor, named: str) -> None:
    if tensor.is_meta:
        raise ModelError(f"{named} is on the meta device and has no weights: load them first")
    if is_traceable_wrapper_subclass(tensor):
        raise ModelError(
            f"{named} has a {type(tensor).__name__} of several tensors (quantised or distributed?): measure "
            f"the model with plain weights"
        )


def _call(model: nn.Module, x: object) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(x, Graph):
        if x.model is not model:
            raise InputError(f"banks: the graph is of another model ({x.signature.model}); capture this one")
        return x.args, x.kwargs
    if isinstance(x, Mapping):
        return (), x
    return (x if isinstance(x, tuple) else (x,)), {}


def _of_modules(model: nn.Module) -> tuple[Convolution, ...]:
    found = []
    with undisturbed(model, training=False), torch.no_grad():
        recompute(model)
        for path, module in model.named_modules():
            if isinstance(module, _ConvNd):
                transposed = isinstance(module, _ConvTransposeNd)
                name = path or "(model)"
                found.append(Convolution(name, path, module.weight, module.groups, transposed, 0, norm=None))
    return tuple(found)


def _warn_of_unreached(model: nn.Module, found: Sequence[Convolution]) -> None:
    reached = {c.module for c in found}
    missing = [
        path for path, module in model.named_modules() if isinstance(module, _ConvNd) and path not in reached
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        warnings.warn(
            f"{', '.join(map(repr, missing[:3]))}{more}: convolutions that do not run in eval mode on the "
            f"example inputs are left out; banks(model) without inputs has them all",
            SpecializationWarning,
            stacklevel=3,
        )


def _places(counted: Sequence[Convolution]) -> dict[int, tuple[int, float]]:
    """The rank of each convolution's depth among those over as many dimensions."""
    places = {}
    for ndim in {c.weight.ndim for c in counted}:
        beside = [c for c in counted if c.weight.ndim == ndim]
        ranks = conv_depths([c.depth for c in beside])
        places.update({id(c): rank for c, rank in zip(beside, ranks, strict=True)})
    return places


def _bank(
    found: Convolution, model: str, layer_id: int, place: tuple[int, float] | None, *, fold: bool
) -> FilterBank:
    weight = found.weight.detach()
    if found.transposed:
        weight = _turned(weight, found.groups)
    weight = weight.float() if weight.dtype.itemsize < 4 else weight.clone()
    norm = found.norm if fold else None
    if norm is not None:
        scale = norm.scale
        require_finite(scale, f"the scale of the batch norm behind {found.name}")
        weight = weight * scale.to(weight).view(-1, *[1] * (weight.ndim - 1))
    depth, normed = (None, None) if place is None else place
    return FilterBank(
        weight,
        found.name,
        model=model,
        layer_id=layer_id,
        conv_depth=depth,
        conv_depth_norm=normed,
        groups=found.groups,
        transposed=found.transposed,
        folded=norm is not None,
    )


def _turned(weight: Tensor, groups: int) -> Tensor:
    """The weight [I, O / groups, *k] of a transposed convolution as [O, I / groups, *k]."""
    turned: Tensor = weight.unflatten(0, (groups, -1)).transpose(1, 2)
    return turned.flatten(0, 1)


def _nothing(
    model: nn.Module,
    found: Sequence[Convolution],
    counted: Sequence[Convolution],
    kernel_size: KernelSize,
) -> str:
    lead = f"{type(model).__name__} has no convolution"
    if counted:
        sizes = sorted({tuple(c.weight.shape[2:]) for c in counted})
        listed = ", ".join(size_words(size) for size in sizes)
        return f"{lead} with kernels of size {kernel_size}: it has {listed}"
    if found:
        return f"{lead} but {len(found)} transposed ones: include_transposed=True takes them"
    return f"{lead}, so there are no filters to look at"
