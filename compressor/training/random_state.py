"""The random state that a training runs on: kept, given back, and written down as plain values."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from compressor.training.mapped import loader_of

__all__ = ["generators_of", "random_state", "seeded", "set_random_state"]


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Within, torch, NumPy and Python draw from `seed`; their states are given back at the end."""
    before = random_state(device)
    try:
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - augmentations draw from the global state
        random.seed(seed)
        yield
    finally:
        set_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the host's global generators and of this device's, as tensors and plain numbers.

    Of no other GPU: to ask it would take memory there in every process.
    """
    numpy: Any = np.random.get_state(legacy=False)  # noqa: NPY002
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": {
            "key": torch.from_numpy(numpy["state"]["key"].astype(np.int64)),
            "pos": int(numpy["state"]["pos"]),
            "has_gauss": int(numpy["has_gauss"]),
            "gauss": float(numpy["gauss"]),
        },
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Give the generators the states that `random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    numpy = state["numpy"]
    key = numpy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, numpy["pos"], numpy["has_gauss"], numpy["gauss"]))  # noqa: NPY002
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))


def generators_of(batches: object) -> list[torch.Generator]:
    """The `generator` of the batches and of a DataLoader's samplers, each once, in a fixed order.

    Of the batches inside where these are `Mapped`.

    >>> class Noise:
    ...     generator = torch.Generator()
    >>> generators_of(Noise()) == [Noise.generator], generators_of([torch.ones(1)])
    (True, [])
    """
    loader = loader_of(batches)
    holders: list[object] = [loader]
    if isinstance(loader, DataLoader):
        holders += [loader.sampler, loader.batch_sampler]
        holders.append(getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    distinct = {id(own): own for own in found if isinstance(own, torch.Generator)}
    return list(distinct.values())
