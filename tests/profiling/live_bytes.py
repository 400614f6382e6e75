"""An oracle for peaks of memory: real storages, weighed while operators run and until they are freed.

It knows nothing of tapes or lifetimes: a finalizer of each storage says when it is gone.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.core.tape import conditions


class LiveBytes(TorchDispatchMode):
    """The bytes of the inputs and of what operators compute, as long as anything holds them."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self._held: dict[int, int] = {}
        self._known: set[int] = set()
        for tensor in inputs:
            self._meet(tensor, counts=True)
        self.peak = sum(self._held.values())

    def _meet(self, tensor: Tensor, *, counts: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self._held[key] = storage.nbytes() if counts else 0
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._known.discard(key)
        self._held.pop(key, None)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for leaf in _pytree.tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._meet(leaf, counts=False)  # a parameter or a constant, unless it is known
        result = func(*args, **(kwargs or {}))
        for leaf in _pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._meet(leaf, counts=True)
        self.peak = max(self.peak, sum(self._held.values()))
        return result


class Freeing(torch.fx.Interpreter):
    """Runs a trace of operators, and lets go of a result after its last use, or at once without any."""

    def run_node(self, n: torch.fx.Node) -> Any:
        result = super().run_node(n)
        return result if n.users or n.op == "output" else None


def live_peak(model: nn.Module, *inputs: Tensor) -> int:
    """The most bytes held while the operators of `model` run one by one, each result freed when it can be."""
    own = [x.clone() for x in inputs]
    with conditions(model, training=False):
        trace = make_fx(lambda *given: model(*given))(*own)
        with LiveBytes(own) as live:
            Freeing(trace).run(*own)
    return live.peak


def eager_peak(model: nn.Module, *inputs: Tensor) -> int:
    """The most bytes held while `model` itself runs, whose forward may hold names longer than it needs."""
    own = [x.clone() for x in inputs]
    with conditions(model, training=False), LiveBytes(own) as live:
        model(*own)
    return live.peak
