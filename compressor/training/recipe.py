"""How a model is trained: everything about a fine-tuning but the model, the data and the loss."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch.optim import Optimizer

from compressor.errors import InputError

__all__ = ["OptimizerFactory", "Recipe", "Schedule", "cosine", "schedule_factor", "shown"]

# Called as `factory(parameter_groups, lr=…, weight_decay=…)`, as the classes of torch.optim are.
OptimizerFactory = Callable[..., Optimizer]
# From the part of the training after the warm-up that is done (0 to 1) to a factor of the learning rate.
Schedule = Callable[[float], float]


def cosine(done: float) -> float:
    """Half a cosine from 1 to 0: the factor of the learning rate when the part `done` is over.

    *Source: I. Loshchilov, F. Hutter, 2017, arXiv 1608.03983*, without restarts, minimum 0.

    >>> [round(cosine(done), 2) for done in (0, 0.25, 0.5, 1)]
    [1.0, 0.85, 0.5, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * done))


def _sgd(parameters: Any, *, lr: float, weight_decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The options of `fine_tune_`, as a value.

    - `epochs`, `lr` (the largest one), `weight_decay`; without `decay_vectors`, tensors of one axis
      (biases, norms) are not decayed.
    - `optimizer`: called as `optimizer(parameter_groups, lr=lr, weight_decay=weight_decay)`. The default is
      SGD with Nesterov momentum 0.9; `torch.optim.AdamW` fits as it is, other options through
      `functools.partial(torch.optim.AdamW, betas=(0.9, 0.98))`.
    - `schedule`: the factor of the learning rate as a function of the part of the training that is done,
      after `warmup_epochs` (fractions count) in which it rises in a line from 0. `lambda done: 0.1 ** int(3 *
      done)` is the usual three steps.
    - `accumulate`: batches for each step of the optimizer. `clip_norm`: the largest norm of the whole
      gradient.
    - `autocast`: torch.bfloat16, or torch.float16 with a gradient scaler.
    - `ema`: the decay of an exponential average of the weights, which then is what is validated and kept.
    - `freeze_batch_norm`: batch norms keep their statistics (their weights are trained).
    - `patience`: stop after so many epochs without a better metric; needs a validation.
    - `batches_per_epoch`: no more than so many batches make an epoch; needed where a loader has no length.
    - `seed` of torch's, NumPy's and Python's random numbers during the training, which are given back after
      it.

    Raises InputError for numbers that make no sense.

    >>> Recipe(epochs=30, lr=0.02, warmup_epochs=1, ema=0.999)
    Recipe(epochs=30, lr=0.02, warmup_epochs=1, ema=0.999)
    """

    epochs: int = 10
    lr: float = 0.01
    weight_decay: float = 1e-4
    decay_vectors: bool = True
    optimizer: OptimizerFactory = _sgd
    schedule: Schedule = cosine
    warmup_epochs: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    autocast: torch.dtype | None = None
    ema: float | None = None
    freeze_batch_norm: bool = False
    patience: int | None = None
    batches_per_epoch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate", "patience", "batches_per_epoch"):
            value = getattr(self, name)
            optional = name in ("patience", "batches_per_epoch")
            if not (optional and value is None) and not _is_count(value):
                raise InputError(f"Recipe: {name} must be a whole number, at least 1, got {value!r}")
        _check("lr", self.lr, lambda lr: lr > 0, "positive and finite")
        _check("weight_decay", self.weight_decay, lambda decay: decay >= 0, "at least 0 and finite")
        below = f"at least 0 and below the {self.epochs} epochs"
        _check("warmup_epochs", self.warmup_epochs, lambda warmup: 0 <= warmup < self.epochs, below)
        if self.clip_norm is not None:
            _check("clip_norm", self.clip_norm, lambda norm: norm > 0, "positive, or None")
        if self.ema is not None:
            _check("ema", self.ema, lambda decay: 0 < decay < 1, "between 0 and 1 (0.999, say), or None")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise InputError(f"Recipe: seed must be a whole number, got {self.seed!r}")
        for name in ("decay_vectors", "freeze_batch_norm"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"Recipe: {name} must be True or False, got {getattr(self, name)!r}")
        for name, example in (("optimizer", "torch.optim.AdamW"), ("schedule", "cosine")):
            if not callable(getattr(self, name)):
                raise InputError(
                    f"Recipe: {name} must be a function such as {example}, got "
                    f"{type(getattr(self, name)).__name__}"
                )
        if self.autocast not in (None, torch.float16, torch.bfloat16):
            raise InputError(
                f"Recipe: autocast is torch.float16, torch.bfloat16 or None, got {self.autocast!r}"
            )

    def __repr__(self) -> str:
        changed = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return f"Recipe({', '.join(f'{name}={shown(value)}' for name, value in changed.items())})"

    def plain(self) -> dict[str, int | float | bool | str | None]:
        """The options as they are written to a checkpoint; functions by their name."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


def schedule_factor(recipe: Recipe, epochs_done: float) -> float:
    """The factor of the learning rate after `epochs_done` epochs (fractions count).

    Raises InputError where the recipe's schedule returns no finite number, or a negative one.

    >>> recipe = Recipe(epochs=5, warmup_epochs=1)
    >>> [schedule_factor(recipe, done) for done in (0.5, 1, 3)]
    [0.5, 1.0, 0.5]
    """
    if epochs_done < recipe.warmup_epochs:
        return epochs_done / recipe.warmup_epochs
    done = (epochs_done - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    factor = recipe.schedule(min(done, 1.0))
    try:
        number = float(factor)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError(
            f"Recipe: the schedule {shown(recipe.schedule)} returned {factor!r} for the part {done:.3g} of "
            f"the training, expected a factor of the learning rate: a finite number, at least 0"
        )
    return number


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check(name: str, value: object, fine: Callable[[float], bool], expected: str) -> None:
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and fine(value)):  # type: ignore[arg-type] # a number
        raise InputError(f"Recipe: {name} must be {expected}, got {value!r}")


def _plain(value: Any) -> int | float | bool | str | None:
    if value is None or isinstance(value, int | float):
        return value
    return str(value) if isinstance(value, torch.dtype) else shown(value)


def shown(value: Any) -> str:
    """A function by its name, anything else as it is printed, without its address: the same in every process.

    >>> shown(cosine), shown(partial(torch.optim.AdamW, betas=(0.9, 0.98)))
    ('cosine', 'partial(AdamW, betas=(0.9, 0.98))')
    """
    if isinstance(value, partial):
        options = "".join(f", {name}={shown(option)}" for name, option in value.keywords.items())
        return f"partial({shown(value.func)}{options})"
    return getattr(value, "__qualname__", None) or re.sub(" at 0x[0-9a-fA-F]+", "", repr(value))
