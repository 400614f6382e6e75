"""The model that is captured, with the example that it is run on and all that it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from compressor.core.restoring import Held

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """`model(*args, **kwargs)` is what is followed; `before` is what every run of it gives back."""

    model: nn.Module
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    before: Held
