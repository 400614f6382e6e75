"""Training in several processes (torchrun): who has which samples, and what they agree on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from compressor.errors import InputError
from compressor.training.mapped import loader_of

__all__ = [
    "check_share",
    "gathered_objects",
    "gathered_samples",
    "in_processes",
    "is_first",
    "mean_gradients_",
    "mean_of_processes",
    "number",
    "same_buffers_",
    "same_tensors_",
    "set_epoch",
    "world",
]


def world() -> int:
    """How many processes train together; 1 where torch.distributed is not initialised."""
    return distributed.get_world_size() if _running() else 1


def number() -> int:
    """The rank of this process, 0 where it is the only one."""
    return distributed.get_rank() if _running() else 0


def is_first() -> bool:
    """Whether this process is the one that writes files and shows progress."""
    return number() == 0


def _running() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def in_processes(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself, or where several processes train it, wrapped so that gradients are their mean."""
    if world() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def check_share(batches: object) -> None:
    """Raise InputError where every process would train on the same batches."""
    loader = loader_of(batches)
    if world() == 1 or not isinstance(loader, DataLoader):
        return
    if type(loader.sampler) in (RandomSampler, SequentialSampler):
        raise InputError(
            f"{world()} processes train, and each would read all the data in its own order: give the "
            f"DataLoader sampler=torch.utils.data.DistributedSampler(dataset)"
        )


def set_epoch(batches: object, epoch: int) -> None:
    """Tell a DistributedSampler which epoch it shuffles for."""
    loader = loader_of(batches)
    if isinstance(loader, DataLoader):
        for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
            if isinstance(sampler, DistributedSampler):
                sampler.set_epoch(epoch)


def mean_of_processes(value: float, device: torch.device) -> float:
    """The mean of a number over all processes."""
    if world() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return float(total) / world()


def gathered_objects(value: object) -> list[object]:
    """The value of every process, by rank."""
    if world() == 1:
        return [value]
    found: list[object] = [None] * world()
    distributed.all_gather_object(found, value)
    return found


def gathered_samples(own: Tensor, batches: Iterable[object]) -> Tensor:
    """The rows of all processes where a DistributedSampler dealt them out, without its padding.

    Otherwise every process has read the whole split, and its own rows are all there are.
    """
    loader = loader_of(batches)
    sampler = loader.sampler if isinstance(loader, DataLoader) else None
    if world() == 1 or not isinstance(sampler, DistributedSampler):
        return own
    parts = gathered_objects(own)
    # Sample i went to rank i modulo their number; the last ones are there twice where they do not divide.
    dealt = torch.stack([part for part in parts if isinstance(part, Tensor)], dim=1).flatten(0, 1)
    return dealt[: min(len(sampler.dataset), len(dealt))]  # type: ignore[arg-type] # a Dataset with a length


def same_buffers_(model: nn.Module) -> None:
    """Give the buffers of all processes the values of the first one's: batch norms saw different samples."""
    if world() > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)


def same_tensors_(model: nn.Module) -> None:
    """Give parameters and buffers of all processes the values of the first one's."""
    same_buffers_(model)
    if world() > 1:
        for parameter in model.parameters():
            distributed.broadcast(parameter.detach(), src=0)


def mean_gradients_(parameters: Iterable[nn.Parameter]) -> None:
    """Make gradients their mean over processes, where no DistributedDataParallel does it."""
    if world() > 1:
        for parameter in parameters:
            if parameter.grad is not None:
                distributed.all_reduce(parameter.grad)
                parameter.grad /= world()
