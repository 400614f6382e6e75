"""The numbers torch's own layers remember about their channels, and how each follows a cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from compressor.core.channels import any_free
from compressor.core.graph import Axis, SizeRule, UnitArray
from compressor.core.tape import Tape, named_tensors

__all__ = ["bare_norm_sizes", "layer_sizes"]

# Where a layer's weight lives, plain or parametrised (weight norm, spectral norm, old and new style).
_WEIGHTS = ("weight", "parametrizations.weight.original", "parametrizations.weight.original1")
_OLD_WEIGHTS = ("weight_v", "weight_orig", "parametrizations.weight.original0")


def layer_sizes(model: nn.Module, axes: tuple[Axis, ...]) -> tuple[SizeRule, ...]:
    """Size rules for every layer of the model that torch defines."""
    index = _Index(model, axes)
    rules: list[SizeRule] = []
    for path, module in model.named_modules():
        rules.extend(_rules(index, path, module))
    return tuple([rule for rule in rules if any_free(rule.units)])


def bare_norm_sizes(
    model: nn.Module, tape: Tape, axes_of: Callable[[int], Mapping[int, UnitArray]]
) -> tuple[SizeRule, ...]:
    """Size rules for norms without vectors of their own, read off what they put out."""
    last = {op.module: op for op in tape.ops}
    rules: list[SizeRule] = []
    for path, module in model.named_modules():
        if not isinstance(module, (_NormBase, nn.GroupNorm)) or path not in last:
            continue
        if [*module.parameters(), *module.buffers()]:
            continue
        out = last[path].outputs[0]
        units = None if out is None else axes_of(out).get(1)
        if units is not None and any_free(units):
            rules.extend(_norm_rules(path, module, units))
    return tuple(rules)


def _norm_rules(path: str, module: _NormBase | nn.GroupNorm, units: UnitArray) -> Iterator[SizeRule]:
    if not isinstance(module, nn.GroupNorm):
        yield SizeRule(path, "num_features", None, units)
        return
    yield SizeRule(path, "num_channels", None, units)
    if module.num_groups == module.num_channels:
        yield SizeRule(path, "num_groups", None, units)


class _Index:
    """The axes of a graph by tensor and position, and the canonical names of a model's tensors by id."""

    def __init__(self, model: nn.Module, axes: Sequence[Axis]) -> None:
        self.axes = {(axis.tensor, axis.axis): axis for axis in axes}
        self.canonical = {id(tensor): name for name, tensor in named_tensors(model).items()}

    def weight(self, path: str, module: nn.Module, ndim: int) -> str:
        """The canonical name of the layer's weight, or "" where it has none of `ndim` axes."""
        for name in (*_WEIGHTS, *_OLD_WEIGHTS):
            owner: object = module
            for part in name.split("."):
                owner = getattr(owner, part, None)
            if isinstance(owner, Tensor) and owner.dim() == ndim and id(owner) in self.canonical:
                return self.canonical[id(owner)]
        return ""

    def vector(self, module: nn.Module) -> Axis | None:
        """The axis of the layer's per-channel weight or running mean."""
        tensors = (getattr(module, name, None) for name in ("weight", "running_mean"))
        found = (self.axis(self.canonical.get(id(tensor), ""), 0) for tensor in tensors)
        return next((axis for axis in found if axis is not None), None)

    def axis(self, tensor: str, axis: int) -> Axis | None:
        return self.axes.get((tensor, axis))


def _rules(index: _Index, path: str, module: nn.Module) -> Iterator[SizeRule]:
    if isinstance(module, nn.MultiheadAttention):
        widths = {"in_proj": "embed_dim", "q_proj": "embed_dim", "k_proj": "kdim", "v_proj": "vdim"}
        for own, name in widths.items():
            tensor = getattr(module, f"{own}_weight")
            axis = index.axis(index.canonical.get(id(tensor), ""), 1)
            if axis is not None:
                yield SizeRule(path, name, None, axis.units)
    elif isinstance(module, _ConvNd):
        yield from _convolution(index, path, module)
    elif isinstance(module, (nn.Linear, nn.Embedding)):
        weight = index.weight(path, module, 2)
        names = ("out_features", "in_features") if isinstance(module, nn.Linear) else ("", "embedding_dim")
        for position, name in enumerate(names):
            axis = index.axis(weight, position)
            if axis is not None and name:
                yield SizeRule(path, name, None, axis.units)
    elif isinstance(module, (_NormBase, nn.GroupNorm)):
        axis = index.vector(module)
        if axis is not None:
            yield from _norm_rules(path, module, axis.units)
    elif isinstance(module, nn.PReLU):
        axis = index.vector(module)
        if axis is not None:
            yield SizeRule(path, "num_parameters", None, axis.units)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.weight is not None:
        weight = index.weight(path, module, len(module.normalized_shape))
        for position in range(len(module.normalized_shape)):
            axis = index.axis(weight, position)
            if axis is not None:
                yield SizeRule(path, "normalized_shape", position, axis.units)


def _convolution(index: _Index, path: str, module: _ConvNd) -> Iterator[SizeRule]:
    weight = index.weight(path, module, 2 + len(module.kernel_size))
    rows, columns = index.axis(weight, 0), index.axis(weight, 1)
    row_name, column_name = (
        ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")
    )
    if module.groups == 1:
        for axis, name in ((rows, row_name), (columns, column_name)):
            if axis is not None:
                yield SizeRule(path, name, None, axis.units)
        return
    n_rows = module.in_channels if module.transposed else module.out_channels
    n_columns = (module.out_channels if module.transposed else module.in_channels) // module.groups
    per_group = n_rows // module.groups
    if rows is not None:
        yield SizeRule(path, row_name, None, rows.units)
        if 1 in (per_group, n_columns):
            yield SizeRule(path, "groups", None, rows.units, divisor=per_group)
            yield SizeRule(
                path, column_name, None, np.repeat(rows.units, n_columns, axis=-1), divisor=per_group
            )
            return
    if columns is not None:
        times = 1 if columns.blocks > 1 else module.groups
        yield SizeRule(path, column_name, None, np.tile(columns.units, times))
