"""What an initialiser is: one method that draws filters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from compressor.design.layer import Layer, Part
from compressor.errors import InputError

__all__ = ["Initialiser", "drawn"]


class Initialiser(ABC):
    """Draws filters; subclass it with the one method `draw`, and pass the object.

    Each group of a grouped convolution is drawn as a convolution of its own. An initialiser that reads data
    holds it in `batches`; layers are then drawn in the order in which the model calls them, so that each
    reads what the new ones before it write.

    >>> class Ones(Initialiser):
    ...     def draw(self, part, generator):
    ...         return part.filters.new_ones(part.count, part.channels, *part.kernel_size)
    >>> from compressor.design import initialise_
    >>> conv = torch.nn.Conv2d(3, 4, 3)
    >>> initialise_(conv, Ones())
    (Redrawn(layer='Conv2d', filters=(0, 1, 2, 3), of=4),)
    """

    batches: Iterable[object] | None = None

    @abstractmethod
    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """New filters [n, I, *k] for those of `part` that are chosen; all chance is the generator's."""

    def draw_layer(self, layer: Layer, generator: torch.Generator) -> Tensor:
        """New filters for all that are chosen of a layer, group by group; override it to see all at once."""
        return torch.cat([drawn(self, part, generator) for part in layer.parts])


def drawn(how: Initialiser, part: Part, generator: torch.Generator) -> Tensor:
    """What `how` draws, checked: raises InputError for another shape, or for what is not finite."""
    if part.count == 0:
        return part.filters[:0]
    new = how.draw(part, generator)
    expected = (part.count, part.channels, *part.kernel_size)
    if not isinstance(new, Tensor) or tuple(new.shape) != expected:
        got = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise InputError(f"{how!r}: {part.layer.name} takes filters {list(expected)}, and it drew {got}")
    if not bool(torch.isfinite(new).all()):
        raise InputError(f"{how!r}: {part.layer.name}: filters with NaN or infinite weights were drawn")
    return new
