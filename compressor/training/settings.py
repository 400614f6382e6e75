"""What a training is done with besides model and recipe, in words: a checkpoint goes on with the same."""

from __future__ import annotations

from compressor.training.attaching import Attachable
from compressor.training.recipe import Recipe, schedule_factor, shown
from compressor.training.validation import Validation

__all__ = ["settings_of"]

_PLACES = 16  # of the schedule: functions may share a name and differ


def settings_of(
    recipe: Recipe,
    batches_per_epoch: int,
    loss: object,
    validation: Validation | None,
    regularizer: Attachable | None,
) -> dict[str, int | str | None]:
    """Each setting by its name, as a plain value: functions by their name, objects as they are printed.

    >>> settings_of(Recipe(epochs=2), 10, shown, None, None)["loss"]
    'shown'
    """
    places = (recipe.epochs * place / _PLACES for place in range(_PLACES))
    judged = None
    if validation is not None:
        judged = (
            f"{shown(validation.metric)}, {'larger' if validation.larger_is_better else 'smaller'} is better"
        )
    return {
        "batches in an epoch": batches_per_epoch,
        "schedule of the learning rate": " ".join(f"{schedule_factor(recipe, at):.4g}" for at in places),
        "loss": shown(loss),
        "validation": judged,
        "regularizer": None if regularizer is None else shown(regularizer),
    }
