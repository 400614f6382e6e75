"""Whether all processes that train together regularise the same channels."""

from __future__ import annotations

import hashlib

import torch
from torch import distributed

from compressor.errors import InputError

__all__ = ["check_agreement"]


def check_agreement(who: str, content: object, device: torch.device) -> None:
    """Raise InputError in every process unless `content` has the same repr in all of them.

    Gradients are the same everywhere after DDP's all-reduce, and have to be so after a penalty was
    added: with masks of their own, processes would drift apart without a word. A collective call: all
    processes have to make it.
    """
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return
    digest = hashlib.sha256(repr(content).encode()).digest()[:8]
    mine = torch.frombuffer(bytearray(digest), dtype=torch.int64)
    if distributed.get_backend() == "nccl":
        mine = mine.to(device)
    all_of_them = [torch.empty_like(mine) for _ in range(distributed.get_world_size())]
    distributed.all_gather(all_of_them, mine)
    others = [rank for rank, other in enumerate(all_of_them) if int(other) != int(mine)]
    if others:
        raise InputError(
            f"{who}: process {distributed.get_rank()} has another mask or strength than processes "
            f"{others}; make the plan once and share it (plan.save, Plan.load), from the same weights"
        )
