"""Drawing the filters of a model in place, all or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from compressor.core.surgery import cut_copy, cut_tensor
from compressor.core.tape import named_tensors
from compressor.design.choosing import Chosen, Filters, chosen_filters, shown
from compressor.design.initialiser import Initialiser
from compressor.design.layer import Layer, WeightLayer, turned
from compressor.design.reading import order_of_calls
from compressor.design.redrawn import Redrawn
from compressor.errors import InputError

__all__ = [
    "check_initialiser",
    "copy_of",
    "draw_",
    "generator_of",
    "initialise_",
    "redrawn",
    "values_of",
    "write_all_",
]


def initialise_(
    model: nn.Module,
    how: Initialiser,
    *,
    filters: Filters | None = None,
    seed: int | torch.Generator = 0,
) -> tuple[Redrawn, ...]:
    """Which filters were drawn anew, in place: of every convolution and Linear module, or the ones named.

    `filters` are paths of layers, or flags [O] of their filters by path, or the flags of the only layer.
    Filters that are not chosen keep every bit; a chosen one's bias becomes 0. A filter is a row of a matrix,
    and of a transposed convolution all that writes one output channel. Batch norms and gradients stay as
    they are, see `reinitialise_`. Layers that share a weight are drawn once.

    Fan-in and fan-out are those of the weights as they are now: pruned, and those of a group alone. Filters
    are drawn on the device of the generator (the CPU for a `seed`), in single precision or better, and then
    take the weight's device and dtype, so a seed means the same on every device.

    Raises InputError or ModelError before anything changes: no layers with weights, lazy or computed
    weights, masks that do not fit, and what the initialiser says.

    >>> from compressor.design import He
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> flags = {"0": torch.tensor([True, False, True, False]), "2": torch.tensor([False, True])}
    >>> first, second = initialise_(net, He(), filters=flags)
    >>> print(first)
    0: 2 of 4 filters (0, 2)
    """
    check_initialiser(how)
    chosen = chosen_filters(model, filters)
    work = copy_of(model)
    changed = draw_(work, how, chosen, generator_of(seed))
    write_all_(values_of(model, work, changed))
    return redrawn(model, chosen)


def check_initialiser(how: object) -> None:
    """Raise InputError for what is no initialiser; the class instead of an object is the usual slip."""
    if not isinstance(how, Initialiser):
        got = f"the class {how.__name__}" if isinstance(how, type) else type(how).__name__
        raise InputError(f"filters are drawn by an initialiser such as He(), got {got}")


def generator_of(seed: int | torch.Generator) -> torch.Generator:
    """The generator, or one on the CPU with that seed."""
    if isinstance(seed, torch.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed is a whole number or a torch.Generator, got {type(seed).__name__}")
    return torch.Generator().manual_seed(seed)


def copy_of(model: nn.Module) -> nn.Module:
    """A copy that can be drawn and run without the model knowing."""
    with torch.inference_mode(False):
        return cut_copy(model, (), cut_tensor)


def draw_(work: nn.Module, how: Initialiser, chosen: Chosen, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the filters of `work`; flags of what changed [as the tensor] by the name of a weight or bias."""
    names = {id(tensor): name for name, tensor in named_tensors(work).items()}
    modules = dict(work.named_modules())
    changed: dict[str, Tensor] = {}
    for path in _in_order(work, how, [path for path, flags in chosen.items() if bool(flags.any())], names):
        module = modules[path]
        assert isinstance(module, WeightLayer)
        layer = Layer(
            *(shown(path, module), names[id(module.weight)], work, module, chosen[path], generator.device)
        )
        layer.write_(how.draw_layer(layer, generator))
        changed[names[id(module.weight)]] = _rows(module, chosen[path])
        if module.bias is not None:
            changed[names[id(module.bias)]] = chosen[path].to(module.bias.device)
    return changed


def _rows(module: WeightLayer, flags: Tensor) -> Tensor:
    """The flags of filters as flags of weights."""
    filters = turned(module, module.weight.detach())
    rows = flags.to(filters.device).reshape(-1, *[1] * (filters.dim() - 1)).expand_as(filters)
    return turned(module, rows)


def _in_order(work: nn.Module, how: Initialiser, paths: list[str], names: Mapping[int, str]) -> Iterable[str]:
    if how.batches is None:
        return paths
    modules = dict(work.named_modules())
    tensors = {names[id(modules[path].weight)]: path for path in paths}
    called = order_of_calls(work, how.batches)
    missing = [path for tensor, path in tensors.items() if tensor not in called]
    if missing:
        raise InputError(
            f"{how!r}: the model does not call {', '.join(map(repr, missing))} on these batches (in eval "
            "mode), so nothing is known of what they read; name the other layers only"
        )
    return [tensors[tensor] for tensor in called if tensor in tensors]


def values_of(model: nn.Module, work: nn.Module, names: Iterable[str]) -> list[tuple[Tensor, Tensor]]:
    """The tensors of the model with those of these names of its copy."""
    old, new = named_tensors(model), named_tensors(work)
    return [(old[name], new[name].detach()) for name in names]


def write_all_(changes: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Write to the first of each pair what the second holds; where one fails, to none."""
    before = [tensor.detach().clone() for tensor, _ in changes]
    with torch.inference_mode(False), torch.no_grad():
        done = 0
        try:
            for tensor, values in changes:
                tensor.copy_(values)
                done += 1
        except BaseException:
            for (tensor, _), values in zip(changes[:done], before, strict=False):
                tensor.copy_(values)
            raise


def redrawn(model: nn.Module, chosen: Chosen) -> tuple[Redrawn, ...]:
    """The chosen filters, as a report; layers without any are left out."""
    modules = dict(model.named_modules())
    return tuple(
        Redrawn(shown(path, modules[path]), tuple(flags.nonzero()[:, 0].tolist()), len(flags))
        for path, flags in chosen.items()
        if bool(flags.any())
    )
