"""Drawing degenerate filters anew, after a pruning and before the fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from compressor.core.tape import named_tensors
from compressor.design.choosing import Chosen
from compressor.design.conditions import Where, degenerate, flagged
from compressor.design.initialise import (
    check_initialiser,
    copy_of,
    draw_,
    generator_of,
    redrawn,
    values_of,
    write_all_,
)
from compressor.design.initialiser import Initialiser
from compressor.design.noise import He
from compressor.design.redrawn import Redrawn
from compressor.design.surroundings import norms_behind, readers_of, tensors_of_norm
from compressor.errors import InputError

__all__ = ["Reinitialised", "reinitialise", "reinitialise_"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reinitialised:
    """What was drawn anew, layer by layer, and what was changed around it.

    `norms` are the batch norms of which the same channels were reset, `silenced` the tensors whose weights
    for these channels were set to zero.
    """

    layers: tuple[Redrawn, ...]
    norms: tuple[str, ...] = ()
    silenced: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """How many filters were drawn."""
        return sum(len(layer.filters) for layer in self.layers)

    def __str__(self) -> str:
        if not self.layers:
            return "no filter was drawn anew"
        lines = [f"{self.count} filters of {len(self.layers)} layers were drawn anew", *map(str, self.layers)]
        if self.norms:
            lines.append(f"batch norms reset there: {', '.join(self.norms)}")
        if self.silenced:
            lines.append(f"silenced until trained, in {', '.join(self.silenced)}")
        return "\n".join(lines)


def reinitialise(
    model: nn.Module,
    *args: Any,
    where: Where = degenerate,
    how: Initialiser | None = None,
    seed: int | torch.Generator = 0,
    silent: bool = False,
    **kwargs: Any,
) -> tuple[nn.Module, Reinitialised]:
    """A copy of the model with filters drawn anew, and which; `model` stays as it is. See `reinitialise_`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> _ = net[0].weight.data[2].zero_()
    >>> small, report = reinitialise(net)
    >>> print(report)
    1 filters of 1 layers were drawn anew
    0: 1 of 4 filters (2)
    """
    copied = copy_of(model) if isinstance(model, nn.Module) else model
    report = reinitialise_(copied, *args, where=where, how=how, seed=seed, silent=silent, **kwargs)
    return copied, report


def reinitialise_(
    model: nn.Module,
    *args: Any,
    where: Where = degenerate,
    how: Initialiser | None = None,
    seed: int | torch.Generator = 0,
    silent: bool = False,
    optimizer: Optimizer | None = None,
    **kwargs: Any,
) -> Reinitialised:
    """Which filters were drawn anew, in place: those that `where` flags, as `how` draws them (`He()`).

    `where` is a condition on the filters of a convolution (`degenerate`, `Dead()`, `Copies()`, `Judged()`,
    any function from a `FilterBank` to flags), or names or flags by path as `initialise_` takes them. `args`
    and `kwargs` are example inputs; they are needed where the model has batch norms, or with `silent`.

    The bias of a drawn filter becomes 0. Of a batch norm that directly reads the layer the same channels are
    reset: scale 1, shift 0, mean 0, variance 1. These statistics are not those of the new filters: train, or
    run `recovery.reestimate_batch_norm_`. Other norms stay as they are. Gradients of all that was drawn or
    reset become 0, and so does the state of the `optimizer`, where one is given, for these weights: its other
    state, and its count of steps, stay.

    The model computes something else afterwards: what reads a drawn channel keeps its weights, which meant
    the old one. With `silent=True` these are set to 0, so that the model computes what it would without these
    channels (as it did, where they were silent), and training brings them in. Then a channel has to be the
    layer's own: in a residual stream, at an output, or under a norm over channels InputError is raised.

    Raises InputError and ModelError as `initialise_` does, and InputError for an optimizer of another model
    or with a state of an unknown shape, before anything changes. Nothing flagged is no error: see the report.

    Measured on a ResNet-20 with random channels cut, it was no better than leaving its 13 degenerate filters
    as they were (`benchmarks/filter_init.py`): pruning by norms removes such filters by itself.

    *Source: filters that are drawn anew between two trainings: A. Prakash, J. Storer, D. Florencio, C. Zhang,
    2019, RePr, arXiv 1811.07275;* conditions and resets are ours.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> x, flags = torch.rand(1, 3, 8, 8), torch.tensor([False, True, False, False])
    >>> print(reinitialise_(net, x, where={"0": flags}, silent=True))
    1 filters of 1 layers were drawn anew
    0: 1 of 4 filters (1)
    batch norms reset there: 1
    silenced until trained, in 3.weight
    >>> net[3].weight[:, 1].abs().max().item()
    0.0
    """
    chosen = flagged(model, where, args, kwargs)
    drawing = He() if how is None else how
    check_initialiser(drawing)
    generator = generator_of(seed)
    _check_examples(model, args, kwargs, silent=silent)
    work = copy_of(model)
    marks, norms = _reset_norms_(work, chosen, args, kwargs)
    silenced: dict[str, Tensor] = {}
    if silent and chosen:
        # Of the model as it was: a capture needs no more than its structure.
        silenced = readers_of(model, _by_tensor(model, chosen), args, kwargs)
    marks |= draw_(work, drawing, chosen, generator)
    tensors = named_tensors(work)
    for name, mark in silenced.items():
        own = mark.to(tensors[name].device)
        with torch.no_grad():
            tensors[name].masked_fill_(own, 0)
        marks[name] = marks[name] | own if name in marks else own
    changes = values_of(model, work, marks) + _training_changes(model, marks, optimizer)
    write_all_(changes)
    report = Reinitialised(redrawn(model, chosen), norms, tuple(silenced))
    log.info("%s", report)
    return report


def _check_examples(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, silent: bool
) -> None:
    if args or kwargs:
        return
    norms = any(isinstance(m, _BatchNorm) for m in model.modules())
    if norms or silent:
        why = "the model has batch norms, and" if norms else "silent=True:"
        raise InputError(
            f"{why} what reads a drawn filter is seen only where the model runs: give example inputs, "
            "reinitialise(model, x, ...)"
        )


def _by_tensor(model: nn.Module, chosen: Chosen) -> Chosen:
    """The flags by the name of the weight."""
    names = {id(tensor): name for name, tensor in named_tensors(model).items()}
    weights = {path: module.weight for path, module in model.named_modules() if path in chosen}
    return {names[id(weights[path])]: flags for path, flags in chosen.items() if bool(flags.any())}


def _reset_norms_(
    work: nn.Module, chosen: Chosen, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Reset the channels of the norms behind chosen filters; flags by tensor, and the paths of the norms."""
    if not any(isinstance(m, _BatchNorm) for m in work.modules()):
        return {}, ()
    names = {id(tensor): name for name, tensor in named_tensors(work).items()}
    paths = {id(module): path for path, module in work.named_modules()}
    behind = norms_behind(work, args, kwargs)
    marks: dict[str, Tensor] = {}
    reset: dict[str, None] = {}
    for tensor, flags in _by_tensor(work, chosen).items():
        for norm in behind.get(tensor, ()):
            reset[paths[id(norm)]] = None
            for own, value in tensors_of_norm(norm):
                mark = flags.to(own.device)
                with torch.no_grad():
                    own.masked_fill_(mark, value)
                name = names[id(own)]
                marks[name] = marks[name] | mark if name in marks else mark
    return marks, tuple(reset)


