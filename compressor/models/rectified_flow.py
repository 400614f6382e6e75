"""A rectified flow in formulas: what it is trained on, and how it is followed.

Source: X. Liu, C. Gong, Q. Liu, 2023, "Flow Straight and Fast: Learning to Generate and Transfer Data with
Rectified Flow", arXiv 2209.03003, equation 1; times stratified as in the released code of PMRF (G. Ohayon
et al., 2025, arXiv 2410.00418).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from compressor.errors import InputError
from compressor.models.options import require_positive

__all__ = ["Velocity", "euler", "flow_pair", "stratified_times"]

# From the state [N, C, ...], the condition behind it along axis 1, and times [N] to a velocity [N, C, ...].
Velocity = Callable[[Tensor, Tensor], Tensor]


def stratified_times(
    count: int, *, rank: int = 0, world: int = 1, generator: torch.Generator | None = None
) -> Tensor:
    """Times [count], each uniform in its own one of `count` · `world` equal parts of [0, 1).

    t_i = (i + u_i)/B over the batch of all processes, of which this one has the parts of its `rank`.

    >>> (stratified_times(4) * 4).int()
    tensor([0, 1, 2, 3], dtype=torch.int32)
    """
    require_positive("stratified_times", count=count, world=world)
    if not 0 <= rank < world:
        raise InputError(f"stratified_times: rank must lie in 0..{world - 1}, got {rank}")
    drawn = torch.rand(count, generator=generator)
    # A sum just below 1 may round to it: the largest float below stays inside.
    return ((rank * count + torch.arange(count) + drawn) / (count * world)).clamp_max(1 - 2**-24)


def flow_pair(x: Tensor, start: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """The state z_t = t x + (1 − t) z_0 [N, ...] at times [N], and x − z_0, the velocity to learn there.

    Raises InputError for shapes that differ and times outside [0, 1].

    >>> flow_pair(torch.ones(1, 2), torch.zeros(1, 2), torch.tensor([0.25]))
    (tensor([[0.2500, 0.2500]]), tensor([[1., 1.]]))
    """
    if x.shape != start.shape or t.shape != x.shape[:1]:
        raise InputError(
            f"flow_pair: x and start must have one shape [N, ...] and t be [N], got x {list(x.shape)}, "
            f"start {list(start.shape)}, t {list(t.shape)}"
        )
    if not bool(((t >= 0) & (t <= 1)).all()):
        raise InputError(f"flow_pair: times must lie in [0, 1], got {t.min():.4g} to {t.max():.4g}")
    part = t.view(-1, *[1] * (x.dim() - 1))
    return part * x + (1 - part) * start, x - start


def euler(velocity: Velocity, start: Tensor, *, steps: int, condition: Tensor | None = None) -> Tensor:
    """The end of dz = v(z, t) dt from `start` [N, C, ...], in equal Euler steps at t = 0, 1/K, ..., 1 − 1/K.

    >>> euler(lambda z, t: t.view(-1, 1).expand_as(z), torch.zeros(1, 2), steps=4)
    tensor([[0.3750, 0.3750]])
    """
    require_positive("euler", steps=steps)
    z = start
    for step in range(steps):
        t = z.new_full((z.shape[0],), step / steps)
        z = z + velocity(z if condition is None else torch.cat((z, condition), 1), t) / steps
    return z
