"""Sparse training: exactly the channels that a plan removes, or all of them, are pushed to zero.

A regulariser is attached to the optimizer of any training loop; `silenced` tells when it is done.
"""

from compressor.training.sparsity.base import Attached, Regularizer
from compressor.training.sparsity.forms import (
    Decay,
    Form,
    Growing,
    Proximal,
    Ridge,
    RidgeBelow,
    SmoothSubgradient,
    Subgradient,
)
from compressor.training.sparsity.group_lasso import GroupLasso
from compressor.training.sparsity.growing import GReg
from compressor.training.sparsity.mask_sparsity import MaskSparsity
from compressor.training.sparsity.network_slimming import NetworkSlimming
from compressor.training.sparsity.silence import GroupSilence, Silence, silence_, silenced
from compressor.training.sparsity.strength import Within, strength_within

__all__ = [
    "Attached",
    "Decay",
    "Form",
    "GReg",
    "GroupLasso",
    "GroupSilence",
    "Growing",
    "MaskSparsity",
    "NetworkSlimming",
    "Proximal",
    "Regularizer",
    "Ridge",
    "RidgeBelow",
    "Silence",
    "SmoothSubgradient",
    "Subgradient",
    "Within",
    "silence_",
    "silenced",
    "strength_within",
]
