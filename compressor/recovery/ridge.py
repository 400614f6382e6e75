"""Ridge regression of a layer's weights from its normal equations.

Shapes: G groups, K inputs and O outputs of a group.
"""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from compressor.errors import RecoveryError
from compressor.observing import NormalEquations

__all__ = ["ridge"]

log = logging.getLogger(__name__)
_RAISED = (1.0, 1e2, 1e4)


def ridge(equations: NormalEquations, strength: float, *, around_GKO: Tensor, where: str) -> Tensor:
    """The weights [G, K, O] that minimise E‖y − Wᵀx‖² + λ‖W − W₀‖², with W₀ = `around_GKO`.

    λ is `strength` times the mean of the diagonal of E xxᵀ, so that it has no unit; K unknowns that no
    data speak of stay as in W₀. Solved by Cholesky. Where that fails for rounding, λ is raised a hundred
    and then ten thousand times, with a warning; RecoveryError where it still fails. `where` names the
    layer.

    *Source: A. Hoerl, R. Kennard, 1970, "Ridge Regression", Technometrics 12(1).*
    """
    identity = torch.eye(equations.xx.shape[-1], dtype=equations.xx.dtype, device=equations.xx.device)
    mean = equations.xx.diagonal(dim1=1, dim2=2).mean(dim=1)
    # A group that reads only zeros has no scale, and any number does: its weights stay.
    scale = torch.where(mean > 0, mean, torch.ones_like(mean))
    rest = equations.xy - equations.xx @ around_GKO
    for raised in _RAISED:
        penalty = raised * strength * scale[:, None, None] * identity
        factor, failed = torch.linalg.cholesky_ex(equations.xx + penalty)
        if not failed.any():
            solution: Tensor = around_GKO + torch.cholesky_solve(rest, factor)
            if torch.isfinite(solution).all():
                return solution
        log.warning(
            "%s: its inputs depend on one another so closely that a ridge of %g is lost in rounding; trying "
            "%g",
            where,
            raised * strength,
            100 * raised * strength,
        )
    raise RecoveryError(
        f"{where}: its normal equations cannot be solved, not even with a ridge of "
        f"{_RAISED[-1] * strength:g} times the mean square of its inputs; give more calibration data, or a "
        "larger ridge"
    )
