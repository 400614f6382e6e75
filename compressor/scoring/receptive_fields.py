"""Moments of what a filter reads: of the values in its receptive field, at every output position.

Symbols: N samples, C channels in G groups, S pixels of the input, P positions of the output, K places of
the kernel. The moments of a window of pixels follow from those of each pixel, so pixels are measured once
and windows are formed at the end. All of it is float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from compressor.observing import LayerCall
from compressor.observing.moments import Moments

__all__ = ["Field", "field_moments", "pixel_values", "published_moments"]


@dataclass(frozen=True)
class Field:
    """Which pixels a layer reads for an output position: its geometry, without channels and weights.

    `kernel` is () for a matrix, which reads at the position itself.
    """

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    @classmethod
    def of(cls, call: LayerCall) -> Field:
        """The field of a call."""
        if call.kind == "linear":
            return cls()
        return cls(
            tuple(call.filters.shape[2:]),
            call.stride,
            call.padding,
            call.dilation,
            call.output_padding,
            call.groups,
            call.kind == "conv_transpose",
        )


def pixel_values(call: LayerCall) -> Tensor:
    """The input of a call as [N, G, C / G, *S]: over dimensions 0 and 2 are the moments of pixels."""
    values = call.input.movedim(call.channel_dim, 1)
    grouped: Tensor = values.unflatten(1, (call.groups, -1))
    return grouped


def field_moments(pixels: Moments, field: Field) -> Moments:
    """The moments of the values that a layer reads [G, *P] of those of its input's pixels [G, *S].

    They are over samples, the channels of the group and the places of the kernel. A convolution's zero
    padding counts: the filter reads these zeros like other values. A transposed convolution's position is
    reached by as many pixels as there are; where by none, mean and variance are 0.

    >>> from compressor.observing.moments import moments_of
    >>> pixels = moments_of(torch.tensor([[[[2.0, 4.0]]]]), (0, 2))
    >>> field_moments(pixels, Field((3,), (1,), (1,), (1,))).mean
    tensor([[2., 2.]], dtype=torch.float64)
    """
    if not field.kernel:
        return pixels
    dims = len(field.kernel)
    means, variances = pixels.mean.unsqueeze(1), pixels.variance.unsqueeze(1)
    ones = means.new_ones(1, 1, *field.kernel)
    if not field.transposed:
        sides = [side for width in reversed(field.padding) for side in (width, width)]
        means, variances = functional.pad(means, sides), functional.pad(variances, sides)
    # Far from zero, squares would cancel: distances are from the mean of the group's pixels.
    shift = means.flatten(1).mean(1).view(-1, *[1] * (dims + 1))
    means = means - shift
    squares = variances + means.square()
    stride, dilation = list(field.stride), list(field.dilation)
    if field.transposed:
        padding, more = list(field.padding), list(field.output_padding)
        counts, first, second = (
            torch.convolution(values, ones, None, stride, padding, dilation, True, more, 1)
            for values in (torch.ones_like(means), means, squares)
        )
        reached = counts > 0.5
        counts = counts.clamp(min=1)
        first, second = first / counts, second / counts
    else:
        first, second = (
            torch.convolution(values, ones, None, stride, [0] * dims, dilation, False, [0] * dims, 1)
            / ones.numel()
            for values in (means, squares)
        )
        reached = torch.ones_like(first, dtype=torch.bool)
    variance = (second - first.square()).clamp(min=0)
    mean = torch.where(reached, first + shift, 0.0)
    return Moments(pixels.count, mean.squeeze(1), (variance * pixels.count).squeeze(1))


def published_moments(
    pixels: Moments, kernel: Sequence[int], width: int, positions: Sequence[int]
) -> Moments:
    """The moments of what the published code takes for the values under a filter [1, P, Q].

    It slices an input [N, C, H, W] at `[:, p·s : p·s + kh, q·s : q·s + kw, :]`, as if it were
    [N, H, W, C]: windows lie over channels and rows, hold all columns, and end at the border. `pixels`
    [C, H] are the moments over samples and columns; the stride s is the `width` of the input over that of the
    output. Slices without a value, which the code leaves out, have variance 0.
    """
    stride = int(width / positions[1])
    means = pixels.mean - pixels.mean.mean()
    counts = _slices(torch.ones_like(means), kernel, stride, positions)
    first, second = (
        _slices(values, kernel, stride, positions) / counts.clamp(min=1)
        for values in (means, pixels.variance + means.square())
    )
    variance = torch.where(counts > 0.5, second - first.square(), 0.0).clamp(min=0)
    return Moments(pixels.count, (first + pixels.mean.mean())[None], (variance * pixels.count)[None])


def _slices(values: Tensor, kernel: Sequence[int], stride: int, positions: Sequence[int]) -> Tensor:
    """Sums over slices that end at the border, of [C, H] at [P, Q], by differences of running sums."""
    sums = functional.pad(values.cumsum(0).cumsum(1), (1, 0, 1, 0))
    (top, bottom), (left, right) = (
        (starts.clamp(max=size), (starts + places).clamp(max=size))
        for starts, places, size in (
            (torch.arange(count, device=values.device) * stride, places, size)
            for count, places, size in zip(positions, kernel, values.shape, strict=True)
        )
    )
    upper, lower = sums[top], sums[bottom]
    return lower[:, right] - lower[:, left] - upper[:, right] + upper[:, left]
