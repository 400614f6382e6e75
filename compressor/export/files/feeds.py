"""Batches of a data loader as onnxruntime takes them: an array for each input of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import _pytree

from compressor.errors import InputError
from compressor.export.files.sources import Source
from compressor.observing.batches import Batch, loaded

__all__ = ["Feeds", "count_of", "examples_of", "feeds_of", "read_feeds", "refuse_constant"]

Feeds = Mapping[str, npt.NDArray[Any]]


def feeds_of(source: Source, batches: Iterable[object], what: str) -> Iterator[tuple[Feeds, object]]:
    """For each batch what to feed `source`, and the target in it; `what` names the batches in errors.

    Items are read as everywhere: (inputs, target), a mapping or a tensor; of a mapping the entries that are
    inputs of the file. Raises InputError for a batch that does not fit, holds NaN or infinity, or cannot be
    read (an OSError of the loader must not pass for one of the file that is being written).
    """
    try:
        for number, batch in enumerate(loaded(batches, torch.device("cpu"))):
            yield _feed(source, batch, f"batch {number}"), batch.target
    except InputError as error:
        raise InputError(f"{what}: {error}") from error
    except OSError as error:
        raise InputError(f"{what}: a batch cannot be read: {error}") from error


def read_feeds(
    source: Source, batches: Iterable[object], what: str, *, max_examples: int
) -> tuple[Feeds, ...]:
    """The batches until they hold `max_examples` examples, all in memory."""
    if isinstance(max_examples, bool) or not isinstance(max_examples, int) or max_examples < 1:
        raise InputError(f"max_examples must be at least 1, got {max_examples!r}")
    found: list[Feeds] = []
    for feeds, _ in feeds_of(source, batches, what):
        found.append(feeds)
        if sum(map(count_of, found)) >= max_examples:
            break
    return tuple(found)


def count_of(feeds: Feeds) -> int:
    """How many examples a batch holds: the length of the first axis of the first input."""
    shape = next(iter(feeds.values())).shape
    return int(shape[0]) if shape else 1


def examples_of(source: Source, feeds: Feeds, count: int) -> Feeds:
    """`count` examples out of a batch, taken in turn; all of it where the batch axis is not free."""
    return {
        name: array[np.arange(count) % len(array)]
        if source.inputs[name] and isinstance(source.inputs[name][0], str)
        else array
        for name, array in feeds.items()
    }


def refuse_constant(batches: Sequence[Feeds], what: str) -> None:
    """Raise InputError where the real inputs hold one value only: no range can be read off that."""
    values = [
        array
        for feeds in batches
        for array in feeds.values()
        if np.issubdtype(array.dtype, np.floating) and array.size > 1
    ]
    if values and all(array.min() == array.max() == values[0].flat[0] for array in values):
        raise InputError(
            f"{what}: every value is {values[0].flat[0]:g}, so that no range can be read off; give "
            "examples as the model will meet them"
        )


def _feed(source: Source, batch: Batch, where: str) -> Feeds:
    names = list(source.inputs)
    given = [leaf for leaf in _pytree.tree_leaves(list(batch.args)) if isinstance(leaf, Tensor)]
    named = {
        name: value for name, value in batch.kwargs.items() if name in names and isinstance(value, Tensor)
    }
    tensors = {**dict(zip(names, given, strict=False)), **named}
    if len(given) > len(names) or set(tensors) != set(names):
        raise InputError(
            f"{where} gives {len(given)} tensors in order and {', '.join(named) or 'none'} by name, "
            f"{source.path} has the inputs {', '.join(names)}; a batch is (inputs, target), where "
            "several inputs are a tuple, or a mapping of the inputs' names"
        )
    sizes: dict[str, int] = {}
    return {name: _array(source, name, tensors[name], sizes, where) for name in names}


def _array(source: Source, name: str, tensor: Tensor, sizes: dict[str, int], where: str) -> npt.NDArray[Any]:
    dims, kind = source.inputs[name], source.dtypes[name]
    fits = len(dims) == tensor.dim() and all(
        (sizes.setdefault(dim, size) if isinstance(dim, str) else dim) == size
        for dim, size in zip(dims, tensor.shape, strict=True)
    )
    expected = f"[{', '.join(map(str, dims))}] {kind}"
    found = f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    if not fits or str(tensor.dtype) != f"torch.{kind}":
        raise InputError(f"{where} gives the input {name!r} {found}, {source.path} takes {expected}")
    array: npt.NDArray[Any] = tensor.detach().contiguous().numpy()
    if array.size == 0:
        raise InputError(f"{where} gives the input {name!r} {found}: no example is in it")
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        wrong = int((~np.isfinite(array)).sum())
        raise InputError(f"{where} holds {wrong} values of the input {name!r} that are NaN or infinite")
    return array
