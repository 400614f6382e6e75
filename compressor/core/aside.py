"""Index tensors that a patch puts in place of others, unseen by the modes that follow a forward.

A recording holds what the user wrote. The tensor that a patched call takes instead is no operator of
it: a recorder finds it as a constant, a rehearsal runs past it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes, _get_current_dispatch_mode_stack

from compressor.core.modes import DispatchMode

__all__ = ["Following", "positions_like"]


class Following(DispatchMode):
    """A mode that compares a forward with what the user wrote: what patches compute is none of it."""


def positions_like(old: Tensor, axis: int, positions: tuple[int, ...]) -> Tensor:
    """An index as `old`, that has these positions along `axis`.

    >>> positions_like(torch.tensor([[3, 2, 1, 0]]), 1, (1, 0))
    tensor([[1, 0]])
    """
    if torch.compiler.is_dynamo_compiling():
        return _filled(old, axis, positions)
    with _apart():
        return _filled(old, axis, positions)


def _filled(old: Tensor, axis: int, positions: tuple[int, ...]) -> Tensor:
    # A mask becomes the positions that it picks.
    dtype = torch.int64 if old.dtype in (torch.bool, torch.uint8) else old.dtype
    new = old.new_tensor(list(positions), dtype=dtype)
    if old.dim() == 1:
        return new
    ones = [1] * old.dim()
    ones[axis] = len(positions)
    shape = list(old.shape)
    shape[axis] = len(positions)
    return new.view(ones).expand(shape)


@contextmanager
def _apart() -> Iterator[None]:
    """Within, no function mode counts the calls, and none that follows a forward sees the operators."""
    follows = any(isinstance(mode, Following) for mode in _get_current_dispatch_mode_stack())
    with torch._C.DisableTorchFunction():
        if follows:
            with _disable_current_modes():
                yield
        else:
            yield
