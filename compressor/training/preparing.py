"""What a training starts from: the length of an epoch, and the optimizer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from compressor.errors import InputError, ModelError
from compressor.training.mapped import loader_of
from compressor.training.recipe import Recipe

__all__ = ["EXHAUSTED", "check_precision", "epoch_length", "made_optimizer"]

log = logging.getLogger(__name__)

EXHAUSTED = (
    "is the data set empty, smaller than one batch with drop_last, or an iterator that can be run through "
    "only once? Pass a DataLoader or a list"
)


def epoch_length(batches: Iterable[object], recipe: Recipe) -> int:
    """How many batches make an epoch."""
    loader = loader_of(batches)
    if isinstance(loader, Iterator):
        raise InputError(
            f"batches are read once in each epoch, and a {type(loader).__name__} can be run through only "
            f"once; pass a DataLoader or a list"
        )
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise InputError(
            f"batches must be iterable (a DataLoader, a list of batches), got {type(batches).__name__}"
        )
    limit = recipe.batches_per_epoch
    try:
        length = len(batches) if isinstance(batches, Sized) else None
    except TypeError:  # a DataLoader over an IterableDataset
        length = None
    if length is None:
        if limit is None:
            raise InputError(
                f"the {type(batches).__name__} has no length, which the learning rate's schedule needs: say "
                f"how many batches make an epoch with Recipe(batches_per_epoch=...)"
            )
        return limit
    if length == 0:
        raise InputError(f"batches gave no batch, expected at least one; {EXHAUSTED}")
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        log.warning("persistent workers keep random states that no checkpoint holds")
    return length if limit is None else min(length, limit)


def check_precision(model: nn.Module, recipe: Recipe) -> None:
    """Raise ModelError for weights in half precision under a gradient scaler, which cannot unscale them."""
    if recipe.autocast != torch.float16:
        return
    halves = [
        name for name, own in model.named_parameters() if own.requires_grad and own.dtype == torch.float16
    ]
    if halves:
        raise ModelError(
            f"{len(halves)} parameters ({halves[0]!r}, ...) are float16, and Recipe(autocast=torch.float16) "
            f"computes in it with weights of float32: train model.float()"
        )


def made_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer of the model's trainable parameters."""
    if isinstance(model, DistributedDataParallel | nn.DataParallel):
        raise ModelError(
            f"the model is wrapped in {type(model).__name__}; give the module inside, model.module: "
            f"where several processes train, it is wrapped here"
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise ModelError(f"{name!r} is lazy and has no weights yet: run the model once on an example")
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise ModelError(
            f"no parameter of the {type(model).__name__} requires gradients, so there is nothing to train; "
            f"call model.requires_grad_(True)"
        )
    vectors = [p for p in trainable if p.dim() <= 1 and not recipe.decay_vectors]
    others = [p for p in trainable if p.dim() > 1 or recipe.decay_vectors]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = recipe.optimizer(
        [group for group in groups if group["params"]], lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"Recipe.optimizer must return a torch optimizer, got {type(optimizer).__name__}")
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"the {type(optimizer).__name__} evaluates the loss itself, several times a step (a closure); "
            f"fine_tune_ steps by gradients that are there: take torch.optim.SGD or AdamW"
        )
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = sum(id(parameter) not in owned for parameter in trainable)
    if missing == len(trainable):
        raise InputError(
            f"the {type(optimizer).__name__} holds {len(owned)} parameters and none of the model's: the "
            f"recipe's optimizer must be made from the parameters it is given, not from those of another "
            f"model (or a copy)"
        )
    if missing:
        log.warning("%d of %d trainable tensors are not in the optimizer", missing, len(trainable))
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer
