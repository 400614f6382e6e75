"""The runtime family: what makes a model ready to be called again and again, and on which clock."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from compressor.errors import InputError
from compressor.runtimes.clocks import Clock

__all__ = ["Ready", "Runtime", "Target"]

# A module, or the path of a file that the runtime reads.
Target = nn.Module | str | os.PathLike[str]


@dataclass(frozen=True)
class Ready:
    """One call for each model, all on the same inputs, and the clock that times them."""

    calls: tuple[Callable[[], object], ...]
    clock: Clock


@dataclass(frozen=True, kw_only=True, repr=False)
class Runtime(ABC):
    """How models run while their time is taken; subclass it with the one method `ready`.

    `threads` are CPU threads. With one the clock is the CPU time of that thread, with more it is wall time.
    `pin` keeps the process on one CPU core meanwhile.
    """

    threads: int = 1
    pin: int | None = None

    def __post_init__(self) -> None:
        """Check the options."""
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or self.threads < 1:
            raise InputError(f"{type(self).__name__}(threads={self.threads!r}): threads >= 1 are expected")
        if self.pin is not None and self.threads > 1:
            raise InputError(
                f"{type(self).__name__}(threads={self.threads}, pin={self.pin}): threads on one core only "
                "wait for each other; leave `pin` out, or use one thread"
            )

    @property
    def version(self) -> str:
        """What computes, with its version: times of another one are other times."""
        return f"torch {torch.__version__}"

    def __repr__(self) -> str:
        """The threads, and what differs from the default."""
        shown = ((option, getattr(self, option.name)) for option in fields(self))
        options = [f"{o.name}={value!r}" for o, value in shown if o.name == "threads" or value != o.default]
        return f"{type(self).__name__}({', '.join(options)})"

    @abstractmethod
    def ready(
        self, models: Sequence[Target], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> AbstractContextManager[Ready]:
        """Within, the models can be called; at its end all that was switched is as before."""