# -- gradients and the optimizer --------------------------------------------------------------------


def _training_changes(
    model: nn.Module, marks: Mapping[str, Tensor], optimizer: Optimizer | None
) -> list[tuple[Tensor, Tensor]]:
    """Gradients and entries of the optimizer's state, each with zeros where a weight is new."""
    tensors = named_tensors(model)
    changes = []
    for name, mark in marks.items():
        held = [tensors[name].grad, *_state(optimizer, name, tensors[name])]
        changes += [(t, t.detach().masked_fill(mark.to(t.device), 0)) for t in held if t is not None]
    if optimizer is not None:
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if not any(id(tensor) in owned for tensor in tensors.values()):
            raise InputError(
                f"the {type(optimizer).__name__} holds none of the model's parameters: it was made for "
                "another model (or a copy); pass the one made from model.parameters()"
            )
    return changes


def _state(optimizer: Optimizer | None, name: str, tensor: Tensor) -> list[Tensor]:
    """What the optimizer holds for each weight of a parameter."""
    if optimizer is None:
        return []
    entries = {k: v for k, v in optimizer.state.get(tensor, {}).items() if isinstance(v, Tensor) and v.dim()}
    for key, value in entries.items():
        if value.shape != tensor.shape:
            raise InputError(
                f"the {type(optimizer).__name__}'s {key!r} of {name!r} has shape {list(value.shape)}, "
                f"expected the parameter's {list(tensor.shape)}: what of it belongs to the drawn filters is "
                "not known; make a new optimizer instead"
            )
    return list(entries.values())
