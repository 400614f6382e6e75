"""Whether all processes that train together regularise the same channels."""

from __future__ import annotations

import hashlib

from compressor.errors import InputError
from compressor.training.processes import gathered_objects, number

__all__ = ["check_agreement"]


def check_agreement(who: str, content: object) -> None:
    """Raise InputError in every process unless `content` has the same repr in all of them.

    Gradients are the same everywhere after DDP's all-reduce, and have to be so after a penalty was
    added: with masks of their own, processes would drift apart without a word. A collective call: all
    processes have to make it.
    """
    mine = hashlib.sha256(repr(content).encode()).hexdigest()
    others = [rank for rank, other in enumerate(gathered_objects(mine)) if other != mine]
    if others:
        raise InputError(
            f"{who}: process {number()} has another mask or strength than processes {others}; make the plan "
            f"once and share it (plan.save, Plan.load), from the same weights"
        )
