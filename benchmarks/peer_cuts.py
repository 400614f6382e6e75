"""What another library removed, read from the numbers that are left, whatever the library says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Changed", "PeerCut", "PeerPlan", "cuts_of"]


class Changed(Exception):
    """A tensor of the pruned network is no selection of slices of the original's; the text says which."""


@dataclass(frozen=True)
class PeerCut:
    """The slices that one axis of a tensor lost, as the reference oracle reads them from a plan."""

    tensor: str
    axis: int
    size: int
    removed: tuple[int, ...]
    blocks: int = 1


@dataclass(frozen=True)
class PeerPlan:
    """All cuts of a network."""

    cuts: tuple[PeerCut, ...]


def cuts_of(model: nn.Module, small: nn.Module) -> PeerPlan:
    """What `small` lost of `model`, found value by value; raises Changed where values are new or mixed.

    Every value of a scrambled network is unlike any other, so each one that is left tells where it was.

    >>> whole, part = nn.Linear(3, 2).double(), nn.Linear(2, 2).double()
    >>> _ = part.weight.data.copy_(whole.weight.data[:, [0, 2]]), part.bias.data.copy_(whole.bias.data)
    >>> cuts_of(whole, part).cuts
    (PeerCut(tensor='weight', axis=1, size=3, removed=(1,), blocks=1),)
    """
    before, after = _tensors(model), _tensors(small)
    if before.keys() != after.keys():
        raise Changed(f"tensors came or went: {sorted(before.keys() ^ after.keys())[:3]}")
    return PeerPlan(tuple(cut for name in before for cut in _cuts(name, before[name], after[name])))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return {name: tensor.detach() for name, tensor in named if tensor.is_floating_point()}


def _cuts(name: str, before: Tensor, after: Tensor) -> Iterator[PeerCut]:
    if before.shape == after.shape and torch.equal(before, after):
        return
    if before.dim() != after.dim() or not after.numel():
        raise Changed(f"{name} was of shape {tuple(before.shape)} and is of {tuple(after.shape)}")
    selected = before
    for axis, size in enumerate(before.shape):
        if after.shape[axis] == size:
            continue
        kept = _kept(name, before, after, axis)
        selected = selected.index_select(axis, torch.tensor(kept))
        yield PeerCut(name, axis, size, tuple(sorted(set(range(size)) - set(kept))))
    if not torch.equal(selected, after):
        raise Changed(f"{name} is no selection of slices of the original's")


def _kept(name: str, before: Tensor, after: Tensor, axis: int) -> list[int]:
    """Where the slices of `after` along an axis were, each by one of its values that occurs only once."""
    lines = after.movedim(axis, 0).reshape(after.shape[axis], -1)
    probes = lines[:, sorted({0, lines.shape[1] // 2, lines.shape[1] - 1})]  # [slices, tries]
    values = probes.reshape(-1).sort().values
    place = torch.searchsorted(values, before.reshape(-1)).clamp(max=len(values) - 1)
    hits = (values[place] == before.reshape(-1)).nonzero()[:, 0]
    index = torch.unravel_index(hits, before.shape)[axis]
    where: dict[float, list[int]] = {}
    for value, position in zip(before.reshape(-1)[hits].tolist(), index.tolist(), strict=True):
        where.setdefault(value, []).append(position)
    kept = []
    for slot, row in enumerate(probes.tolist()):
        alone = [where[value][0] for value in row if len(where.get(value, ())) == 1]
        if not alone:
            raise Changed(f"{name}: no value of slice {slot} of axis {axis} is found once in the original")
        kept.append(alone[0])
    return kept
