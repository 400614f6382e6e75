"""Which filters of which layers are meant: all, those of named layers, or those that are flagged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compressor.design.layer import WeightLayer, layers_in
from compressor.errors import InputError, ModelError

__all__ = ["Chosen", "Filters", "chosen_filters", "shown"]

# Layers by path, or flags [O] of their filters by path, or the flags of the only layer.
Filters = Iterable[str] | Mapping[str, Tensor] | Tensor
Chosen = dict[str, Tensor]


def chosen_filters(model: nn.Module, filters: Filters | None) -> Chosen:
    """The flags [O] by path, on the CPU; None stands for all filters of all layers.

    Raises InputError for names and flags that do not fit, ModelError for a weight that cannot be written.
    """
    layers = dict(layers_in(model))
    chosen = {path: _flags(path, layers[path], own) for path, own in _named(layers, filters).items()}
    for path in chosen:
        _check_writable(path, layers[path])
    return chosen


def shown(path: str, module: nn.Module) -> str:
    """How a layer is called in messages: by its path, or its class where it is the model itself."""
    return path or type(module).__name__


def _named(layers: Mapping[str, WeightLayer], filters: Filters | None) -> dict[str, Tensor | None]:
    if filters is None:
        return dict.fromkeys(layers)
    if isinstance(filters, Tensor):
        if len(layers) > 1:
            raise InputError(
                f"a mask alone is for a model of one layer, and there are {len(layers)}: give a mapping "
                f"such as {{{next(iter(layers))!r}: mask}}"
            )
        return dict.fromkeys(layers, filters)
    if isinstance(filters, str):
        raise InputError(f"layers are a list of names, got the string {filters!r}: write [{filters!r}]")
    named = dict(filters) if isinstance(filters, Mapping) else dict.fromkeys(filters)
    for name in named:
        if name not in layers:
            near = get_close_matches(str(name), layers, n=3) or list(layers)[:3]
            raise InputError(
                f"{name!r} is no convolution or matrix of the model, or shares the weight of an earlier one; "
                f"it has {', '.join(map(repr, near))}"
            )
    return named


def _flags(path: str, module: WeightLayer, flags: Tensor | None) -> Tensor:
    count = module.out_features if isinstance(module, nn.Linear) else module.out_channels
    if flags is None:
        return torch.ones(count, dtype=torch.bool)
    if not isinstance(flags, Tensor) or flags.dtype != torch.bool or flags.shape != (count,):
        got = f"{flags.dtype} {list(flags.shape)}" if isinstance(flags, Tensor) else type(flags).__name__
        raise InputError(
            f"{shown(path, module)}: the mask is a bool tensor [{count}], one flag for each filter, got {got}"
        )
    return flags.detach().cpu()


def _check_writable(path: str, module: WeightLayer) -> None:
    if parametrize.is_parametrized(module, "weight") or not isinstance(module.weight, nn.Parameter):
        raise ModelError(
            f"{shown(path, module)}: its weight is computed from other tensors (a parametrisation, weight "
            "norm), so filters cannot be written into it: remove that first "
            "(parametrize.remove_parametrizations), or name the other layers"
        )
    if module.weight.is_inference():
        raise ModelError(
            f"{shown(path, module)}: its weight was made in inference mode and cannot be written outside of "
            "it; load the model outside of torch.inference_mode()"
        )
    if not module.weight.is_floating_point():
        raise ModelError(
            f"{shown(path, module)}: its weight is {module.weight.dtype}, and filters are drawn as real "
            "numbers; name the other layers"
        )
    if module.weight.is_meta:
        raise ModelError(f"{shown(path, module)}: its weight is on the meta device: load the weights first")
