"""Batches of a loader, each passed through a function: noise, degradations, pairs of a flow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized

__all__ = ["Mapped", "loader_of"]


class Mapped:
    """What `function` makes of each batch, anew in every pass; what a batch holds are its arguments.

    Passes of `fine_tune_` go on to the same bit where the function draws from the global generators. The
    samplers and generators of a DataLoader inside are treated as if it had been given itself.

    >>> doubled = Mapped([(1, 2), (3, 4)], lambda x, y: (2 * x, y))
    >>> len(doubled), list(doubled)
    (2, [(2, 2), (6, 4)])
    """

    def __init__(self, batches: Iterable[object], function: Callable[..., object]) -> None:
        self.batches, self.function = batches, function

    def __iter__(self) -> Iterator[object]:
        for batch in self.batches:
            yield self.function(*batch) if isinstance(batch, tuple | list) else self.function(batch)

    def __len__(self) -> int:
        if not isinstance(self.batches, Sized):
            raise TypeError(f"the {type(self.batches).__name__} inside has no length")
        return len(self.batches)


def loader_of(batches: object) -> object:
    """What the batches come from: the innermost of nested `Mapped`.

    >>> loader_of(Mapped(Mapped([1], abs), abs))
    [1]
    """
    while isinstance(batches, Mapped):
        batches = batches.batches
    return batches
