"""LSUV: filters scaled so that what each layer writes has variance 1 on data."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from compressor.design.initialiser import Initialiser, drawn
from compressor.design.layer import Layer, Part
from compressor.design.orthogonal import Orthogonal
from compressor.design.reading import check_batches, first_calls
from compressor.errors import InputError
from compressor.observing import LayerCall

__all__ = ["LSUV"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LSUV(Initialiser):
    """Layer-sequential unit variance: `start`, then each layer divided by the deviation of its outputs.

    Layer after layer, in the order of the forward pass: the chosen filters are divided by √Var of what they
    write (all of their outputs in a batch together, before any norm or activation), and again on the next
    batch, until |Var - 1| was below `tolerance` or `passes` are over, which is logged. `batches` are read
    again and again, so pass a list or a DataLoader; labels are not looked at, the model runs in eval mode.

    *Source: D. Mishkin, J. Matas, 2016, arXiv 1511.06422, algorithm 1.* Departures: layers that share a
    weight are scaled once, at their first call; a batch norm behind a layer undoes its scale, so there is
    no use in it there.

    Raises InputError where a layer writes a constant.

    >>> from compressor.design import initialise_
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> x = 10 * torch.randn(64, 8)
    >>> _ = initialise_(net, LSUV([x]))
    >>> round(float(net(x).detach().var()), 3)
    1.0
    """

    batches: Iterable[object] = field(repr=False)
    _: KW_ONLY
    start: Initialiser = field(default_factory=lambda: Orthogonal(1.0))
    tolerance: float = 0.05
    passes: int = 10

    def __post_init__(self) -> None:
        check_batches("LSUV", self.batches)
        if not 0 < self.tolerance < 1:
            raise InputError(f"LSUV: tolerance must be between 0 and 1, got {self.tolerance!r}")
        if self.passes < 1:
            raise InputError(f"LSUV: passes must be at least 1, got {self.passes!r}")

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        """What `start` draws."""
        return drawn(self.start, part, generator)

    def draw_layer(self, layer: Layer, generator: torch.Generator) -> Tensor:
        """What `start` draws, scaled on batches."""
        new = self.start.draw_layer(layer, generator)
        layer.write_(new)
        calls = _endless(layer, self.batches)
        for _ in range(self.passes):
            variance = _variance(next(calls), layer)
            new = new / math.sqrt(variance)
            layer.write_(new)
            if abs(variance - 1) < self.tolerance:
                return new
        log.warning(
            "%s: after %d passes the variance was still %.3g; give larger batches",
            layer.name,
            self.passes,
            variance,
        )
        return new


def _endless(layer: Layer, batches: Iterable[object]) -> Iterator[LayerCall]:
    while True:
        yield from first_calls(layer, batches)


def _variance(call: LayerCall, layer: Layer) -> float:
    """That of all outputs of the chosen filters in one call."""
    chosen = layer.chosen.nonzero()[:, 0].to(call.output.device)
    variance = float(call.output.detach().index_select(call.channel_dim, chosen).double().var())
    if not 0 < variance < math.inf:
        raise InputError(
            f"LSUV: what {layer.name} writes has variance {variance} on a batch, expected more than 0 and "
            "finite; look for constant inputs, layers of zeros before it, or NaN"
        )
    return variance
