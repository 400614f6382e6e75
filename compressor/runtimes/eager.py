"""PyTorch as it is: the model's own forward, on the device it lies on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree

from compressor.core.restoring import modes_kept
from compressor.errors import InputError
from compressor.runtimes.base import Ready, Runtime, Target
from compressor.runtimes.clocks import device_clock, pinned_to

__all__ = ["Eager", "device_of", "in_eval_mode", "modules_of"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Eager(Runtime):
    """The forward of the model, in eval mode and without gradients; on CUDA devices events are timed.

    >>> Eager(threads=2)
    Eager(threads=2)
    """

    @contextmanager
    def ready(
        self, models: Sequence[Target], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Ready]:
        """Within, eval mode, no gradients and `threads` CPU threads."""
        modules = modules_of(self, models)
        clock = device_clock(device_of(modules, args, kwargs), self.threads)
        with in_eval_mode(modules, self.threads), pinned_to(self.pin):
            yield Ready(tuple(_call(module, args, kwargs) for module in modules), clock)


def modules_of(runtime: Runtime, models: Sequence[Target]) -> list[nn.Module]:
    """The models, which must be modules; raises InputError for a path."""
    modules = []
    for model in models:
        if not isinstance(model, nn.Module):
            raise InputError(
                f"{type(runtime).__name__} runs torch modules, got {model!r}; for files use OnnxRuntime()"
            )
        modules.append(model)
    return modules


@contextmanager
def in_eval_mode(models: Sequence[nn.Module], threads: int) -> Iterator[None]:
    """Eval mode, no gradients, `threads` CPU threads, all restored at the end."""
    before = torch.get_num_threads()
    with modes_kept(*models):
        try:
            torch.set_num_threads(threads)
            for module in (module for model in models for module in model.modules()):
                module.training = False
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(before)


def device_of(models: Sequence[nn.Module], args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    """The one device of models and inputs; raises InputError where they lie on several."""
    tensors = [t for model in models for t in (*model.parameters(), *model.buffers())]
    tensors += [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise InputError(f"models and inputs lie on several devices ({names}); move them to one")
    return next(iter(devices), torch.device("cpu"))


def _call(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: model(*args, **kwargs)
