"""What a layer reads while data runs: its first call in each batch, and windows of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from compressor.design.layer import Layer
from compressor.errors import InputError
from compressor.filters.bank import require_finite
from compressor.observing import LayerCall, Places, inputs_at, loaded, n_places, observed, running
from compressor.observing.batches import device_of, output_of

__all__ = ["check_batches", "first_calls", "order_of_calls", "windows_read"]


class _Enough(BaseException):
    """Ends a forward pass once the layer was called; no forward is to catch it."""


def check_batches(name: str, batches: object) -> None:
    """Raise InputError for a tensor: its rows would be taken for batches."""
    if isinstance(batches, Tensor):
        raise InputError(
            f"{name}: batches are a DataLoader or a list, got a tensor; write [tensor] for one batch"
        )


def order_of_calls(model: nn.Module, batches: Iterable[object]) -> tuple[str, ...]:
    """The names of the weights that the model calls on the first batch, in that order."""
    seen: dict[str, None] = {}
    with running(model):
        for batch in loaded(batches, device_of(model), max_batches=1):
            with observed(model, lambda call: seen.setdefault(call.weight)):
                output_of(model, batch)
    return tuple(seen)


def first_calls(layer: Layer, batches: Iterable[object]) -> Iterator[LayerCall]:
    """The layer's first call in each batch, with the model as it is when that batch is asked for."""
    for batch in loaded(batches, device_of(layer.model)):
        found: list[LayerCall] = []

        def see(call: LayerCall, found: list[LayerCall] = found) -> None:
            if call.weight == layer.tensor:
                found.append(call)
                raise _Enough

        with running(layer.model):
            try:
                with observed(layer.model, see):
                    output_of(layer.model, batch)
            except _Enough:
                pass
        if not found:
            raise InputError(f"{layer.name}: the model does not call it on one of the batches")
        yield found[0]


def windows_read(
    layer: Layer,
    batches: Iterable[object],
    *,
    count: int,
    per_example: int,
    times: int = 1,
    generator: torch.Generator,
) -> Tensor:
    """Windows of what the layer reads [G, M, I, *(times * k)], M at most `count`, in the layer's draw dtype.

    They lie within the inputs, apart from all padding and strides, `per_example` of each example at random
    places; for a matrix they are rows of its inputs [1, M, in]. Batches are read until there are enough.
    Raises InputError where the windows do not fit into the inputs, for values that are not finite, and for a
    transposed convolution, whose filters multiply no window.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=generator, device=generator.device))
    places, parts, found = Places(per_example, seed), [], 0
    for call in first_calls(layer, batches):
        inner = _within(layer, call, times)
        rows = inputs_at(inner, places.draw(*n_places(inner), inner.input.device))
        require_finite(rows, f"what {layer.name} reads")
        parts.append(rows.to(device=layer.device, dtype=layer.dtype))
        found += rows.shape[1]
        if found >= count:
            break
    windows = torch.cat(parts, dim=1)[:, :count]
    sizes = [times * size for size in layer.filters.shape[2:]]
    return windows.unflatten(2, (-1, *sizes)) if sizes else windows


def _within(layer: Layer, call: LayerCall, times: int) -> LayerCall:
    """A call of the same inputs with kernels so many times as long, without padding and with stride 1."""
    if call.kind == "linear":
        return call
    if call.kind == "conv_transpose":
        raise InputError(
            f"{layer.name}: the filters of a transposed convolution multiply no window of its inputs, so "
            "they cannot be learnt from windows; draw them with Orthogonal() or He()"
        )
    kernel = [times * size for size in call.filters.shape[2:]]
    free = [n - d * (k - 1) for n, k, d in zip(call.input.shape[2:], kernel, call.dilation, strict=True)]
    if min(free) < 1:
        raise InputError(
            f"{layer.name}: windows of {' x '.join(map(str, kernel))} do not fit into the "
            f"{' x '.join(map(str, call.input.shape[2:]))} positions that it reads; give larger examples, or "
            "draw this layer in another way"
        )
    nothing = call.input.new_empty(1)
    return replace(
        call,
        filters=nothing.expand(*call.filters.shape[:2], *kernel),
        output=nothing.expand(len(call.input), 1, *free),
        stride=(1,) * len(kernel),
        padding=(0,) * len(kernel),
    )
