"""Asking the user's evaluation: one finite number for a model, larger = better, from a fixed random state."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real

import numpy as np
import torch
from torch import Tensor, nn

from compressor.core.plan import Plan
from compressor.core.surgery import apply
from compressor.core.tape import named_tensors
from compressor.errors import EvaluationError, InputError

__all__ = ["Evaluate", "check_evaluate", "measure", "name_of", "random_state_kept", "weights_digest"]

Evaluate = Callable[[nn.Module], float]


def measure(model: nn.Module, plan: Plan, evaluate: Evaluate, *, where: str, seed: int) -> float:
    """The quality of a copy of `model` that is cut as `plan` says, in eval mode; `model` stays as it is.

    torch, NumPy and Python draw from `seed` meanwhile, and go on as before at the end. Raises
    EvaluationError, which speaks of `where`, when `evaluate` raises, or returns no finite number.
    """
    small = apply(model, plan).eval()
    with random_state_kept(small):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - evaluations may draw from it
        torch.manual_seed(seed)
        try:
            found = evaluate(small)
        except Exception as error:
            raise EvaluationError(f"{where}: evaluate raised {type(error).__name__}: {error}") from error
    return _number(found, where)


def check_evaluate(evaluate: object) -> None:
    """Raise InputError unless `evaluate` can be called."""
    if not callable(evaluate) or isinstance(evaluate, type):
        raise InputError(
            f"evaluate = {evaluate!r}: a function is expected that takes a model and returns one number, "
            "larger = better"
        )


def name_of(evaluate: Evaluate, name: str | None, *, kept: bool) -> str:
    """What the evaluation is known by: the given name, or that of the function in its module.

    Where what it measures is `kept` in a file, raises InputError for one without a name that another run
    would find again.

    >>> name_of(weights_digest, None, kept=True), name_of(lambda model: 1.0, "ones", kept=True)
    ('compressor.search.evaluating.weights_digest', 'ones')
    """
    if name is not None:
        return name
    own: str = getattr(evaluate, "__qualname__", "")
    if "<" not in own and own and getattr(evaluate, "__self__", None) is None:
        return f"{evaluate.__module__}.{own}"
    if kept:
        raise InputError(
            f"what evaluate ({evaluate!r}) measured goes to a file, where it has to be told from other "
            "evaluations: name it, name='accuracy on 2,000 images'"
        )
    return own.rpartition(".")[2] or type(evaluate).__name__


def weights_digest(model: nn.Module) -> str:
    """A digest of the class, names, types, shapes and contents of all that a model holds in tensors.

    >>> net = nn.Linear(2, 1)
    >>> before = weights_digest(net)
    >>> _ = net.weight.data.mul_(2)
    >>> before == weights_digest(net)
    False
    """
    digest = hashlib.sha256(type(model).__name__.encode())
    for name, tensor in named_tensors(model).items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1)
        if content.numel():
            digest.update(content.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


@contextmanager
def random_state_kept(model: nn.Module) -> Iterator[None]:
    """Afterwards torch (also on the model's devices), NumPy and Python draw as if nothing had been."""
    tensors = named_tensors(model).values()
    devices = sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def _number(found: object, where: str) -> float:
    if isinstance(found, Tensor) and found.numel() == 1 and not found.is_complex():
        found = found.item()
    if isinstance(found, bool) or not isinstance(found, Real):
        raise EvaluationError(
            f"{where}: evaluate returned {found!r} ({type(found).__name__}), expected one number, larger = "
            "better"
        )
    number = float(found)
    if not math.isfinite(number):
        raise EvaluationError(
            f"{where}: evaluate returned {number}, expected a finite number; a cut model may well be bad: "
            "let evaluate return what that is worth (the negative of a large loss, say)"
        )
    return number
