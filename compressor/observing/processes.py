"""Statistics of batches that are spread over several processes (torchrun, DDP).

Whether every process of a run takes part is for the caller to say: a merge in which one is missing
would wait for ever, and statistics that are not merged would give every process another plan.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor, distributed

from compressor.errors import InputError

__all__ = ["Processes", "across", "gathered", "merged"]

Processes = Literal["all", "this"]
_chosen: ContextVar[Processes | None] = ContextVar("processes", default=None)


@contextmanager
def across(processes: Processes | None) -> Iterator[None]:
    """Within, statistics are merged over "all" processes, or are those of "this" one.

    None is for programs of one process: with several, `merged` then raises InputError.
    """
    if processes not in ("all", "this", None):
        raise InputError(f"processes is 'all' or 'this', got {processes!r}")
    token = _chosen.set(processes)
    try:
        yield
    finally:
        _chosen.reset(token)


def merged(statistic: Tensor) -> Tensor:
    """The sum of a statistic over the processes that take part, on its own device.

    Every process must call it, in the same order and with the same shape.
    """
    if not _several():
        return statistic
    total = statistic.clone().to(_transport(statistic))
    distributed.all_reduce(total)
    return total.to(statistic.device)


def gathered(statistic: Tensor) -> list[Tensor]:
    """A statistic of each process that takes part, by rank; for what does not merge by adding."""
    if not _several():
        return [statistic]
    own = statistic.contiguous().to(_transport(statistic))
    found = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, own)
    return [tensor.to(statistic.device) for tensor in found]


def _several() -> bool:
    """Whether other processes take part."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    count = distributed.get_world_size()
    if count > 1 and _chosen.get() is None:
        raise InputError(
            f"{count} processes are running, and it was not said whose batches count: give processes='all' "
            "where every process scores its own share of the data, or processes='this'"
        )
    return count > 1 and _chosen.get() == "all"


def _transport(statistic: Tensor) -> torch.device:
    """Where the process group can take a tensor from: NCCL knows no host memory."""
    if distributed.get_backend() == "nccl" and statistic.device.type == "cpu":
        return torch.device("cuda", torch.cuda.current_device())
    return statistic.device
