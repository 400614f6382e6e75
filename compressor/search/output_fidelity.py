"""How much of what a model computes a smaller one still computes: an evaluation without labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from torch import Tensor, nn

from compressor.core.tape import output_tensors
from compressor.errors import InputError
from compressor.observing.batches import Batch, check_max_batches, device_of, loaded, output_of
from compressor.observing.running import running

__all__ = ["OutputFidelity"]


@dataclass(frozen=True, init=False, eq=False)
class OutputFidelity:
    """1 − Σ (y − ŷ)² / Σ y² over batches: 1 where a model's outputs ŷ are those of the original, y.

    For an evaluation where there are no labels; y is taken once, when this is made, and kept on its device
    (all outputs of the batches), and so are the batches. Only floating-point outputs count. 0 is what a
    model that always says 0 gets, and it may fall below. Batches are read as scorers read them, see
    `scoring.Taylor`. Raises InputError where there is no batch, or no output that counts.

    >>> import torch
    >>> net = nn.Linear(2, 1)
    >>> fidelity = OutputFidelity(net, [torch.ones(4, 2)])
    >>> fidelity(net)
    1.0
    """

    batches: tuple[Batch, ...]
    outputs: tuple[tuple[Tensor, ...], ...]

    def __init__(
        self, original: nn.Module, batches: Iterable[object], *, max_batches: int | None = None
    ) -> None:
        check_max_batches(max_batches, where="OutputFidelity")
        kept = tuple(loaded(batches, device_of(original), max_batches=max_batches))
        object.__setattr__(self, "batches", kept)
        object.__setattr__(self, "outputs", tuple(_outputs(original, kept)))
        if not sum(float(y.cpu().double().square().sum()) for y in chain(*self.outputs)):
            raise InputError(
                f"OutputFidelity: {type(original).__name__} has no floating-point output other than 0 on "
                "these batches"
            )

    def __repr__(self) -> str:
        return f"OutputFidelity({len(self.batches)} batches)"

    def __call__(self, model: nn.Module) -> float:
        """The fidelity of a model; it runs in eval mode and is left as it was."""
        missed = whole = 0.0
        for ours, theirs in zip(self.outputs, _outputs(model, self.batches), strict=True):
            for y, other in zip(ours, theirs, strict=True):
                missed += float((y.cpu().double() - other.cpu().double()).square().sum())
                whole += float(y.cpu().double().square().sum())
        return 1 - missed / whole


def _outputs(model: nn.Module, batches: Iterable[Batch]) -> list[tuple[Tensor, ...]]:
    with running(model):
        found = [output_tensors(output_of(model, batch)) for batch in batches]
    return [tuple(y.detach() for y in each if y.is_floating_point()) for each in found]
