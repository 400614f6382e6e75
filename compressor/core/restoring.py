"""Running a model without leaving a trace: whatever its forward changes is put back.

What modules hold is remembered by reference, which costs next to nothing. The contents of tensors
are copied only when an operator is about to write into one: most forwards never do.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.alone import alone
from compressor.core.modes import DispatchMode

__all__ = ["Contents", "Held", "modes_kept", "restored", "undisturbed"]


@contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Whatever happens within, every module is in the mode (training or eval) that it was in before.

    >>> net = nn.Dropout()
    >>> with modes_kept(net):
    ...     _ = net.eval()
    >>> net.training
    True
    """
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def undisturbed(model: nn.Module, *, training: bool) -> Iterator[Contents]:
    """Run the model in eval or training mode; all that it holds is as before at the end.

    That is: what each module's attributes, parameters, buffers, submodules and hooks are, and the
    mode; every tensor's contents, gradient and `requires_grad`; the random state of the host (torch,
    NumPy, Python) and of the model's devices.
    """
    with restored(model, training=training) as contents, _Watching(contents):
        yield contents


@contextmanager
def restored(model: nn.Module, *, training: bool) -> Iterator[Contents]:
    """`undisturbed` for one who says what is about to be written.

    Who sees every operator anyway announces each to the `Contents`, who does not has it keep some tensors.
    """
    with alone(), Held(model).running(training=training) as contents:
        yield contents


def _uncompiled() -> AbstractContextManager[Any]:
    """Within, what `torch.compile` made runs as it was written."""
    # Asking for it would import the compiler, which takes longer than a capture; whoever has compiled
    # anything has imported it.
    stance = getattr(torch.compiler, "set_stance", None)  # since torch 2.6
    return nullcontext() if stance is None or "torch._dynamo" not in sys.modules else stance("force_eager")


class Held:
    """All that a model's modules hold, by reference, taken down once for any number of runs."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = list(model.modules())
        self._modules: list[tuple[nn.Module, bool, dict[str, Any]]] = []
        self._empty: list[Any] = []
        self._filled: list[tuple[Any, Any]] = []
        found: dict[int, Tensor] = {}
        for module in self.modules:
            held = vars(module).copy()
            self._modules.append((module, module.training, held))
            for value in held.values():
                if type(value) in _CONTAINERS:
                    if value:
                        self._filled.append((value, value.copy()))
                        found.update(_tensors(value))
                    else:
                        self._empty.append(value)
                elif isinstance(value, Tensor):
                    found[id(value)] = value
        # What is computed (the weight that an old-style weight norm leaves) has no gradient of its own.
        self._views = [
            (t, t.detach(), t.requires_grad, t.grad if t.is_leaf else None) for t in found.values()
        ]

    @contextmanager
    def running(self, *, training: bool) -> Iterator[Contents]:
        """Within, the model is in eval or training mode and may be run; at the end all is as it was.

        For one who has his turn (`core.alone`), and says what is about to be written as in `restored`.
        """
        contents = Contents([view for _, view, _, _ in self._views])
        devices = {t.device.index or 0 for t, *_ in self._views if t.is_cuda}
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - forwards draw from it
        try:
            with torch.random.fork_rng(devices=sorted(devices)), _uncompiled():
                self._set_mode(training)
                yield contents
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            contents.restore()
            self._restore()

    def _set_mode(self, training: bool) -> None:
        """Put every module in training or eval mode, without its own `train` being asked."""
        for module, mode, _ in self._modules:
            if mode is not training:
                module.training = training

    def _restore(self) -> None:
        """Put back what modules hold, and what is said of tensors."""
        for module, mode, held in self._modules:
            now = vars(module)
            now.update(held)
            if len(now) != len(held):
                for name in [name for name in now if name not in held]:
                    del now[name]
            if module.training is not mode:
                module.training = mode
        for container in self._empty:
            if container:
                container.clear()
        for container, copy in self._filled:
            _refill(container, copy)
        for tensor, view, requires_grad, grad in self._views:
            if not tensor.is_leaf:
                continue
            if not _is_same(tensor, view):
                tensor.grad = None  # of the other shape, which the old one would not fit
                tensor.data = view
            if tensor.requires_grad is not requires_grad:
                tensor.requires_grad_(requires_grad)
            if tensor.grad is not grad:
                tensor.grad = grad


_CONTAINERS = frozenset((dict, OrderedDict, list, set))


def _tensors(container: Any) -> Iterator[tuple[int, Tensor]]:
    values: Iterable[Any] = container.values() if isinstance(container, dict) else container
    for value in values:
        if isinstance(value, Tensor):
            yield id(value), value


def _refill(container: Any, copy: Any) -> None:
    """Give a container what it held, in the order it held it."""
    container.clear()
    if isinstance(container, list):
        container.extend(copy)
    else:
        container.update(copy)


def _is_same(tensor: Tensor, view: Tensor) -> bool:
    """Whether `tensor` still has the storage and shape that `view` took note of."""
    return tensor.data_ptr() == view.data_ptr() and tensor.shape == view.shape


class Contents:
    """Copies the storage of a model's tensor when an operator is about to write into it."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._tensors = tensors
        self._open: dict[int, Tensor] | None = None
        self._saved: list[tuple[Any, Any]] = []

    def announce(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Take note that an operator is about to run."""
        declared, silent, flag = _written(func)
        if not declared and not silent:
            return
        # In eval mode a norm reads its statistics only; copying them all would be for nothing.
        writes = silent and (flag is None or bool(_at(args, flag)))
        for place in (*declared, *silent) if writes else declared:
            value = kwargs.get(place) if isinstance(place, str) else _at(args, place)
            for tensor in value if isinstance(value, (list, tuple)) else (value,):
                if isinstance(tensor, Tensor) and tensor.device.type != "meta":
                    self._save(tensor)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Copy what these tensors hold, as they may be written to unannounced."""
        for tensor in tensors:
            self._save(tensor)

    def _save(self, tensor: Tensor) -> None:
        if self._open is None:
            self._open = {_storage(t): t for t in self._tensors}
        mine = self._open.pop(_storage(tensor), None)
        if mine is not None:
            storage = mine.untyped_storage()
            self._saved.append((storage, storage.clone()))

    def restore(self) -> None:
        """Write back what was there."""
        for storage, copy in self._saved:
            if storage.nbytes() != copy.nbytes():
                storage.resize_(copy.nbytes())
            storage.copy_(copy)
        self._saved.clear()


class _Watching(DispatchMode):
    """Announces every operator to a `Contents`."""

    def __init__(self, contents: Contents) -> None:
        super().__init__()
        self._contents = contents

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self._contents.announce(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _at(args: tuple[Any, ...], position: int) -> Any:
    return args[position] if position < len(args) else None


@cache
def _written(func: Any) -> tuple[tuple[int | str, ...], tuple[int | str, ...], int | None]:
    """The arguments that an operator writes into, those its schema hides, and where it says `training`.

    The schemas of batch norm do not say that a training forward updates the running statistics.
    """
    declared: list[int | str] = []
    silent: list[int | str] = []
    flag = None
    for position, argument in enumerate(func._schema.arguments):
        alias = argument.alias_info
        if alias is not None and alias.is_write:
            declared += [argument.name] if argument.kwarg_only else [position, argument.name]
        elif argument.name.startswith("running_"):
            silent += [position, argument.name]
        elif argument.name == "training":
            flag = position
    return tuple(declared), tuple(silent), flag
