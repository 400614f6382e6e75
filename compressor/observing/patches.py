"""What a layer multiplies its weights by, place by place: the rows of a linear regression.

Shapes: N examples, P places of each, G groups, O outputs and K inputs of a group (K = its channels
times the taps of the kernel, in the order of the weight's own memory).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from compressor.errors import InputError
from compressor.observing.layers import LayerCall

__all__ = ["Places", "inputs_at", "n_places", "outputs_at", "taps_of"]


@dataclass
class Places:
    """Draws up to `count` places of every example: one at random in each of `count` equal runs of places.

    Neighbouring places of an image say nearly the same. Which places an example gets depends on its
    number since the start only, not on how examples are batched. With `count` None: all places.
    """

    count: int | None
    seed: int = 0
    _generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise InputError(f"at least one place of each example is needed, got {self.count}")
        self.restart()

    def restart(self) -> None:
        """Draw from the start again."""
        self._generator = torch.Generator().manual_seed(self.seed)

    def draw(self, examples: int, places: int, device: torch.device) -> Tensor:
        """Positions [N, P] in 0 … places - 1, distinct and ascending in each row."""
        if self.count is None or self.count >= places:
            return torch.arange(places, device=device).expand(examples, places)
        offset = torch.rand(examples, self.count, generator=self._generator, dtype=torch.float64)
        runs = (torch.arange(self.count) + offset) * (places / self.count)
        return runs.long().clamp(max=places - 1).to(device)


def n_places(call: LayerCall) -> tuple[int, int]:
    """How many examples a call is of, and at how many places of each it multiplies its weights."""
    if call.kind == "linear":
        shape = call.output.shape
        return (int(shape[0]), math.prod(shape[1:-1])) if len(shape) > 1 else (1, 1)
    return int(call.output.shape[0]), math.prod(call.output.shape[2:])


def taps_of(call: LayerCall) -> int:
    """How many weights there are for each pair of an input and an output channel."""
    return 1 if call.kind == "linear" else math.prod(call.filters.shape[2:])


def outputs_at(call: LayerCall, written: Tensor, places: Tensor) -> Tensor:
    """What `written`, of the layout of the call's output, holds at the places [G, N*P, O]."""
    rows = _maps(call, written)
    taken = rows.gather(2, places[:, None].expand(-1, rows.shape[1], -1))  # [N, channels, P]
    grouped = taken.reshape(len(taken), call.groups, -1, taken.shape[-1])
    return grouped.permute(1, 0, 3, 2).flatten(1, 2)


def inputs_at(call: LayerCall, places: Tensor) -> Tensor:
    """What the call's weights were multiplied by at the places [G, N*P, K]."""
    if call.kind == "linear":
        return outputs_at(call, call.input, places)
    maps, stride, padding = call.input, call.stride, call.padding
    if call.kind == "conv_transpose":
        maps, stride, padding = _spread(call), (1,) * len(call.stride), (0,) * len(call.padding)
    taken = _windows(
        maps, places, call.output.shape[2:], call.filters.shape[2:], stride, padding, call.dilation
    )
    if call.kind == "conv_transpose":
        taken = taken.flip(-1)  # the last tap meets the first input
    grouped = taken.reshape(taken.shape[0], call.groups, -1, *taken.shape[2:])
    return grouped.permute(1, 0, 3, 2, 4).flatten(3).flatten(1, 2)


def _maps(call: LayerCall, tensor: Tensor) -> Tensor:
    """Any layout as [N, channels, places]."""
    if call.kind == "linear":
        tensor = tensor if tensor.dim() > 1 else tensor[None]
        return tensor.movedim(-1, 1).reshape(tensor.shape[0], tensor.shape[-1], -1)
    return tensor.flatten(2)


def _windows(
    maps: Tensor,
    places: Tensor,
    out_shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """The windows of padded maps [N, C, …] around output places [N, P]: [N, C, P, taps]."""
    maps = functional.pad(maps, [side for width in reversed(padding) for side in (width, width)])
    corner = torch.zeros_like(places)
    taps = torch.zeros(1, dtype=torch.long, device=maps.device)
    rest = places
    steps = [math.prod(maps.shape[3 + d :]) for d in range(len(kernel))]
    for d in reversed(range(len(kernel))):
        corner = corner + (rest % out_shape[d]) * (stride[d] * steps[d])
        rest = rest // out_shape[d]
        along = torch.arange(kernel[d], device=maps.device) * (dilation[d] * steps[d])
        taps = (along[:, None] + taps).flatten()
    index = (corner[..., None] + taps).flatten(1)  # [N, P * taps]
    taken = maps.flatten(2).gather(2, index[:, None].expand(-1, maps.shape[1], -1))
    windows: Tensor = taken.unflatten(2, (places.shape[1], len(taps)))
    return windows


def _spread(call: LayerCall) -> Tensor:
    """The input of a transposed convolution as that of a convolution with stride 1 and no padding."""
    maps, dims = call.input, len(call.stride)
    sizes = [(n - 1) * s + 1 for n, s in zip(maps.shape[2:], call.stride, strict=True)]
    spread = maps.new_zeros(*maps.shape[:2], *sizes)
    grid = tuple(slice(None, None, s) for s in call.stride)
    spread[(slice(None), slice(None), *grid)] = maps
    sides: list[int] = []
    for d in reversed(range(dims)):
        before = call.dilation[d] * (call.filters.shape[2 + d] - 1) - call.padding[d]
        sides += [before, before + call.output_padding[d]]
    return functional.pad(spread, sides)
