"""What one item of a data loader is, and reading a loader item by item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import CompressorError, InputError

__all__ = ["Batch", "batch_of", "check_max_batches", "device_of", "loaded", "output_of", "to_device"]


@dataclass(frozen=True)
class Batch:
    """One item of a data loader: what the model is called with, and what the loss compares to."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    target: Any


def batch_of(item: object) -> Batch:
    """How an item is read, see `Taylor`.

    >>> batch_of((1, 2, "target"))
    Batch(args=(1, 2), kwargs={}, target='target')
    >>> batch_of({"ids": 1, "labels": 2}).kwargs
    {'ids': 1, 'labels': 2}
    """
    if isinstance(item, Mapping):
        return Batch((), dict(item), item)
    if isinstance(item, tuple | list):
        if len(item) == 0:
            raise InputError("a batch is empty; expected (inputs, target), a mapping or a tensor")
        if len(item) == 1:
            return batch_of(item[0])
        if len(item) > 2:
            return Batch(tuple(item[:-1]), {}, item[-1])
        inputs, target = item
        if isinstance(inputs, Mapping):
            return Batch((), dict(inputs), target)
        args = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        return Batch(args, {}, target)
    return Batch((item,), {}, item)


def loaded(
    batches: Iterable[object], device: torch.device, *, max_batches: int | None = None
) -> Iterator[Batch]:
    """The batches one by one, with their tensors on `device`.

    Raises InputError where `batches` cannot be iterated, and at the end where there was none at all.
    """
    count = 0
    check_max_batches(max_batches)
    for item in islice(_iterated(batches), max_batches):
        yield to_device(batch_of(item), device)
        count += 1
    if count == 0:
        hint = "is the data set empty, or smaller than one batch with drop_last?"
        if isinstance(batches, Iterator):
            hint = (
                f"a {type(batches).__name__} can be run through only once and may be used up; "
                "where it is needed again, as in an iterative schedule, pass a list or a DataLoader"
            )
        raise InputError(f"batches gave no batch, expected at least one; {hint}")


def check_max_batches(max_batches: int | None, *, where: str = "") -> None:
    """Raise InputError unless the limit is None or a number of batches; `where` names who was given it."""
    if max_batches is None:
        return
    if isinstance(max_batches, bool) or not isinstance(max_batches, Integral) or max_batches < 1:
        lead = f"{where}: " if where else ""
        raise InputError(
            f"{lead}max_batches must be at least 1, got {max_batches!r}; a whole number is expected, or None "
            "for all batches"
        )


def output_of(model: nn.Module, batch: Batch) -> Any:
    """What the model returns for a batch; InputError, with what it was given, where it cannot run on it.

    Memory that does not suffice is no fault of the batch, and its error goes through.
    """
    try:
        return model(*batch.args, **batch.kwargs)
    except (CompressorError, torch.cuda.OutOfMemoryError):
        raise
    except Exception as error:
        named = (f"{name}={_shown(value)}" for name, value in batch.kwargs.items())
        given = ", ".join((*map(_shown, batch.args), *named)) or "nothing"
        raise InputError(
            f"the {type(model).__name__} cannot run on a batch that gives it {given}: "
            f"{type(error).__name__}: {error}; batches hold (inputs, target), a mapping of forward's "
            f"arguments, or one tensor"
        ) from error


def _shown(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter (or else buffer) of a model lies; the CPU where it has none."""
    tensors: Iterator[Tensor] = (t for found in (model.parameters(), model.buffers()) for t in found)
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with the tensors in it, however nested, on the device."""
    return Batch(
        tuple(_moved(value, device) for value in batch.args),
        {name: _moved(value, device) for name, value in batch.kwargs.items()},
        _moved(batch.target, device),
    )


def _iterated(batches: Iterable[object]) -> Iterator[object]:
    try:
        return iter(batches)
    except TypeError:
        raise InputError(
            f"batches must be iterable (a DataLoader, a list of batches), got "
            f"{type(batches).__name__}; one batch goes into a list: [(inputs, target)]"
        ) from None


def _moved(value: Any, device: torch.device) -> Any:
    """The value with the tensors in its tuples, lists and mappings on the device."""
    if isinstance(value, Tensor):
        # Nothing waits for a copy to the CPU: whoever reads it next would read what is not there yet.
        return value.to(device, non_blocking=device.type != "cpu")
    if isinstance(value, Mapping):
        return {key: _moved(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):  # a namedtuple
        return type(value)(*(_moved(item, device) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    return value
