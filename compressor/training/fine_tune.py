"""Training a model in place: a small loop that can be stopped and goes on to the same bit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from compressor.errors import InputError
from compressor.training.attaching import Attachable, Loss, ModelLoss
from compressor.training.history import History
from compressor.training.loop import Training
from compressor.training.random_state import seeded
from compressor.training.recipe import Recipe
from compressor.training.validation import Validation

__all__ = ["fine_tune_"]

log = logging.getLogger(__name__)


def fine_tune_(
    model: nn.Module,
    batches: Iterable[object],
    loss: Loss | ModelLoss,
    recipe: Recipe | None = None,
    *,
    validation: Validation | None = None,
    regularizer: Attachable | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> History:
    """The history of training `model` in place; its modes and the random state are given back.

    `batches` is a DataLoader or a list of batches, each `(inputs, target)`, a mapping or as `Taylor` reads
    them; `loss(output, target)` returns one number, or is a `ModelLoss` such as `Distillation`. What is done
    how often is in the `Recipe`. With `validation` the weights of the best epoch are kept. `regularizer` is
    anything with `attach(optimizer)`, sparse training say; leave the validation out there, as the best epoch
    may be one in which the channels are not at zero yet.

    With `checkpoint` the training is written to that file after each epoch and when it is interrupted
    (Ctrl-C), and goes on from there where the file exists: on a CPU to the same bit as without the
    interruption, the loader's generator and the augmentation included (not with `persistent_workers`, whose
    random state nobody can read). Batches of your own that draw from a generator hold it as an attribute
    `generator`. A finished training is not repeated. The file holds tensors and plain values only; in
    several processes it is not written on an interrupt.

    Under `torchrun` (an initialised process group) gradients are means over processes, each of which reads
    its own share through a DistributedSampler; the first one writes and shows progress.

    Raises InputError (no batches, labels out of range, one-sample batches for a batch norm, an optimizer of
    other parameters), TrainingError where the loss or a gradient is not finite (the model then is as the last
    step left it), FileError for a checkpoint of another model, recipe, loss, validation, regulariser or
    length of an epoch; what differs is named.

    >>> import torch
    >>> from functools import partial
    >>> net = nn.Linear(2, 2)
    >>> batches = [(torch.eye(2), torch.tensor([0, 1]))]
    >>> recipe = Recipe(epochs=3, lr=0.5)
    >>> history = fine_tune_(net, batches, nn.functional.cross_entropy, recipe)
    >>> history.losses[0] > history.losses[-1]
    True

    Between the steps of a gradual pruning: `prune(..., steps=3, between=partial(fine_tune_, batches=batches,
    loss=loss))`.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"fine_tune_ needs a torch.nn.Module, got {type(model).__name__}")
    chosen = Recipe() if recipe is None else recipe
    if not isinstance(chosen, Recipe):
        raise InputError(
            f"fine_tune_ needs a Recipe, got {type(chosen).__name__}: Recipe(epochs=10, lr=0.01)"
        )
    if validation is not None and not isinstance(validation, Validation):
        raise InputError(
            f"validation must be a Validation, got {type(validation).__name__}: Validation(batches=...)"
        )
    if regularizer is not None and not isinstance(regularizer, Attachable):
        raise InputError(
            f"regularizer must have a method attach(optimizer), as those of training.sparsity, got "
            f"{type(regularizer).__name__}"
        )
    if chosen.patience is not None and validation is None:
        raise InputError(
            "Recipe(patience=...) stops after epochs without a better metric, and there is none: give "
            "validation=Validation(batches=..., metric=...)"
        )
    path = None if checkpoint is None else Path(checkpoint)
    with (
        Training(model, batches, loss, chosen, validation) as training,
        seeded(chosen.seed + training.rank, training.device),
    ):
        training.prepare(regularizer, path)
        return training.run(progress=progress)
