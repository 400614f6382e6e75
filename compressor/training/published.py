"""Recipes of published experiments."""

from __future__ import annotations

from compressor.training.rates import Stepped
from compressor.training.recipe import Recipe

__all__ = ["mask_sparsity_fine_tuning", "mask_sparsity_training"]


def mask_sparsity_training(*, epochs: int = 100, lr: float = 0.1) -> Recipe:
    """The recipe of MaskSparsity's baseline, global and masked sparse training on ImageNet.

    SGD with Nesterov momentum 0.9, weight decay 1e-4; the rate of 0.1 is for batches of 256, and a tenth
    of it remains after 30, 60 and 90 % of the epochs.

    *Source: N. Jiang, X. Zhao, C. Zhao, Y. An, M. Tang, J. Wang, 2022, arXiv 2201.06776, released code.*

    >>> mask_sparsity_training()
    Recipe(epochs=100, lr=0.1, schedule=Stepped(at=(0.3, 0.6, 0.9), factor=0.1))
    """
    return Recipe(epochs=epochs, lr=lr, weight_decay=1e-4, schedule=Stepped((0.3, 0.6, 0.9)))


def mask_sparsity_fine_tuning(*, epochs: int = 40, lr: float = 5e-4) -> Recipe:
    """The recipe of MaskSparsity's fine-tuning after the cut; a tenth after each quarter of the epochs.

    *Source: as for `mask_sparsity_training`.*

    >>> mask_sparsity_fine_tuning()
    Recipe(epochs=40, lr=0.0005, schedule=Stepped(at=(0.25, 0.5, 0.75), factor=0.1))
    """
    return Recipe(epochs=epochs, lr=lr, weight_decay=1e-4, schedule=Stepped((0.25, 0.5, 0.75)))
