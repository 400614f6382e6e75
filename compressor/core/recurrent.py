"""What torch's recurrent layers are made of, and the numbers they remember about it.

An LSTM, GRU or RNN keeps one hidden size for all its gates, layers and directions. Knows modules and
names of their weights; knows nothing of labels or plans.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["RECURRENT", "Cell", "cells_of", "refresh", "relisted"]

RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True, slots=True)
class Cell:
    """One layer and direction: names of its weights [gates·H, I], [gates·H, H or P], and [P, H] or ""."""

    entering: str
    recurrent: str
    projecting: str
    gates: int

    @property
    def places(self) -> tuple[str, str, str]:
        """The three names, "" where there is no projection."""
        return self.entering, self.recurrent, self.projecting

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the weights there are."""
        return tuple(name for name in self.places if name)


def cells_of(module: nn.Module) -> tuple[Cell, ...]:
    """Every layer and direction of a recurrent module; none for another module."""
    if isinstance(module, nn.RNNCellBase):
        return (Cell("weight_ih", "weight_hh", "", _gates(module)),)
    if isinstance(module, nn.RNNBase):
        return tuple(_cells(module))
    return ()


def _cells(module: nn.RNNBase) -> Iterator[Cell]:
    for layer in range(module.num_layers):
        for side in ("", "_reverse") if module.bidirectional else ("",):
            place = f"l{layer}{side}"
            projecting = f"weight_hr_{place}" if module.proj_size else ""
            yield Cell(f"weight_ih_{place}", f"weight_hh_{place}", projecting, _gates(module))


def _gates(module: nn.Module) -> int:
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return 4
    return 3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 1


def relisted(module: nn.RNNBase, replaced: Mapping[int, Tensor]) -> dict[str, list[object]]:
    """The lists from which a recurrent layer takes its weights, with tensors replaced (by id)."""
    refs = [None if ref is None else ref() for ref in module._flat_weight_refs]
    held = {id(weight): weakref.ref(replaced[id(weight)]) for weight in refs if id(weight) in replaced}
    pairs = zip(module._flat_weight_refs, refs, strict=True)
    return {
        "_flat_weights": [replaced.get(id(weight), weight) for weight in module._flat_weights],
        "_flat_weight_refs": [held.get(id(weight), ref) for ref, weight in pairs],
    }


def refresh(model: nn.Module) -> None:
    """Give every recurrent layer its own weights again, side by side in memory where a kernel wants it."""
    for module in model.modules():
        if isinstance(module, nn.RNNBase) and all(isinstance(w, Tensor) for w in module._flat_weights):
            module.flatten_parameters()
