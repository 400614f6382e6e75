"""Sparse training in a loop of Accelerate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch.optim import Optimizer

from compressor.errors import InputError
from compressor.training.attaching import Attachable
from compressor.training.extras import missing

try:
    from accelerate import Accelerator, DistributedType
    from accelerate.optimizer import AcceleratedOptimizer
except ImportError as error:
    raise missing("Accelerate", "accelerate", error) from error

__all__ = ["sparse_training"]

# Strategies that flatten parameters or keep a part of them in each process: no channel is where it was.
_SCATTERED = (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM)


@contextmanager
def sparse_training(
    accelerator: Accelerator, optimizer: Optimizer, regularizer: Attachable
) -> Iterator[None]:
    """A context in which a regulariser acts in every step of a prepared optimizer, and no longer after it.

    It acts once for each step of the optimizer, also where gradients are accumulated or scaled. Raises
    InputError for an optimizer that was not prepared, and under FSDP, DeepSpeed and Megatron, which scatter
    the parameters.

    >>> import torch
    >>> from compressor.training.sparsity import Regularizer
    >>> class Count(Regularizer):
    ...     steps = 0
    ...     def before_step(self, optimizer):
    ...         self.steps += 1
    >>> accelerator, net, count = Accelerator(cpu=True), torch.nn.Linear(2, 1), Count()
    >>> net, optimizer = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1))
    >>> with sparse_training(accelerator, optimizer, count):
    ...     accelerator.backward(net(torch.ones(1, 2)).sum())
    ...     optimizer.step()
    >>> count.steps
    1
    """
    if accelerator.distributed_type in _SCATTERED:
        raise InputError(
            f"sparse_training: {accelerator.distributed_type.value} scatters the parameters over processes, "
            f"so that channels cannot be found in them; train with DDP or in one process"
        )
    if not isinstance(optimizer, AcceleratedOptimizer):
        raise InputError(
            f"sparse_training: expected an optimizer that accelerator.prepare returned, got "
            f"{type(optimizer).__name__}"
        )
    handle = regularizer.attach(optimizer.optimizer)
    try:
        yield
    finally:
        handle.remove()
