"""PyTorch compiled: `torch.compile`, the compilation not counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import nn

from compressor.errors import InputError
from compressor.runtimes.base import Ready, Runtime, Target
from compressor.runtimes.eager import Eager, modules_of
from compressor.runtimes.exporters import first_line

__all__ = ["Compiled"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Compiled(Runtime):
    """The model under `torch.compile`, which needs a C++ compiler on a CPU; the first call compiles.

    >>> Compiled(threads=1)
    Compiled(threads=1)
    """

    @contextmanager
    def ready(
        self, models: Sequence[Target], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Iterator[Ready]:
        """Within, every model is compiled for these inputs. Raises InputError where torch cannot."""
        modules = modules_of(self, models)
        compiled: list[Target] = [cast(nn.Module, torch.compile(module)) for module in modules]
        eager = Eager(threads=self.threads, pin=self.pin)
        with eager.ready(compiled, args, kwargs) as ready:
            for module, call in zip(modules, ready.calls, strict=True):
                try:
                    call()
                except Exception as error:
                    raise InputError(
                        f"torch.compile cannot run {type(module).__name__} here: {first_line(error)}"
                    ) from error
            yield ready
