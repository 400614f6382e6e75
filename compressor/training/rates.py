"""Learning rates: the schedule in steps, and the rates of all steps of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import InputError
from compressor.training.recipe import Recipe, schedule_factor

__all__ = ["Stepped", "step_rates"]


@dataclass(frozen=True)
class Stepped:
    """A schedule that multiplies the learning rate by `factor` at each of the parts `at` of the training.

    >>> schedule = Stepped((0.3, 0.6, 0.9))
    >>> [round(schedule(done), 4) for done in (0, 0.29, 0.3, 0.6, 0.9)]
    [1.0, 1.0, 0.1, 0.01, 0.001]
    """

    at: tuple[float, ...]
    factor: float = 0.1

    def __post_init__(self) -> None:
        """Check the parts and the factor."""
        object.__setattr__(self, "at", tuple(self.at))
        if not self.at or not all(0 < part < 1 for part in self.at) or not self.factor > 0:
            raise InputError(f"{self}: parts between 0 and 1 and a factor above 0 are expected")

    def __call__(self, done: float) -> float:
        """The factor when the part `done` is over."""
        return self.factor ** sum(done >= part for part in self.at)


def step_rates(recipe: Recipe, batches_per_epoch: int) -> list[float]:
    """The learning rate of every optimizer step that `fine_tune_` makes with a recipe, in order.

    With it the strength of a sparse training follows from its recipe:
    `sparsity.Proximal(sparsity.Within(step_rates(recipe, len(loader))))`.

    >>> step_rates(Recipe(epochs=2, lr=0.1, accumulate=2, schedule=Stepped((0.5,))), 3)
    [0.1, 0.1, 0.010000000000000002, 0.010000000000000002]
    """
    if batches_per_epoch < 1:
        raise InputError(f"batches_per_epoch = {batches_per_epoch}: a whole number, at least 1, is expected")
    length = min(batches_per_epoch, recipe.batches_per_epoch or batches_per_epoch)
    found = []
    for epoch in range(recipe.epochs):
        for done in range(0, length, recipe.accumulate):
            batches = min(recipe.accumulate, length - done)
            found.append(recipe.lr * schedule_factor(recipe, epoch + (done + batches / 2) / length))
    return found
